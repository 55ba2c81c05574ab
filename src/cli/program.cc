#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <span>
#include <system_error>

#include "base/log.h"
#include "base/stop_signals.h"
#include "base/text.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "config/end_report.h"
#include "config/version.h"

namespace cachalot {
namespace {

constexpr int kFailed = 1, kMisused = 2;

int misuse(const Error& error) {
  report_end(error);
  fmt::print(stderr, "cachalot: {}\n", error.message);
  return kMisused;
}

std::vector<CLI::App*> commands_of(CLI::App& app) {
  return app.get_subcommands([](CLI::App* command) { return !command->get_group().empty(); });
}

CLI::App* find_command(CLI::App& app, const std::string& name) {
  const auto found = app.get_subcommands([&](CLI::App* command) { return command->get_name() == name; });
  return found.empty() ? nullptr : found.front();
}

std::string command_list(CLI::App& app) {
  std::string list;
  for (const CLI::App* command : commands_of(app))
    list += fmt::format("  {:<10}{}\n", command->get_name(), command->get_description());
  return list;
}

Error no_such_command(CLI::App& app, const std::string& name) {
  std::vector<std::string> names;
  std::ranges::transform(commands_of(app), std::back_inserter(names), &CLI::App::get_name);
  std::string path = app.get_name();
  if (app.get_parent()) path = app.get_parent()->get_name() + " " + path;
  const std::string nearest = nearest_name(name, names);
  return {ErrorCode::kInvalidArgument,
          fmt::format("{} is no command of `{}`{}; there are {}", cachalot::quoted(name), path,
                      nearest.empty() ? "" : fmt::format("; the nearest is {}", nearest), fmt::join(names, ", ")),
          {}};
}

int show_overview(CLI::App& app) {
  fmt::print(
      stderr,
      "{}\n\n{}\n`cachalot help COMMAND` tells of one. The shortest way to an answer: `cachalot up`, and beside it "
      "`cachalot chat`.\n",
      app.get_description(), command_list(app));
  return kMisused;
}

// `cachalot help`, `cachalot help bench model`.
int show_help(CLI::App& app, std::span<const std::string> names) {
  CLI::App* command = &app;
  std::string path;
  for (const std::string& name : names) {
    CLI::App* const next = find_command(*command, name);
    if (!next) return misuse(no_such_command(*command, name));
    path += (path.empty() ? "" : " ") + command->get_name();
    command = next;
  }
  fmt::print("{}", command->help(path));
  return 0;
}

// The words up to the command's own: where those begin, and the command; the program itself if none is named.
struct Place {
  CLI::App* command;
  size_t first_word;
};
Result<Place> find_place(CLI::App& app, const std::vector<std::string>& words) {
  Place place{&app, 0};
  for (size_t idx = 0; idx < words.size(); idx++) {
    if (words[idx] == "--log-level" || words[idx] == "--log-format") idx++;
    if (idx >= words.size() || words[idx].starts_with('-')) continue;
    CLI::App* const command = find_command(*place.command, words[idx]);
    if (!command) return std::unexpected(no_such_command(*place.command, words[idx]));
    place = {command, idx + 1};
    if (commands_of(*command).empty()) break;
  }
  return place;
}

// What CLI11 says, in this program's words where it says too little.
int explain(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0 || dynamic_cast<const CLI::RuntimeError*>(&error)) return app.exit(error);
  std::string message = error.what();
  if (dynamic_cast<const CLI::ExtrasError*>(&error))
    message = fmt::format("not expected here: {}", fmt::join(app.remaining(true), " "));
  return misuse({ErrorCode::kInvalidArgument, message, {}});
}

}  // namespace

void finish_command(const Status& status) {
  if (status) return;
  report_end(status.error());
  if (log::current_format() == log::Format::kJson)
    log::error("{}", status.error().message);
  else
    fmt::print(stderr, "cachalot: {}\n", status.error().message);
  throw CLI::RuntimeError(received_stop_signal() != 0 ? status_of_stop_signal() : kFailed);
}

Result<std::vector<std::string>> own_command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  if (words.empty()) return make_error(ErrorCode::kIo, "/proc/self/cmdline cannot be read");
  return words;
}

std::unique_ptr<CLI::App> make_program() {
  auto app = std::make_unique<CLI::App>(
      "Cachalot serves DeepSeek-R1 and its relatives (V2, V2-Lite, V3, Moonlight) on ordinary servers.", "cachalot");
  app->set_version_flag("--version", std::string("cachalot ") + kVersion);
  app->require_subcommand(1);
  app->fallthrough();  // --log-level and --log-format may also stand behind the subcommand
  app->add_option("--log-level", "debug, info, warning, error or off")
      ->check(CLI::IsMember({"debug", "info", "warning", "error", "critical", "off"}, CLI::ignore_case))
      ->envname("VLLM_LOGGING_LEVEL")
      ->default_str("info")
      ->option_text("LEVEL [info] (or VLLM_LOGGING_LEVEL)");
  app->add_option("--log-format", "text, or json: each line of the log an object, for a collector of logs")
      ->check(CLI::IsMember({"text", "json"}, CLI::ignore_case))
      ->default_str("text")
      ->option_text("FORMAT [text]");
  app->footer("`cachalot help COMMAND` has the flags of one, docs/configuration.md the documents.");
  for (const auto add : {add_serve_command, add_router_command, add_chat_command, add_logits_command, add_eval_command,
                         add_synth_command, add_quantize_command, add_bench_command, add_up_command, add_down_command,
                         add_status_command, add_report_command, add_confirm_lost_command, add_lease_command,
                         add_check_command, add_eplb_command, add_completion_command, add_man_command})
    add(*app);
  return app;
}

int run_program(const std::vector<std::string>& words) {
  const std::unique_ptr<CLI::App> app = make_program();
  const std::string_view first = words.empty() ? std::string_view() : words.front();
  if (first == "help") return show_help(*app, std::span(words).subspan(1));
  if (first == "version") {
    fmt::print("{}\n", app->version());
    return 0;
  }
  const Result<Place> place = find_place(*app, words);
  if (!place) return misuse(place.error());
  const auto own_words = words.begin() + static_cast<ptrdiff_t>(place->first_word);
  Result<Arguments> arguments = read_arguments(*place->command, {own_words, words.end()});
  if (!arguments) return misuse(arguments.error());
  const bool asks = std::ranges::any_of(
      words, [](const std::string& word) { return word == "--help" || word == "-h" || word == "--version"; });
  if (!asks && !commands_of(*place->command).empty()) {
    if (place->command == app.get()) return show_overview(*app);
    return misuse({ErrorCode::kInvalidArgument,
                   fmt::format("`cachalot {}` needs one of these:\n{}", place->command->get_name(),
                               command_list(*place->command)),
                   {}});
  }
  // A rank that another process started says nothing: that one has said it.
  const bool is_started = std::ranges::any_of(words, [](const std::string& word) {
    return word.starts_with("--rank-board") || word.starts_with("--agent-fd");
  });
  app->parse_complete_callback([&] {
    const std::string level = app->get_option("--log-level")->as<std::string>();
    const std::string format = app->get_option("--log-format")->as<std::string>();
    log::init(level.empty() ? "info" : level, "", format == "json" ? log::Format::kJson : log::Format::kText);
    for (const std::string& notice : arguments->notices)
      if (!is_started) log::info("{}", notice);
  });
  std::vector<std::string> all(words.begin(), own_words);
  std::ranges::copy(arguments->words, std::back_inserter(all));
  std::ranges::reverse(all);  // as CLI11 wants them
  try {
    app->parse(all);
  } catch (const CLI::ParseError& error) {
    return explain(*app, error);
  } catch (const std::system_error& error) {  // of a print, most likely: nobody reads the output any more
    if (error.code() == std::errc::broken_pipe) return 128 + SIGPIPE;
    fmt::print(stderr, "cachalot: {}\n", error.what());
    return kFailed;
  }
  return 0;
}

}  // namespace cachalot
