#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/generation.h"
#include "http/server.h"
#include "openai/generation_params.h"
#include "text/chat_template.h"
#include "text/generation_config.h"
#include "text/tokenizer.h"

namespace cachalot::openai {

struct ApiServerOptions {
  std::vector<std::string> served_model_names;  // at least one; the first is the answer's when a request names none
  std::string model_path;                       // what /v1/models tells as root
  std::vector<std::string> api_keys;            // any of them opens; none: no key is asked for
  std::string version;
  // All of this is known once the model is loaded: where max_model_len is 0, open() tells it.
  std::string system_fingerprint;  // stands in answers: equal where version, model and settings are
  int max_model_len = 0;
  int vocab_size = 0;                  // the model's; ids of prompts are below it; 0: the tokenizer's
  std::vector<TokenId> eos_token_ids;  // further ones (config.json's); the tokenizer's own is always one
  GenerationConfig generation_config;  // defaults of sampling; its end-of-sequence ids end answers
  std::optional<uint64_t> seed;        // of requests that bring none; absent: a random one each
  std::optional<bool> reasoning;       // thoughts apart from answers; absent: if the tokenizer has <think> and </think>
  boost::json::object default_template_kwargs;    // what templates are given unless a request says otherwise
  bool force_include_usage = false;               // streams end with their usage, asked or not
  bool tokens_as_ids = false;                     // "token_id:7" in logprobs, unless a request says otherwise
  RequestLimits limits;                           // vocab_size and max_model_len are filled in
  int64_t max_answer_bytes = int64_t{512} << 20;  // of all answers under way, until they are sent
  std::chrono::milliseconds keep_alive{10'000};   // a stream with nothing to say for so long says that it lives
  bool log_requests = false;                      // a line in the log for each that ends
  int num_workers = 2;  // threads that parse, render and tokenize, so that large prompts hold up no connection
};

struct LoadedModel {
  int max_model_len = 0, vocab_size = 0;
  std::vector<TokenId> eos_token_ids;
  std::string system_fingerprint;
};

class ApiHandlers;

// OpenAI's API over one generation service: /v1/completions, /v1/chat/completions, /v1/models, and vLLM's /tokenize,
// /detokenize, /health, /ping, /load, /version, /metrics; and /live and /state (serve/server_state.h), which answer
// from the server's start. Until open() all others are refused with 503.
class ApiServer {
 public:
  // Borrows everything but the options; `chat_template` may be null. Taken down in this order: the HTTP server, the I/O
  // threads (their coroutines may still wait for workers, submit and abort), this, the service.
  ApiServer(GenerationService& service, const Tokenizer& tokenizer, const ChatTemplate* chat_template,
            ApiServerOptions options);
  ~ApiServer();

  // The texts of /metrics and of /state; without them there are no such routes.
  void set_metrics(std::function<std::string()> render);
  void set_state(std::function<std::string()> render);
  // The model is loaded, and the service takes requests.
  void open(LoadedModel model);
  // Before the server starts.
  void register_routes(http::Server& server);

 private:
  std::unique_ptr<ApiHandlers> handlers_;
};

}  // namespace cachalot::openai
