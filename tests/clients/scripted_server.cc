// scripted_server MODEL_FOLDER CHAT_TEMPLATE SCRIPT PORT API_KEY
//
// The API as it is served, in front of a "model" that answers by a script: for programs that want what the built-in
// model cannot give, tools and prompts of 100,000 tokens. The script is a list of rules, the first that fits answers:
//
//   {"new": "weather",          stands in what came since the model's last answer: the question, results of tools
//    "prompt": "### look_up",   stands anywhere in the prompt
//    "form": true,              the answer is held to a form (false: it is not)
//    "thought": "I look.", "text": "Sunny.", "calls": [{"name": "look_up", "arguments": "{\"city\": \"Paris\"}"}]}
//
// A script that answers against the request's form is wrong, as is a request that no rule fits: an error each.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <boost/json.hpp>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/log.h"
#include "base/stop_signals.h"
#include "base/text.h"
#include "core/generation.h"
#include "http/server.h"
#include "openai/api_server.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "text/tool_call_parser.h"

namespace cachalot {
namespace {

namespace json = boost::json;

constexpr int kMaxModelLen = 200'000;
constexpr const char* kToolCallParser = "deepseek_v31";
constexpr size_t kShownBytes = 300;

class Script {
 public:
  explicit Script(json::array rules) : rules_(std::move(rules)) {}

  // The rule's answer, as the model writes it.
  Result<std::string> answer(std::string_view prompt, std::string_view eos, bool has_form) const {
    const size_t last_answer = prompt.rfind(eos);
    const std::string_view news = last_answer == std::string_view::npos ? prompt : prompt.substr(last_answer);
    for (const json::value& value : rules_) {
      const json::object& rule = value.as_object();
      const auto fits = [&](const char* name, std::string_view text) {
        const json::value* wanted = rule.if_contains(name);
        return !wanted || text.contains(std::string_view(wanted->as_string()));
      };
      const json::value* form = rule.if_contains("form");
      if (fits("new", news) && fits("prompt", prompt) && (!form || form->as_bool() == has_form))
        return write(rule, prompt.ends_with("<think>\n"));
    }
    return make_error(ErrorCode::kNotFound, "no rule of the script fits: ...{}",
                      news.substr(news.size() - std::min(news.size(), kShownBytes)));
  }

 private:
  static std::string write(const json::object& rule, bool is_thinking) {
    const auto text_of = [&](const char* name) {
      const json::value* text = rule.if_contains(name);
      return text ? std::string(text->as_string()) : std::string();
    };
    std::string answer = is_thinking ? text_of("thought") + "\n</think>\n\n" : "";
    answer += text_of("text");
    const json::value* calls = rule.if_contains("calls");
    if (!calls) return answer;
    const ToolCallSyntax& syntax = *find_tool_call_syntax(kToolCallParser);
    answer += syntax.section;
    for (const json::value& call : calls->as_array())
      answer += fmt::format("{}{}{}{}{}", syntax.call, std::string_view(call.at("name").as_string()), syntax.header_end,
                            std::string_view(call.at("arguments").as_string()), syntax.call_end);
    return answer.append(syntax.section_end);
  }

  json::array rules_;
};

// Gives each request its rule's answer, a token a round, from a thread of its own as an engine does.
class ScriptedService : public GenerationService {
 public:
  ScriptedService(const Tokenizer& tokenizer, Script script)
      : tokenizer_(tokenizer),
        script_(std::move(script)),
        thread_([this](const std::stop_token& stopped) { loop(stopped); }) {}

  RequestId next_id() override { return next_id_.fetch_add(1); }

  Status submit(Request request, Listener listener) override {
    Running running{.request = std::move(request), .listener = std::move(listener)};
    const std::string prompt = tokenizer_.decode(running.request.tokens, false);
    Result<std::string> answer = script_.answer(prompt, tokenizer_.eos_token(), running.request.constraint != nullptr);
    if (answer) {
      log::info("{} tokens: {}", running.request.tokens.size(), *answer);
      ASSIGN_OR_RETURN(running.answer, tokenizer_.encode(*answer, false));
      running.answer.push_back(*tokenizer_.token_id(tokenizer_.eos_token()));
    } else {
      running.error = answer.error().message;
    }
    std::lock_guard lock(mutex_);
    const RequestId id = running.request.id;
    running_.emplace(id, std::move(running));
    changed_.notify_all();
    return {};
  }

  void abort(RequestId id) override {
    std::lock_guard lock(mutex_);
    aborted_.push_back(id);
    changed_.notify_all();
  }

  ReplicaStats stats() const override {
    std::lock_guard lock(mutex_);
    return {.num_running = static_cast<int>(running_.size())};
  }
  bool healthy() const override { return true; }

 private:
  struct Running {
    Request request;
    Listener listener;
    std::vector<TokenId> answer;
    size_t num_generated = 0;
    std::string error;
  };

  // Made-up probabilities: -0.5 for the token itself, then -1, -2, ...
  static SampledToken sampled(TokenId token, int num_logprobs) {
    SampledToken result{.token = token, .logprob = -0.5f, .rank = 1};
    for (int idx = 0; idx < num_logprobs; idx++)
      result.top.push_back({idx == 0 ? token : idx, -0.5f - static_cast<float>(idx), idx + 1});
    return result;
  }

  // What the script says, over and over where the request has no end of its own.
  Result<TokenId> next_token(Running& running) const {
    const TokenId token = running.answer[running.num_generated % running.answer.size()];
    TokenConstraint* constraint = running.request.constraint.get();
    if (!constraint) return token;
    std::vector<uint32_t> mask((static_cast<size_t>(tokenizer_.vocab_size()) + 31) / 32, ~0u);
    RETURN_IF_ERROR(constraint->fill_mask(mask));
    if ((mask[static_cast<size_t>(token) / 32] >> (token % 32) & 1) == 0) {
      const std::span answer(running.answer);
      return make_error(ErrorCode::kInvalidArgument, "the script answers against the form: {} behind {}",
                        quoted(tokenizer_.token_bytes(token, false)),
                        quoted(tokenizer_.decode(answer.first(running.num_generated), false)));
    }
    RETURN_IF_ERROR(constraint->accept(token));
    return token;
  }

  RequestOutput step(Running& running) const {
    const Request& request = running.request;
    RequestOutput output{.id = request.id};
    const auto fail = [&](std::string error) {
      log::error("{}", error);
      output.finish = FinishReason::kError;
      output.error = std::move(error);
      output.is_own_fault = true;
      return output;
    };
    if (!running.error.empty()) return fail(running.error);
    if (running.num_generated == 0 && request.sampling.num_prompt_logprobs >= 0)
      for (size_t idx = 1; idx < request.tokens.size(); idx++)
        output.prompt_logprobs.push_back(sampled(request.tokens[idx], request.sampling.num_prompt_logprobs));
    const Result<TokenId> token = next_token(running);
    if (!token) return fail(token.error().message);
    output.tokens.push_back(sampled(*token, request.sampling.num_logprobs));
    output.finish = finish_reason(request.sampling, static_cast<int>(++running.num_generated), *token);
    return output;
  }

  void loop(const std::stop_token& stopped) {
    std::unique_lock lock(mutex_);
    while (changed_.wait(lock, stopped, [&] { return !aborted_.empty() || !running_.empty(); }),
           !stopped.stop_requested()) {
      std::vector<std::pair<Listener, RequestOutput>> outputs;
      for (const RequestId id : std::exchange(aborted_, {}))
        if (auto found = running_.extract(id); !found.empty())
          outputs.emplace_back(std::move(found.mapped().listener),
                               RequestOutput{.id = id, .finish = FinishReason::kAborted});
      for (auto it = running_.begin(); it != running_.end();) {
        RequestOutput output = step(it->second);
        const bool is_done = output.finish != FinishReason::kNone;
        outputs.emplace_back(it->second.listener, std::move(output));
        it = is_done ? running_.erase(it) : std::next(it);
      }
      lock.unlock();
      for (auto& [listener, output] : outputs) listener(std::move(output));
      outputs.clear();
      lock.lock();
    }
  }

  const Tokenizer& tokenizer_;
  const Script script_;
  std::atomic<RequestId> next_id_{1};
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<RequestId, Running> running_;
  std::vector<RequestId> aborted_;
  std::jthread thread_;  // behind what it uses
};

Status run(std::span<const std::string> arguments) {
  if (arguments.size() != 5)
    return make_error(ErrorCode::kInvalidArgument,
                      "usage: scripted_server MODEL_FOLDER CHAT_TEMPLATE SCRIPT PORT API_KEY");
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, Tokenizer::load(arguments[0]));
  ASSIGN_OR_RETURN(const std::unique_ptr<ChatTemplate> chat_template,
                   ChatTemplate::from_file_or_text(arguments[1], arguments[0]));
  ASSIGN_OR_RETURN(const std::string script, read_file(arguments[2]));
  boost::system::error_code error;
  const json::value rules = json::parse(script, error);
  if (error || !rules.is_array()) return make_error(ErrorCode::kInvalidArgument, "{}: no list", arguments[2]);
  const std::optional<uint16_t> port = parse_number<uint16_t>(arguments[3]);
  if (!port) return make_error(ErrorCode::kInvalidArgument, "{}: no port", arguments[3]);

  ScriptedService service(*tokenizer, Script(rules.as_array()));
  openai::ApiServer api(service, *tokenizer, chat_template.get(),
                        {.served_model_names = {"scripted"},
                         .api_keys = {arguments[4]},
                         .version = "test",
                         .system_fingerprint = "scripted",
                         .max_model_len = kMaxModelLen,
                         .tool_call_parser = kToolCallParser,
                         .log_requests = true});
  http::IoThreads threads(2);
  http::Server server(threads, {.host = "127.0.0.1", .port = *port});
  api.register_routes(server);
  RETURN_IF_ERROR(server.start());
  StopSignals signals(std::chrono::seconds(1));
  log::info("ready: http://127.0.0.1:{}/v1", server.port());
  signals.wait();
  return {};
}

}  // namespace
}  // namespace cachalot

int main(int argc, char** argv) {
  cachalot::take_stop_signals();
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (const cachalot::Status status = cachalot::run(arguments); !status) {
    cachalot::log::error("{}", status.error().message);
    return 1;
  }
  return 0;
}
