#include "cli/chat.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "base/file.h"
#include "base/stop_signals.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/line_editor.h"
#include "cluster/run_folder.h"
#include "config/environment.h"
#include "http/message.h"

namespace cachalot {

namespace json = boost::json;

using openai::find_text;

ChatSession::ChatSession(const http::IoThreads& threads, ChatOptions options)
    : threads_(threads), client_(threads), options_(std::move(options)), address_(options_.url, options_.api_key) {
  reset();
}

void ChatSession::reset() {
  messages_.clear();
  if (!options_.system.empty()) messages_.push_back({{"role", "system"}, {"content", options_.system}});
}

void ChatSession::stop() {
  std::lock_guard lock(mutex_);
  if (running_) running_->cancel();
}

Status ChatSession::connect() {
  ASSIGN_OR_RETURN(options_.model, address_.choose_model(client_, options_.model));
  return {};
}

Result<std::string> ChatSession::ask(std::string_view text, const Sink& sink) {
  messages_.push_back({{"role", "user"}, {"content", text}});
  json::object body = {{"model", options_.model}, {"messages", messages_}, {"stream", true}};
  if (options_.temperature) body["temperature"] = *options_.temperature;
  if (options_.max_tokens) body["max_tokens"] = *options_.max_tokens;
  ASSIGN_OR_RETURN(http::ClientRequest request, address_.request("POST", "/chat/completions", json::serialize(body)));
  Answer answer;
  http::Running<Status>* running = nullptr;
  {
    std::lock_guard lock(mutex_);
    running = &running_.emplace(threads_.start(stream(std::move(request), sink, answer)));
  }
  const Status status = running->wait();
  {
    std::lock_guard lock(mutex_);
    running_.reset();
  }
  // A question without an answer is not said; an answer that was cut short is.
  if (answer.content.empty() && !status)
    messages_.pop_back();
  else
    messages_.push_back({{"role", "assistant"}, {"content", answer.content}});
  if (!status) return std::unexpected(status.error());
  return answer.finish;
}

// The sink is called on an I/O thread while ask() waits.
http::awaitable<Status> ChatSession::stream(http::ClientRequest request, const Sink& sink, Answer& answer) const {
  http::ClientCall call = client_.call(std::move(request));
  const Result<http::ResponseHead> head = co_await call.head();
  if (!head) co_return std::unexpected(head.error());
  http::SseParser parser;
  std::string refused;
  for (;;) {
    const Result<std::string> piece = co_await call.read();
    if (!piece) co_return std::unexpected(piece.error());
    if (piece->empty()) break;
    if (head->status != 200) {
      refused += *piece;
      continue;
    }
    const Result<std::vector<http::SseEvent>> events = parser.add(*piece);
    if (!events) co_return std::unexpected(events.error());
    for (const http::SseEvent& event : *events)
      if (Status taken = take_event(event.data, sink, answer); !taken) co_return taken;
  }
  if (head->status != 200) co_return std::unexpected(openai::refusal(head->status, refused));
  if (!answer.done && answer.finish.empty()) co_return make_error(ErrorCode::kUnavailable, "the answer broke off");
  co_return Status{};
}

Status ChatSession::take_event(const std::string& data, const Sink& sink, Answer& answer) const {
  if (data == "[DONE]") {
    answer.done = true;
    return {};
  }
  boost::system::error_code error;
  const json::value chunk = json::parse(data, error);
  if (error) return make_error(ErrorCode::kCorrupt, "the server streams what is not JSON: {}", quoted(data, 100));
  if (const json::string* message = find_text(chunk, "/error/message"))
    return make_error(ErrorCode::kUnavailable, "the answer broke off: {}", escaped(std::string_view(*message)));
  // Servers that send both names of a thought send the same text twice.
  const json::string* reasoning = find_text(chunk, "/choices/0/delta/reasoning");
  if (!reasoning) reasoning = find_text(chunk, "/choices/0/delta/reasoning_content");
  if (reasoning && !reasoning->empty()) sink(Part::kReasoning, *reasoning);
  if (const json::string* content = find_text(chunk, "/choices/0/delta/content"); content && !content->empty()) {
    answer.content += *content;
    sink(Part::kContent, *content);
  }
  if (const json::string* finish = find_text(chunk, "/choices/0/finish_reason")) answer.finish = *finish;
  return {};
}

namespace {

// Writes an answer to the terminal as it comes, the thought dimmed. Into a file or a pipe it goes without colours.
class Printer {
 public:
  explicit Printer(bool shows_reasoning)
      : shows_reasoning_(shows_reasoning), has_colours_(isatty(STDOUT_FILENO) == 1) {}

  void write(ChatSession::Part part, std::string_view text) {
    const bool is_thought = part == ChatSession::Part::kReasoning;
    if (is_thought && !shows_reasoning_) return;
    if (is_thought != in_thought_) switch_part(is_thought);
    // The line breaks that a model puts around its parts would only be empty lines here: those at the start are left
    // out, those at the end wait for what follows.
    if (at_start_) text.remove_prefix(std::min(text.find_first_not_of("\r\n"), text.size()));
    const size_t end = text.find_last_not_of("\r\n") + 1;
    if (end > 0) {
      put(std::exchange(held_, {}));
      put(text.substr(0, end));
      at_start_ = false;
    }
    held_ += text.substr(end);
  }
  // After an answer, however it ended.
  void finish(std::string_view note) {
    if (in_thought_) dim(false);
    held_.clear();
    put("\n");
    if (!note.empty()) {
      dim(true);
      put(fmt::format("[{}]", note));
      dim(false);
      put("\n");
    }
    in_thought_ = false;
    at_start_ = true;
  }

 private:
  void switch_part(bool is_thought) {
    held_.clear();
    if (in_thought_) {
      dim(false);
      if (!at_start_) put("\n\n");
    }
    if (is_thought) dim(true);
    in_thought_ = is_thought;
    at_start_ = true;
  }
  void dim(bool on) const {
    if (has_colours_) put(on ? "\x1b[2m" : "\x1b[0m");
  }
  static void put(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

  const bool shows_reasoning_, has_colours_;
  bool in_thought_ = false, at_start_ = true;
  std::string held_;  // line breaks
};

Status answer(ChatSession& session, const std::string& question, Printer& printer) {
  const InterruptHandler stops_the_answer([&] { session.stop(); });  // instead of the program
  const auto finish = session.ask(question, [&](auto part, std::string_view text) { printer.write(part, text); });
  if (!finish && finish.error().code == ErrorCode::kCancelled) {
    printer.finish("stopped");
    return {};
  }
  const bool is_cut = finish && *finish != "stop";
  printer.finish(is_cut ? fmt::format("ended: {}", *finish) : std::string());
  if (!finish) return std::unexpected(finish.error());
  return {};
}

void converse(ChatSession& session, Printer& printer) {
  const bool is_terminal = isatty(STDIN_FILENO) == 1;
  if (is_terminal) fmt::print("{}. Ctrl-C stops an answer, /reset forgets, /quit leaves.\n", session.model());
  std::fflush(stdout);
  LineEditor editor(is_terminal ? state_file("chat_history") : std::string());
  while (const std::optional<std::string> line = editor.read_line("> ")) {
    if (*line == "/quit" || *line == "/exit") return;
    if (line->find_first_not_of(" \t\r") == line->npos) continue;
    if (*line == "/reset") {
      session.reset();
    } else if (line->starts_with('/') && line->find(' ') == line->npos) {
      fmt::print("{} is not known; there are /reset and /quit\n", *line);
    } else if (const Status status = answer(session, *line, printer); !status) {
      fmt::print(stderr, "{}\n", status.error().message);
    }
  }
}

struct ChatFlags {
  ChatOptions chat;
  std::string question, run_folder;
  bool hides_reasoning = false;
};

// The address of the cluster that is up on this machine; empty if none is.
Result<std::string> find_own_cluster(const std::string& run_folder) {
  const Result<RunFolder> folder = RunFolder::open(run_folder);
  const std::vector<std::string> names = folder ? folder->names() : std::vector<std::string>();
  std::vector<std::string> urls;
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(const std::string text, read_file(folder->state_path(name)));
    ASSIGN_OR_RETURN(const ClusterState state, parse_cluster_state(text, folder->state_path(name)));
    if (!state.router.empty() || !state.replicas.empty())
      urls.push_back(state.router.empty() ? state.replicas[0].url : state.router[0].url);
  }
  if (urls.size() > 1)
    return make_parameter_error("--url", "more than one cluster is up ({}); say which: --url {}",
                                fmt::join(names, ", "), fmt::join(urls, " or --url "));
  return urls.empty() ? std::string() : urls.front();
}

// A key of this machine's servers goes to no other.
std::string own_key() {
  for (const char* name : {"CACHALOT_API_KEY", "VLLM_API_KEY"})
    if (std::string key = environment_variable(name); !key.empty()) return key;
  return {};
}

Status run_chat(ChatFlags flags) {
  ChatOptions& options = flags.chat;
  if (options.url.empty()) {
    ASSIGN_OR_RETURN(options.url, find_own_cluster(flags.run_folder));
    if (options.url.empty()) options.url = "http://localhost:8000/v1";
    if (options.api_key.empty()) options.api_key = own_key();
  }
  const http::IoThreads threads(1);
  const std::string url = options.url;
  ChatSession session(threads, std::move(options));
  Printer printer(!flags.hides_reasoning);
  if (Status status = session.connect(); !status) {
    status.error().message += fmt::format(
        "\n(asked at {}; `cachalot up` or `cachalot serve FOLDER` starts a server, --url names another)", url);
    return status;
  }
  if (!flags.question.empty()) return answer(session, flags.question, printer);
  converse(session, printer);
  return {};
}

}  // namespace

void add_chat_command(CLI::App& app) {
  auto flags = std::make_shared<ChatFlags>();
  CLI::App* command = app.add_subcommand("chat", "Talk to any OpenAI-compatible server in the terminal");
  command->add_option("words,--prompt", flags->question, "One question; without it, a conversation");
  command->add_option("--url", flags->chat.url,
                      "Address of the API; absent: the cluster that is up, else http://localhost:8000/v1");
  command->add_option("--model", flags->chat.model, "Model to ask for; the server's first if absent");
  command->add_option("--api-key", flags->chat.api_key, "Key of the API")->envname("OPENAI_API_KEY");
  add_real(*command, "--temperature", flags->chat.temperature, {},
           "Sampling temperature; the server's default if absent");
  add_whole(*command, "--max-tokens", flags->chat.max_tokens, {.least = 1}, "Most tokens of an answer");
  command->add_option("--system", flags->chat.system, "System prompt");
  command->add_flag("--hide-reasoning", flags->hides_reasoning, "Show the answer without the thought");
  add_run_folder_flag(*command, flags->run_folder);
  command->callback([flags] { finish_command(run_chat(*flags)); });
}

}  // namespace cachalot
