#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>

#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/stop_signals.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "config/json.h"
#include "traffic/instant_server.h"
#include "traffic/serving_figure.h"
#include "traffic/traffic.h"
#include "traffic/workload.h"

// `bench serve`, with the flags of `vllm bench serve`.
namespace cachalot {

namespace json = boost::json;

namespace {

constexpr size_t kMostShownReasons = 10;
constexpr int kMostSecondsOfQuestions = 60;            // about the model, before the load
constexpr std::chrono::seconds kPatienceOfSignals{5};  // then the process is ended
constexpr double kLeastRate = 1e-6;                    // a second
constexpr double kInfinity = std::numeric_limits<double>::infinity();

enum class DataSet { kRandom, kPrefixRepetition, kCustom, kShareGpt };

struct BenchServeFlags {
  std::string backend = "openai";
  std::string base_url, host = "127.0.0.1", api_key;
  int port = 8000, timeout_seconds = 1800;
  bool is_instant = false;
  DataSet data_set = DataSet::kRandom;
  RandomPrompts random;
  RepeatedPrefixes prefixes;
  PromptFile file;
  int num_prompts = 1000, num_warmups = 0;
  std::optional<int> input_len, output_len;
  TrafficOptions traffic;
  std::vector<double> request_rates{kInfinity};
  std::vector<int> max_concurrency;
  std::string ramp_strategy;
  double ramp_from = 0, ramp_to = 0;
  std::optional<bool> ignore_eos;
  std::string extra_body;
  FigureOptions figure;
  std::string shown = "ttft,tpot,itl", percentiles = "99";
  std::vector<std::string> goodput, metadata;
  bool save = false, save_detailed = false;
  std::string result_dir, result_file, picture;

  std::map<std::string, std::optional<double>> sampling;  // by the request's key
  std::optional<int> top_k;
};

Result<FigureOptions> figure_options(const BenchServeFlags& flags) {
  FigureOptions options;
  options.shown.clear();
  for (const std::string& name : CLI::detail::split(flags.shown, ',')) {
    const std::optional<LatencyKind> kind = latency_kind(name);
    if (!kind)
      return make_parameter_error("--percentile-metrics",
                                  "--percentile-metrics: \"{}\" is none of ttft, tpot, itl, e2el, client_queue_time",
                                  name);
    options.shown.push_back(*kind);
  }
  options.percentiles.clear();
  for (const std::string& text : CLI::detail::split(flags.percentiles, ',')) {
    double percent = 0;
    if (!CLI::detail::lexical_cast(text, percent) || !(percent >= 0 && percent <= 100))
      return make_parameter_error("--metric-percentiles", "--metric-percentiles: \"{}\" is no number from 0 to 100",
                                  text);
    options.percentiles.push_back(percent);
  }
  for (const std::string& pair : flags.goodput) {
    const size_t colon = pair.find(':');
    const std::string name = pair.substr(0, colon);
    if (!options.goodput) options.goodput = {kInfinity, kInfinity, kInfinity};
    double* const bound = name == "ttft"   ? &options.goodput->ttft
                          : name == "tpot" ? &options.goodput->tpot
                          : name == "e2el" ? &options.goodput->e2el
                                           : nullptr;
    if (!bound || colon == pair.npos || !CLI::detail::lexical_cast(pair.substr(colon + 1), *bound) || !(*bound >= 0))
      return make_parameter_error("--goodput",
                                  "--goodput: \"{}\" is no KEY:MILLISECONDS with a KEY of ttft, tpot, e2el", pair);
  }
  return options;
}

Result<json::object> request_body(const BenchServeFlags& flags) {
  json::object body;
  for (const auto& [key, value] : flags.sampling)
    if (value) body[key] = *value;
  if (flags.top_k) body["top_k"] = *flags.top_k;
  if (flags.ignore_eos.value_or(flags.data_set == DataSet::kRandom)) body["ignore_eos"] = true;
  if (flags.extra_body.empty()) return body;
  ASSIGN_OR_RETURN(const json::object extra, parse_json_object(flags.extra_body, "--extra-body"));
  for (const auto& [key, value] : extra) {
    if (has_word("model prompt messages stream", std::string_view(key)))
      return make_parameter_error("--extra-body", "--extra-body: {} is this command's to say", quoted(key));
    body[key] = value;
  }
  return body;
}

Result<std::vector<Conversation>> make_prompts(const BenchServeFlags& flags, const PromptSource& source, int count,
                                               uint64_t seed) {
  switch (flags.data_set) {
    case DataSet::kRandom:
      return make_conversations(flags.random, source, count, seed);
    case DataSet::kPrefixRepetition:
      return make_conversations(flags.prefixes, source, count, seed);
    case DataSet::kCustom:
    case DataSet::kShareGpt:
      break;
  }
  return read_conversations(flags.file, source, count, seed);
}

// The loads to put on the server, one after another.
std::vector<TrafficOptions> loads_of(const BenchServeFlags& flags) {
  std::vector<TrafficOptions> loads;
  const std::vector<int> bounds = flags.max_concurrency.empty() ? std::vector{0} : flags.max_concurrency;
  for (const double rate : flags.request_rates) {
    for (const int bound : bounds) {
      TrafficOptions load = flags.traffic;
      load.arrivals.rate = rate;
      load.max_concurrency = bound;
      if (!flags.ramp_strategy.empty())
        load.arrivals.ramp = {
            .exponential = flags.ramp_strategy == "exponential", .from = flags.ramp_from, .to = flags.ramp_to};
      loads.push_back(std::move(load));
    }
  }
  return loads;
}

std::string label_of(const TrafficOptions& load) {
  if (load.arrivals.ramp) return fmt::format("{:g} to {:g}/s", load.arrivals.ramp->from, load.arrivals.ramp->to);
  if (std::isfinite(load.arrivals.rate)) {
    return load.max_concurrency > 0 ? fmt::format("{:g}/s, {} at once", load.arrivals.rate, load.max_concurrency)
                                    : fmt::format("{:g}/s", load.arrivals.rate);
  }
  return load.max_concurrency > 0 ? fmt::format("{} at once", load.max_concurrency) : "all at once";
}

void print_failures(const TrafficResult& result) {
  std::vector<std::pair<std::string, int>> reasons;
  for (const Timing& timing : result.timings) {
    if (timing.error.empty()) continue;
    const auto known = std::ranges::find(reasons, timing.error, &std::pair<std::string, int>::first);
    known == reasons.end() ? static_cast<void>(reasons.emplace_back(timing.error, 1))
                           : static_cast<void>(known->second++);
  }
  for (size_t idx = 0; idx < std::min(reasons.size(), kMostShownReasons); idx++)
    fmt::print(stderr, "failed, {} times: {}\n", reasons[idx].second, reasons[idx].first);
}

std::filesystem::path result_path(const BenchServeFlags& flags, const std::string& file) {
  return std::filesystem::path(flags.result_dir) / file;
}

// Before hours of load are put on a server to no end.
Status check_folder(const char* flag, std::filesystem::path folder) {
  if (folder.empty()) folder = ".";
  if (::access(folder.c_str(), W_OK | X_OK) == 0) return {};
  return make_parameter_error(flag, "{}: nothing can be written into the folder {}: {}", flag, folder.string(),
                              std::generic_category().message(errno));
}

Status save_result(const BenchServeFlags& flags, const TrafficOptions& load, const std::string& model,
                   const json::object& figures) {
  const std::string date = fmt::format("{:%Y%m%d-%H%M%S}", fmt::localtime(std::time(nullptr)));
  json::object object{
      {"date", date},      {"endpoint_type", flags.backend}, {"backend", flags.backend},        {"label", nullptr},
      {"model_id", model}, {"tokenizer_id", model},          {"num_prompts", flags.num_prompts}};
  for (const std::string& pair : flags.metadata)
    object[pair.substr(0, pair.find('='))] = pair.substr(pair.find('=') + 1);
  object["request_rate"] = std::isfinite(load.arrivals.rate) ? json::value(load.arrivals.rate) : json::value("inf");
  object["burstiness"] =
      std::isfinite(load.arrivals.burstiness) ? json::value(load.arrivals.burstiness) : json::value("inf");
  object["max_concurrency"] = load.max_concurrency > 0 ? json::value(load.max_concurrency) : json::value();
  if (load.arrivals.ramp) {
    object["ramp_up_strategy"] = flags.ramp_strategy;
    object["ramp_up_start_rps"] = flags.ramp_from;
    object["ramp_up_end_rps"] = flags.ramp_to;
  }
  for (const auto& [key, value] : figures) object[key] = value;
  const std::string concurrency = load.max_concurrency > 0 ? fmt::format("-concurrency{}", load.max_concurrency) : "";
  std::string file = flags.result_file;
  if (file.empty())
    file = fmt::format("{}-{}qps{}-{}-{}.json", flags.backend, load.arrivals.rate, concurrency,
                       model.substr(model.rfind('/') + 1), date);
  file = result_path(flags, file).string();
  RETURN_IF_ERROR(write_file(file, json_text(object) + "\n"));
  fmt::print("Written: {}\n", file);
  return {};
}

Status check_flags(const BenchServeFlags& flags) {
  const bool needs_file = flags.data_set == DataSet::kCustom || flags.data_set == DataSet::kShareGpt;
  if (needs_file && flags.file.path.empty())
    return make_parameter_error("--dataset-path", "--dataset-path: the file of prompts is missing");
  if (!needs_file && !flags.file.path.empty())
    return make_parameter_error("--dataset-path", "--dataset-path goes with --dataset-name custom or sharegpt");
  if (flags.random.num_turns > 1 &&
      (flags.data_set == DataSet::kCustom || flags.data_set == DataSet::kPrefixRepetition))
    return make_parameter_error("--num-turns", "--num-turns goes with --dataset-name random or sharegpt");
  if (flags.request_rates.size() > 1 && flags.max_concurrency.size() > 1)
    return make_parameter_error("--request-rate", "either --request-rate or --max-concurrency may be a list");
  if (loads_of(flags).size() > 1 && !flags.result_file.empty())
    return make_parameter_error("--result-filename", "--result-filename is one file, and each load of a sweep has one");
  for (const double rate : flags.request_rates)
    if (!(rate >= kLeastRate))
      return make_parameter_error("--request-rate", "--request-rate {}: it must be at least {}", rate, kLeastRate);
  if (flags.ramp_strategy.empty() != (flags.ramp_from == 0 && flags.ramp_to == 0) ||
      (!flags.ramp_strategy.empty() && std::min(flags.ramp_from, flags.ramp_to) < kLeastRate))
    return make_parameter_error(
        "--ramp-up-start-rps",
        "--ramp-up-strategy, --ramp-up-start-rps and --ramp-up-end-rps go together, rates of at least {}", kLeastRate);
  if (!flags.ramp_strategy.empty() && std::isfinite(flags.request_rates[0]))
    return make_parameter_error("--request-rate", "--request-rate does not go with --ramp-up-strategy");
  for (const std::string& pair : flags.metadata)
    if (pair.find('=') == pair.npos || pair.starts_with('='))
      return make_parameter_error("--metadata", "--metadata: \"{}\" is no KEY=VALUE", pair);
  if (!flags.picture.empty())
    RETURN_IF_ERROR(check_folder("--svg", std::filesystem::path(flags.picture).parent_path()));
  if (!flags.save) return {};
  std::error_code ignored;
  if (!flags.result_dir.empty()) std::filesystem::create_directories(flags.result_dir, ignored);
  return check_folder(flags.result_file.empty() ? "--result-dir" : "--result-filename",
                      result_path(flags, flags.result_file).parent_path());
}

size_t num_requests_of(const std::vector<Conversation>& conversations) {
  size_t count = 0;
  for (const Conversation& conversation : conversations) count += conversation.size();
  return count;
}

Status run_bench_serve(BenchServeFlags& flags) {
  RETURN_IF_ERROR(check_flags(flags));
  ASSIGN_OR_RETURN(const FigureOptions figure_settings, figure_options(flags));
  ASSIGN_OR_RETURN(flags.traffic.body, request_body(flags));
  log::quieten();
  http::raise_file_limit();
  const http::IoThreads threads(1), server_threads(1);
  const http::Client client(
      threads, {.idle_timeout = std::chrono::seconds(flags.timeout_seconds), .max_idle_connections = 1 << 16});
  const http::Client asker(
      threads, {.idle_timeout = std::chrono::seconds(std::min(flags.timeout_seconds, kMostSecondsOfQuestions))});
  std::unique_ptr<http::Server> instant;
  std::string url = flags.base_url.empty() ? fmt::format("{}:{}", flags.host, flags.port) : flags.base_url;
  if (flags.is_instant) {
    ASSIGN_OR_RETURN(instant, start_instant_server(server_threads));
    url = fmt::format("127.0.0.1:{}", instant->port());
  }
  const openai::ApiAddress address(url, flags.api_key);
  ASSIGN_OR_RETURN(flags.traffic.model, address.choose_model(asker, flags.traffic.model));
  flags.traffic.is_chat = flags.backend == "openai-chat";
  PromptSource source = ask_for_tokens(asker, address, flags.traffic.model);
  source.as_text = flags.traffic.is_chat;
  // Who stops it wants to see what was measured.
  const StopSignals signals(kPatienceOfSignals);
  flags.traffic.stop = stop_token_of_signals();
  const auto ask = [&](const TrafficOptions& load, const std::vector<Conversation>& prompts, const std::string& what) {
    ProgressBar bar(what, "conversations");
    return run_traffic(threads, client, address, load, prompts,
                       [&](size_t num_done) { bar.update(num_done, prompts.size()); });
  };
  if (flags.num_warmups > 0) {
    ASSIGN_OR_RETURN(const auto prompts, make_prompts(flags, source, flags.num_warmups, flags.traffic.seed + 1));
    static_cast<void>(ask(flags.traffic, prompts, "warming up"));
  }
  ASSIGN_OR_RETURN(const auto prompts, make_prompts(flags, source, flags.num_prompts, flags.traffic.seed));
  std::vector<SweepPoint> points;
  for (const TrafficOptions& load : loads_of(flags)) {
    if (flags.traffic.stop.stop_requested()) break;
    const TrafficResult result = ask(load, prompts, label_of(load));
    const ServingFigure figure = summarize(result, figure_settings);
    print_failures(result);
    fmt::print("{}", serving_table(figure, figure_settings, load));
    std::fflush(stdout);
    if (flags.save)
      RETURN_IF_ERROR(save_result(flags, load, flags.traffic.model,
                                  serving_json(figure, figure_settings, result, flags.save_detailed)));
    if (!result.is_whole)
      fmt::print("Stopped after {} of {} requests.\n", result.timings.size(), num_requests_of(prompts));
    points.push_back({label_of(load), figure});
  }
  if (points.size() > 1) fmt::print("{}", sweep_table(points));
  if (!flags.picture.empty())
    RETURN_IF_ERROR(write_file(flags.picture, sweep_picture(points, flags.traffic.model + " at " + address.url())));
  if (flags.traffic.stop.stop_requested())
    return make_error(ErrorCode::kCancelled, "{} came before the end", signal_name(received_stop_signal()));
  const bool any = std::ranges::any_of(points, [](const SweepPoint& point) { return point.figure.completed > 0; });
  return any ? Status() : make_error(ErrorCode::kUnavailable, "no request was answered");
}

void add_data_flags(CLI::App& command, BenchServeFlags& flags) {
  constexpr int kMany = 1 << 30;
  add_choice(command, "--dataset-name", flags.data_set,
             {{"random", DataSet::kRandom},
              {"prefix_repetition", DataSet::kPrefixRepetition},
              {"custom", DataSet::kCustom},
              {"sharegpt", DataSet::kShareGpt}},
             "random: tokens or words; prefix_repetition: prompts that share prefixes; custom: a file of "
             "{\"prompt\": \"...\"} lines; sharegpt: a file in that form");
  command.add_option("--dataset-path", flags.file.path, "File of custom and sharegpt");
  add_whole(command, "--num-prompts", flags.num_prompts, {.least = 1, .most = 100'000'000}, "Conversations to ask");
  add_whole(command, "--num-turns", flags.random.num_turns, {.least = 1, .most = 1000},
            "Turns of a conversation, at most, each after the answer to the last: of random and sharegpt");
  add_whole(command, "--num-warmups", flags.num_warmups, {.most = kMany}, "Conversations before, that do not count");
  add_whole(command, "--seed", flags.traffic.seed, {.most = 1LL << 62}, "Of prompts and arrivals");
  add_whole(command, "--input-len", flags.input_len, {.least = 1, .most = kMany}, "Of random, in tokens");
  add_whole(command, "--output-len", flags.output_len, {.least = 1, .most = kMany}, "Of every set, in tokens");
  add_whole(command, "--random-input-len", flags.random.input.mean, {.least = 1, .most = kMany}, "Of random");
  add_whole(command, "--random-output-len", flags.random.output.mean, {.least = 1, .most = kMany}, "Of random");
  add_real(command, "--random-range-ratio", flags.random.input.spread, {0.0, 0.999999},
           "Both lengths are drawn from (1 - X) to (1 + X) times themselves");
  add_whole(command, "--random-prefix-len", flags.random.prefix_len, {.most = kMany},
            "Tokens before these that all prompts share");
  add_whole(command, "--prefix-repetition-prefix-len", flags.prefixes.prefix_len, {.least = 1, .most = kMany},
            "Of prefix_repetition");
  add_whole(command, "--prefix-repetition-suffix-len", flags.prefixes.suffix_len, {.least = 1, .most = kMany},
            "The same");
  add_whole(command, "--prefix-repetition-num-prefixes", flags.prefixes.num_prefixes, {.least = 1, .most = kMany},
            "The same");
  add_whole(command, "--prefix-repetition-output-len", flags.prefixes.output_len, {.least = 1, .most = kMany},
            "The same");
  add_whole(command, "--custom-output-len", flags.file.output_len, {.least = 1, .most = kMany},
            "Of custom; absent: the line's output_tokens, or 256");
  add_whole(command, "--sharegpt-output-len", flags.file.output_len, {.least = 1, .most = kMany},
            "Of sharegpt; absent: as long as the file's answers");
}

void add_load_flags(CLI::App& command, BenchServeFlags& flags) {
  command
      .add_option("--request-rate", flags.request_rates,
                  "Requests a second, Poisson; inf: all at once. Several between commas are a sweep")
      ->delimiter(',')
      ->type_name("X")
      ->default_str("inf");
  add_real(command, "--burstiness", flags.traffic.arrivals.burstiness, {1e-6, kInfinity},
           "Below 1: bursts; above: evener than Poisson; inf: even");
  command.add_option("--ramp-up-strategy", flags.ramp_strategy, "The rate grows from first to last request")
      ->check(CLI::IsMember({"linear", "exponential"}));
  add_real(command, "--ramp-up-start-rps", flags.ramp_from, {0.0, 1e9}, "From this rate");
  add_real(command, "--ramp-up-end-rps", flags.ramp_to, {0.0, 1e9}, "To this");
  add_whole_list(command, "--max-concurrency", flags.max_concurrency, {.least = 1, .most = 1 << 20},
                 "Conversations at once; several between commas are a sweep");
  command.add_flag_callback(
      "--ignore-eos", [&flags] { flags.ignore_eos = true; },
      "Answers go on to their full length; always so with random prompts");
  command.add_option("--extra-body", flags.extra_body, "JSON object that every request gets");
  for (const char* name :
       {"temperature", "top-p", "min-p", "frequency-penalty", "presence-penalty", "repetition-penalty"}) {
    std::string key = name;
    std::ranges::replace(key, '-', '_');
    add_real(command, std::string("--") + name, flags.sampling[key], {-1e9, 1e9}, "As in a request");
  }
  add_whole(command, "--top-k", flags.top_k, {.least = -1, .most = 1 << 30}, "As in a request");
}

void add_result_flags(CLI::App& command, BenchServeFlags& flags) {
  command.add_option("--goodput", flags.goodput, "Bounds of a good request, e.g. ttft:500 tpot:50 e2el:5000, in ms");
  command.add_option("--percentile-metrics", flags.shown, "Which latencies: ttft, tpot, itl, e2el, client_queue_time")
      ->capture_default_str();
  command.add_option("--metric-percentiles", flags.percentiles, "Which percentiles of them")->capture_default_str();
  command.add_flag("--save-result", flags.save, "Write the figures as JSON, in vLLM's keys");
  command.add_flag("--save-detailed", flags.save_detailed, "With every request's times and texts");
  command.add_option("--result-dir", flags.result_dir, "Folder of that file");
  command.add_option("--result-filename", flags.result_file, "Its name; absent: made of load, model and time");
  command.add_option("--metadata", flags.metadata, "KEY=VALUE pairs that go into it");
  command.add_option("--svg", flags.picture, "Write a picture of throughput over latency to this file");
}

}  // namespace

void add_bench_serve_command(CLI::App& group) {
  auto flags = std::make_shared<BenchServeFlags>();
  CLI::App* command =
      group.add_subcommand("serve", "Load any OpenAI-compatible address, with the flags of `vllm bench serve`");
  command->add_option("--backend", flags->backend, "openai (or vllm): completions; openai-chat: chats")
      ->check(CLI::IsMember({"openai", "vllm", "openai-chat"}))
      ->capture_default_str();
  command->add_option("--base-url,--url", flags->base_url, "The address, instead of --host and --port");
  command->add_option("--host", flags->host, "The server's")->capture_default_str();
  add_whole(*command, "--port", flags->port, {.least = 1, .most = 65535}, "The server's");
  add_whole(*command, "--timeout", flags->timeout_seconds, {.least = 1, .most = 1 << 30},
            "Seconds without a word from the server after which a request has failed");
  command->add_option("--model,--served-model-name", flags->traffic.model, "To ask for; absent: the server's first");
  command->add_option("--api-key", flags->api_key, "Of the server")->envname("OPENAI_API_KEY");
  command->add_flag("--instant-server", flags->is_instant,
                    "Load a server in this process that answers at once: what this command can load at most");
  add_data_flags(*command, *flags);
  add_load_flags(*command, *flags);
  add_result_flags(*command, *flags);
  command->callback([flags] {
    flags->random.output.spread = flags->random.input.spread;
    flags->file.num_turns = flags->random.num_turns;
    flags->file.form = flags->data_set == DataSet::kShareGpt ? PromptFile::Form::kShareGpt : PromptFile::Form::kLines;
    if (flags->input_len) flags->random.input.mean = *flags->input_len;
    if (flags->output_len)
      flags->random.output.mean = flags->prefixes.output_len = flags->file.output_len = *flags->output_len;
    if (flags->save_detailed || !flags->result_file.empty()) flags->save = true;
    finish_command(run_bench_serve(*flags));
  });
}

}  // namespace cachalot
