#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "openai/answer_format.h"
#include "openai/api_server.h"
#include "openai/chat_request.h"
#include "openai/generation_call.h"
#include "openai/generation_params.h"
#include "openai/prompt_maker.h"

namespace cachalot::openai {

// What ApiServer's routes do. Thread-safe.
class ApiHandlers {
 public:
  ApiHandlers(GenerationService& service, const Tokenizer& tokenizer, const ChatTemplate* chat_template,
              ApiServerOptions options);

  void open(LoadedModel model);
  // Null if the request may pass: it has a key where one is wanted, and the model is loaded.
  std::optional<http::Response> check_head(const http::Request& head) const;

  // Their long work is a worker's.
  http::awaitable<void> complete(http::ServerCall& call) const;
  http::awaitable<void> chat(http::ServerCall& call) const;
  http::awaitable<void> tokenize(http::ServerCall& call) const;
  http::awaitable<void> detokenize(http::ServerCall& call) const;

  // Answered at once.
  http::Response models() const;
  http::Response model(std::string_view name) const;
  http::Response health() const;
  http::Response load() const;
  http::Response version() const;

  std::function<std::string()> render_metrics, render_state;

 private:
  // The identity of an answer, from the client's X-Request-Id or made up.
  struct Identity {
    std::string prefix, name;
    http::Headers headers;
    bool is_made_up = false;  // a request_id in the body goes before it
  };
  Identity identify(const http::Request& request, const char* prefix) const;

  boost::json::object describe_model(std::string_view name) const;
  ApiResult<void> check_model(const boost::json::object& body) const;
  ApiResult<GenerationPlan> plan_completion(const http::Request& request, const Identity& identity) const;
  ApiResult<GenerationPlan> plan_chat(const http::Request& request, const Identity& identity) const;
  http::Response token_ids(const http::Request& request) const;
  http::Response text_of_ids(const http::Request& request) const;
  using Plan = ApiResult<GenerationPlan> (ApiHandlers::*)(const http::Request& request, const Identity& identity) const;
  http::awaitable<void> run(http::ServerCall& call, const char* prefix, Plan plan) const;
  using Answer = http::Response (ApiHandlers::*)(const http::Request& request) const;
  http::awaitable<void> answer(http::ServerCall& call, Answer answer) const;
  // What both endpoints' plans have in common; moves out of the params.
  GenerationPlan common_plan(GenerationParams& params) const;
  AnswerHead answer_head(const GenerationParams& params, const Identity& identity) const;

  GenerationService& service_;
  const Tokenizer& tokenizer_;
  ApiServerOptions options_;
  std::atomic<bool> is_open_{false};  // what open() sets is read behind it
  std::vector<TokenId> eos_token_ids_;
  bool reasoning_;
  int64_t created_;
  PromptMaker prompts_;
  std::shared_ptr<AnswerBudget> budget_;
  // Of a large body the parsing, rendering and tokenizing takes seconds: one at a time, so that any number of them
  // leaves the others' workers free.
  const http::IoThreads& workers_for(const http::Request& request) const;
  http::IoThreads workers_, worker_for_large_;
};

}  // namespace cachalot::openai
