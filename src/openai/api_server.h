#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/generation.h"
#include "http/server.h"
#include "openai/answer/answer_format.h"
#include "openai/generation_call.h"
#include "openai/keys/api_keys.h"
#include "openai/keys/client_places.h"
#include "openai/request/chat_request.h"
#include "openai/request/generation_params.h"
#include "openai/request/prompt_maker.h"
#include "openai/responses/response_store.h"
#include "text/chat_template.h"
#include "text/folder_config.h"
#include "text/grammar.h"
#include "text/tokenizer.h"

namespace cachalot::openai {

struct ApiServerOptions {
  std::vector<std::string> served_model_names;  // at least one; the first is the answer's when a request names none
  std::string model_path;                       // what /v1/models tells as root
  std::vector<std::string> api_keys;            // any of them opens; none: no key is asked for
  std::shared_ptr<const ApiKeys> keys;          // in their place, with limits
  std::string version;
  // All of this is known once the model is loaded: where max_model_len is 0, open() tells it.
  std::string system_fingerprint;  // stands in answers: equal where version, model and settings are
  std::string bits_fingerprint;    // equal where answers have the same bits, without white space
  int max_model_len = 0;
  int vocab_size = 0;                  // the model's; ids of prompts are below it; 0: the tokenizer's
  std::vector<TokenId> eos_token_ids;  // further ones (config.json's); the tokenizer's own is always one
  GenerationConfig generation_config;  // defaults of sampling; its end-of-sequence ids end answers
  std::optional<uint64_t> seed;        // of requests that bring none; absent: a random one each
  std::optional<bool> reasoning;       // thoughts apart from answers; absent: if the tokenizer has <think> and </think>
  std::string tool_call_parser;        // of tool_call_syntaxes(); empty: by the chat template
  bool special_tokens_in_messages = false;                 // what messages hold of them is no text
  bool exclude_unusable_tools = false;                     // from prompts, where tool_choice is none
  boost::json::object default_template_kwargs;             // what templates are given unless a request says otherwise
  bool force_include_usage = false;                        // streams end with their usage, asked or not
  bool tokens_as_ids = false;                              // "token_id:7" in logprobs, unless a request says otherwise
  RequestLimits limits;                                    // vocab_size and max_model_len are filled in
  int64_t max_answer_bytes = int64_t{512} << 20;           // of all answers under way, until they are sent
  int64_t max_stored_response_bytes = int64_t{256} << 20;  // of answers that /v1/responses/{id} gives again; 0: none
  std::chrono::milliseconds keep_alive{15'000};  // a stream with nothing to say for so long says that it lives
  bool log_requests = false;                     // a line in the log for each that ends
  int num_workers = 2;  // threads that parse, render and tokenize, so that large prompts hold up no connection
};

struct LoadedModel {
  int max_model_len = 0, vocab_size = 0;
  std::vector<TokenId> eos_token_ids;
  std::string system_fingerprint;
  std::string bits_fingerprint;  // of all servers that give the same bits; empty: nobody else goes on with an answer
};

// OpenAI's API over one generation service: /v1/completions, /v1/chat/completions, /v1/responses, /v1/models,
// Anthropic's /v1/messages, and vLLM's /tokenize, /detokenize, /health, /ping, /load, /version, /metrics; and /live and
// /state (serve/server_state.h), which answer from the server's start. Until open() all others are refused with 503.
// Thread-safe.
class ApiServer {
 public:
  // Borrows everything but the options; `chat_template` may be null. Taken down in this order: the HTTP server, the I/O
  // threads (their coroutines may still wait for workers, submit and abort), this, the service.
  ApiServer(GenerationService& service, const Tokenizer& tokenizer, const ChatTemplate* chat_template,
            ApiServerOptions options);

  // The texts of /metrics, /state and /expert_load; without them there are no such routes.
  void set_metrics(std::function<std::string()> render) { render_metrics_ = std::move(render); }
  // Takes a span of each generation; without one there are none.
  void set_tracer(telemetry::Tracer* tracer) { tracer_ = tracer; }
  // Hears of the requests to the API that are over; not of probes, nor of the page's files.
  void set_observer(http::Server::Observer observer) { observer_ = std::move(observer); }
  void set_state(std::function<std::string()> render) { render_state_ = std::move(render); }
  void set_expert_load(std::function<std::string()> render) { render_expert_load_ = std::move(render); }
  // The model is loaded, and the service takes requests.
  void open(LoadedModel model);
  // Before the server starts.
  void register_routes(http::Server& server);

 private:
  // The identity of an answer, from the client's X-Request-Id or made up.
  struct Identity {
    std::string prefix, name;
    http::Headers headers;
    bool is_made_up = false;  // a request_id in the body goes before it
    int64_t created = 0;
    std::string response_id;  // of one that may be stored
    bool is_logged = false;   // somebody keeps the answer's log
  };
  Identity identify(const http::Request& request, const char* prefix) const;
  // The request may pass: it has a key where one is wanted, and the model is loaded.
  ApiKeys::Entry check_head(const http::Request& head) const;
  ApiResult<void> check_model(const boost::json::object& body) const;

  // What a request brings of another server's log (openai/answer/answer_log.h), from which the identity is then; the
  // body stays.
  ApiResult<std::optional<AnswerLog>> take_log(http::Request& request, Identity& identity) const;
  // The plan's answer is told with its log, if it can be.
  void keep_log(const Identity& identity, GenerationPlan& plan) const;
  // Of servers that give the same bits.
  std::string fingerprint() const;
  // The long work of these is a worker's.
  using Plan = ApiResult<GenerationPlan> (ApiServer::*)(const http::Request& request, const Identity& identity) const;
  http::awaitable<void> run(http::ServerCall& call, const char* prefix, Plan plan) const;
  ApiResult<GenerationPlan> plan_completion(const http::Request& request, const Identity& identity) const;
  ApiResult<GenerationPlan> plan_chat(const http::Request& request, const Identity& identity) const;
  ApiResult<GenerationPlan> plan_batch(const http::Request& request, const Identity& identity) const;
  ApiResult<GenerationPlan> plan_response(const http::Request& request, const Identity& identity) const;
  ApiResult<GenerationPlan> plan_message(const http::Request& request, const Identity& identity) const;
  // What all endpoints' plans have in common; moves out of the params.
  GenerationPlan common_plan(GenerationParams& params) const;
  // How chats' answers are told, and the plans of all conversations, which stand in the request's field `messages`.
  AnswerOptions chat_options(const ChatRequest& request) const;
  ApiResult<GenerationPlan> plan_conversation(ChatRequest& request, const PromptMaker::Fit& fit,
                                              const char* messages = "messages") const;
  // Leaves out the oldest turns of a conversation that does not fit.
  void drop_oldest_turns(std::optional<int> max_tokens, Conversation& conversation) const;
  ApiResult<std::vector<TokenId>> tokens_of(const ChatRequest& request, const char* messages = "messages") const;
  // Compiled by a worker, which may take long, and not on the engine's thread.
  ApiResult<void> set_grammar(const GrammarText& grammar, bool may_think, GenerationPlan& plan) const;
  bool may_begin_with_space(const GrammarMatcher& form) const;
  std::vector<std::vector<TokenId>> tokens_of_words(const std::vector<std::string>& words) const;
  std::optional<TokenId> writable_id(std::string_view token) const;
  void set_thought(GenerationPlan& plan) const;
  ApiResult<const Grammars*> grammars() const;
  ApiResult<void> use_tools(ToolUse use, std::optional<GrammarText> form, GenerationPlan& plan) const;
  AnswerHead answer_head(const GenerationParams& params, const Identity& identity) const;
  // `owner`: whose request it is (owner_of).
  using Answer = ApiResult<boost::json::object> (ApiServer::*)(const boost::json::object& body,
                                                               const std::string& owner) const;
  http::awaitable<void> answer(http::ServerCall& call, Answer answer) const;
  ApiResult<boost::json::object> token_ids(const boost::json::object& body, const std::string& owner) const;
  ApiResult<boost::json::object> text_of_ids(const boost::json::object& body, const std::string& owner) const;
  ApiResult<boost::json::object> count_of_response(const boost::json::object& body, const std::string& owner) const;
  ApiResult<boost::json::object> count_of_message(const boost::json::object& body, const std::string& owner) const;
  http::awaitable<void> answer_stored(http::ServerCall& call) const;

  // Answered at once.
  void register_short_routes(http::Server& server);
  http::Response models(const http::Request& request) const;
  http::Response model(const http::Request& request) const;
  boost::json::object describe_model(std::string_view name, ErrorForm form) const;
  http::Response load() const;

  GenerationService& service_;
  const Tokenizer& tokenizer_;
  ApiServerOptions options_;
  http::Server::Observer observer_;
  telemetry::Tracer* tracer_ = nullptr;
  std::function<std::string()> render_metrics_, render_state_, render_expert_load_;
  std::atomic<bool> is_open_{false};  // what open() sets is read behind it
  std::vector<TokenId> eos_token_ids_;
  bool reasoning_;
  const ToolCallSyntax* tool_calls_;  // null: not known
  int64_t created_;
  PromptMaker prompts_;
  std::shared_ptr<AnswerBudget> budget_;
  const std::shared_ptr<const ApiKeys> keys_;
  const ClientPlaces places_;
  const std::unique_ptr<ResponseStore> responses_;
  // Of a large body the parsing, rendering and tokenizing takes seconds: one at a time, so that any number of them
  // leaves the others' workers free.
  const http::IoThreads& workers_for(const http::Request& request) const;
  http::IoThreads workers_, worker_for_large_;

  mutable std::once_flag grammars_made_;  // with the first request that needs them
  mutable Result<std::unique_ptr<Grammars>> grammars_;
  mutable std::vector<TokenId> spaces_;              // tokens that begin with white space
  const std::shared_ptr<MaskWorkers> mask_workers_;  // requests outlive this
};

}  // namespace cachalot::openai
