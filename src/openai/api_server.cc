#include "openai/api_server.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "config/json.h"
#include "openai/api_error.h"
#include "openai/api_pages.h"
#include "page/feed.h"
#include "page/page_files.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

http::Response json_response(const json::value& value) {
  return http::Response::json(200, json_text(value));
}

constexpr std::string_view kOpenToAll[] = {"/health",  "/ping",  "/load",         "/version", "/live",
                                           "/metrics", "/state", "/openapi.json", "/docs",    "/docs/style.css"};

// A mask takes a millisecond or less, a step of a large model a hundred: few keep up with many sequences.
int num_mask_workers() {
  return static_cast<int>(std::clamp(std::thread::hardware_concurrency() / 8, 1u, 4u));
}

}  // namespace

ApiServer::ApiServer(GenerationService& service, const Tokenizer& tokenizer, const ChatTemplate* chat_template,
                     ApiServerOptions options)
    : service_(service),
      tokenizer_(tokenizer),
      options_(std::move(options)),
      reasoning_(options_.reasoning.value_or(tokenizer.token_id("<think>") && tokenizer.token_id("</think>"))),
      tool_calls_(options_.tool_call_parser.empty() ? chat_template ? chat_template->tool_calls() : nullptr
                                                    : find_tool_call_syntax(options_.tool_call_parser)),
      created_(unix_seconds()),
      prompts_(tokenizer, chat_template, options_.max_model_len, options_.default_template_kwargs,
               options_.special_tokens_in_messages),
      budget_(std::make_shared<AnswerBudget>(options_.max_answer_bytes)),
      keys_(options_.keys ? options_.keys : ApiKeys::of(options_.api_keys)),
      responses_(std::make_unique<ResponseStore>(options_.max_stored_response_bytes)),
      workers_(options_.num_workers),
      worker_for_large_(1),
      mask_workers_(std::make_shared<MaskWorkers>(num_mask_workers())) {
  CHECK(!options_.served_model_names.empty());
  if (options_.max_model_len > 0)
    open({options_.max_model_len, options_.vocab_size, options_.eos_token_ids, options_.system_fingerprint,
          options_.bits_fingerprint});
}

void ApiServer::open(LoadedModel model) {
  CHECK(!is_open_ && model.max_model_len > 1, "max_model_len is {}", model.max_model_len);
  options_.max_model_len = options_.limits.max_model_len = model.max_model_len;
  const int wanted = options_.limits.max_logprobs;
  options_.vocab_size = options_.limits.vocab_size = model.vocab_size > 0 ? model.vocab_size : tokenizer_.vocab_size();
  options_.limits.max_logprobs = wanted < 0 ? options_.vocab_size : std::min(wanted, options_.vocab_size);
  options_.system_fingerprint = std::move(model.system_fingerprint);
  options_.bits_fingerprint = std::move(model.bits_fingerprint);
  prompts_.set_max_model_len(model.max_model_len);
  eos_token_ids_ = std::move(model.eos_token_ids);
  std::ranges::copy(options_.generation_config.eos_token_ids, std::back_inserter(eos_token_ids_));
  if (const auto id = tokenizer_.token_id(tokenizer_.eos_token())) eos_token_ids_.push_back(*id);
  std::ranges::copy_if(tokenizer_.turn_end_ids(), std::back_inserter(eos_token_ids_),
                       [&](TokenId id) { return id < options_.vocab_size; });
  std::ranges::sort(eos_token_ids_);
  eos_token_ids_.erase(std::ranges::unique(eos_token_ids_).begin(), eos_token_ids_.end());
  is_open_.store(true, std::memory_order_release);
}

ApiKeys::Entry ApiServer::check_head(const http::Request& head) const {
  static constexpr std::string_view kAlways[] = {"/health", "/ping",           "/version",
                                                 "/live",   "/state",          "/openapi.json",
                                                 "/docs",   "/docs/style.css", page::kEventsPath};
  if (page::is_page(head.path)) return nullptr;
  ApiKeys::Entry entry = keys_->admit(head, kOpenToAll);
  if (!entry || is_open_.load(std::memory_order_acquire) || std::ranges::find(kAlways, head.path) != std::end(kAlways))
    return entry;
  http::Response response = ApiError(503, "the model is still being loaded; /state says how far it is", "server_error")
                                .to_response({}, error_form(head));
  response.headers.set("Retry-After", "5");
  return std::unexpected(std::move(response));
}

ApiResult<void> ApiServer::check_model(const json::object& body) const {
  const json::value* model = body.if_contains("model");
  if (!model || model->is_null() || !model->is_string()) return {};  // another type is found when the field is read
  const std::string_view name = model->get_string();
  if (name.empty() || std::ranges::find(options_.served_model_names, name) != options_.served_model_names.end())
    return {};
  return std::unexpected(ApiError(
      404,
      fmt::format("the model {} does not exist; served here: {}", quoted(name), options_.served_model_names.front()),
      "invalid_request_error", "model", "model_not_found"));
}

// A request whose client is gone before a worker looks at it is not looked at.
http::awaitable<void> ApiServer::run(http::ServerCall& call, const char* prefix, Plan plan) const {
  const ErrorForm form = error_form(call.request.path);
  Identity identity = identify(call.request, prefix);
  call.id = identity.name;
  std::optional<telemetry::Span> span;
  if (tracer_) span = telemetry::begin_request("llm_request", call.request.headers);
  if (span)
    span->attributes = {{"gen_ai.request.id", identity.name},
                        {"gen_ai.response.model", options_.served_model_names.front()},
                        {"url.path", call.request.path}};
  // Of its head, which goes with the request.
  const auto guest = std::static_pointer_cast<ApiKeys::Guest>(call.visit);
  std::vector<std::string> bounds;  // of its priority
  if (guest) bounds.push_back(guest->priorities());
  if (const auto told = call.request.headers.find(kPrioritiesField)) bounds.emplace_back(*told);
  const uint64_t client = client_of(call.request, !guest || guest->speaks_for_others());
  const bool tells_usage = call.request.headers.contains(kUsageField);
  boost::asio::io_context& worker = workers_for(call.request).context();
  std::unique_ptr<GenerationCall> generation;
  const ApiResult<void> planned = co_await http::run_on(worker, [&]() -> ApiResult<void> {
    http::Request request = std::move(call.request);  // gone with this
    if (call.client_is_gone()) return std::unexpected(ApiError(499, "the client is gone", "invalid_request_error"));
    ASSIGN_OR_RETURN(std::optional<AnswerLog> log, take_log(request, identity));
    ASSIGN_OR_RETURN(GenerationPlan made, (this->*plan)(request, identity));
    for (const std::string& bound : bounds)
      if (auto refusal = check_priority(bound, made.priority)) return std::unexpected(std::move(*refusal));
    if (log) made.sampling.seed = log->start.seed;
    if (identity.is_logged) keep_log(identity, made);
    made.guest = guest;
    made.client = client;
    if (client != 0) made.place = places_.enter(client);
    made.tells_usage = tells_usage;
    made.headers = identity.headers;
    made.keep_alive = options_.keep_alive;
    made.is_logged = options_.log_requests;
    made.tracer = tracer_;
    made.span = std::exchange(span, std::nullopt);
    generation = std::make_unique<GenerationCall>(service_, tokenizer_, call, std::move(made));
    if (log) RETURN_IF_ERROR(generation->resume(std::move(*log)));
    return {};
  });
  if (!planned) {
    http::Response refusal = planned.error().to_response(identity.headers, form);
    if (span) {
      span->fail(planned.error().message);
      tracer_->add(std::move(*span));
    }
    co_return co_await call.respond(std::move(refusal));
  }
  co_await generation->run();
}

const http::IoThreads& ApiServer::workers_for(const http::Request& request) const {
  constexpr size_t kLargeBytes = 32 << 10;
  return request.body.size() > kLargeBytes ? worker_for_large_ : workers_;
}

http::awaitable<void> ApiServer::answer(http::ServerCall& call, Answer answer) const {
  const ErrorForm form = error_form(call.request.path);
  boost::asio::io_context& worker = workers_for(call.request).context();
  http::Response response = co_await http::run_on(worker, [&] {
    const http::Request request = std::move(call.request);
    if (call.client_is_gone()) return http::Response();
    const auto answered = [&]() -> ApiResult<json::object> {
      ASSIGN_OR_RETURN(const json::object body, parse_body(request.body));
      RETURN_IF_ERROR(check_model(body));
      return (this->*answer)(body, owner_of(request));
    }();
    http::Response response = answered ? json_response(*answered) : answered.error().to_response({}, form);
    if (request.headers.contains(kUsageField)) response.headers.set(std::string(kUsageField), "0 0");
    return response;
  });
  co_await call.respond(std::move(response));
}

ApiResult<json::object> ApiServer::token_ids(const json::object& body, const std::string& /*owner*/) const {
  JsonKeys keys(body, kRequest);
  std::string prompt;
  Conversation conversation;
  bool add_special_tokens = true, return_token_strs = false;
  if (keys.find("messages"))
    read_conversation(keys, options_.limits, conversation);
  else if (!keys.find("prompt"))
    keys.fault("prompt", "is missing", "a string, or messages must be given");
  keys.optional("prompt", prompt);
  keys.optional("add_special_tokens", add_special_tokens);
  keys.optional("return_token_strs", return_token_strs);
  RETURN_IF_ERROR(keys.status());
  ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, conversation.messages.empty()
                                                          ? prompts_.tokenize(prompt, add_special_tokens)
                                                          : prompts_.tokenize(conversation));
  json::value texts;
  if (return_token_strs) {
    json::array& list = texts.emplace_array();
    for (const TokenId token : tokens) list.emplace_back(tokenizer_.decode(std::span(&token, 1), false));
  }
  return json::object{{"count", tokens.size()},
                      {"max_model_len", options_.max_model_len},
                      {"tokens", json::array(tokens.begin(), tokens.end())},
                      {"token_strs", std::move(texts)}};
}

ApiResult<json::object> ApiServer::text_of_ids(const json::object& body, const std::string& /*owner*/) const {
  JsonKeys keys(body, kRequest);
  std::vector<TokenId> tokens;
  const json::value* list = keys.find("tokens");
  if (list && list->is_array())
    read_token_ids(list->get_array(), "tokens", keys, options_.vocab_size, tokens);
  else
    keys.fault("tokens", "is missing", "a list of token ids");
  RETURN_IF_ERROR(keys.status());
  return json::object{{"prompt", tokenizer_.decode(tokens, false)}};
}

http::Response ApiServer::models(const http::Request& request) const {
  json::array data;
  const std::vector<std::string>& names = options_.served_model_names;
  const ErrorForm form = error_form(request);
  for (const std::string& name : names) data.push_back(describe_model(name, form));
  if (form == ErrorForm::kAnthropic)
    return json_response(
        {{"data", std::move(data)}, {"has_more", false}, {"first_id", names.front()}, {"last_id", names.back()}});
  return json_response({{"object", "list"}, {"data", std::move(data)}});
}

http::Response ApiServer::model(const http::Request& request) const {
  const ErrorForm form = error_form(request);
  std::string_view name = std::string_view(request.path).substr(std::string_view("/v1/models/").size());
  // A path has each slash once; a name that begins with one has lost it.
  const std::string rooted = "/" + std::string(name);
  if (std::ranges::find(options_.served_model_names, rooted) != options_.served_model_names.end()) name = rooted;
  if (const auto known = check_model({{"model", name}}); !known) return known.error().to_response({}, form);
  return json_response(describe_model(name, form));
}

json::object ApiServer::describe_model(std::string_view name, ErrorForm form) const {
  if (form == ErrorForm::kAnthropic)  // whose clients want to know less
    return {{"type", "model"},
            {"id", name},
            {"display_name", name},
            {"created_at", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(created_))}};
  return {{"id", name},
          {"object", "model"},
          {"created", created_},
          {"owned_by", "cachalot"},
          {"root", options_.model_path},
          {"parent", nullptr},
          {"max_model_len", options_.max_model_len}};
}

// Asked often, by a router: a few numbers.
http::Response ApiServer::load() const {
  const ReplicaStats stats = service_.stats();
  const bool healthy = service_.healthy();
  http::Response response = json_response(json::object{{"healthy", healthy},
                                                       {"healing", stats.is_healing},
                                                       {"running", stats.num_running},
                                                       {"waiting", stats.num_waiting},
                                                       {"pending_tokens", stats.num_pending_tokens},
                                                       {"kv_usage", stats.kv_usage},
                                                       {"instance", responses_->mark()},
                                                       {"fingerprint", fingerprint()}});
  response.status = healthy ? 200 : 503;
  return response;
}

void ApiServer::register_routes(http::Server& server) {
  server.route("POST", "/v1/completions",
               [this](http::ServerCall& call) { return run(call, "cmpl-", &ApiServer::plan_completion); });
  server.route("POST", "/v1/chat/completions",
               [this](http::ServerCall& call) { return run(call, "chatcmpl-", &ApiServer::plan_chat); });
  server.route("POST", "/v1/chat/completions/batch",
               [this](http::ServerCall& call) { return run(call, "chatcmpl-", &ApiServer::plan_batch); });
  server.route("POST", "/v1/responses",
               [this](http::ServerCall& call) { return run(call, "resp_", &ApiServer::plan_response); });
  server.route("POST", "/v1/messages",
               [this](http::ServerCall& call) { return run(call, "msg_", &ApiServer::plan_message); });
  server.route("POST", "/v1/responses/input_tokens",
               [this](http::ServerCall& call) { return answer(call, &ApiServer::count_of_response); });
  server.route("POST", "/v1/messages/count_tokens",
               [this](http::ServerCall& call) { return answer(call, &ApiServer::count_of_message); });
  for (const char* method : {"GET", "DELETE", "POST"})
    server.route(method, "/v1/responses/*", [this](http::ServerCall& call) { return answer_stored(call); });
  server.route("POST", "/tokenize", [this](http::ServerCall& call) { return answer(call, &ApiServer::token_ids); });
  server.route("POST", "/detokenize", [this](http::ServerCall& call) { return answer(call, &ApiServer::text_of_ids); });
  register_short_routes(server);
  server.set_head_check([this](const http::Request& head) { return check_head(head); });
  server.set_observer([this](const http::ServedRequest& served) {
    const bool is_watching = page::is_page(served.path) || served.path == page::kEventsPath ||
                             std::ranges::find(kOpenToAll, served.path) != std::end(kOpenToAll);
    if (is_watching) return;
    if (observer_) observer_(served);
    if (options_.log_requests) log::info_of(served.id, "{}", http::access_line(served));
  });
  server.set_error_format([](int status, std::string_view message, std::string_view path) {
    const std::string_view reason = status == 404 ? reason_for_absence(path) : std::string_view();
    ApiError error(status, std::string(reason.empty() ? message : reason),
                   status >= 500 ? "server_error" : "invalid_request_error");
    error.is_final = status == 500;  // a handler that threw on this request
    return error.to_response({}, error_form(path));
  });
}

void ApiServer::register_short_routes(http::Server& server) {
  const auto at_once = [&](const char* method, const char* path, http::Server::Answerer answer) {
    server.route(method, path, std::move(answer));
  };
  at_once("GET", "/openapi.json",
          [text = api_document(options_.version)](const auto&) { return http::Response::json(200, text); });
  at_once("GET", "/docs", [text = api_page(options_.version)](const auto&) {
    return http::Response{200,
                          {{"Content-Type", "text/html; charset=utf-8"},
                           {"Content-Security-Policy", "default-src 'none'; style-src 'self'"}},
                          text};
  });
  at_once("GET", "/docs/style.css", [](const auto&) {
    return http::Response{200, {{"Content-Type", "text/css; charset=utf-8"}}, std::string(api_page_style())};
  });
  at_once("GET", "/v1/models", [this](const auto& request) { return models(request); });
  at_once("GET", "/v1/models/*", [this](const auto& request) { return model(request); });
  for (const auto& [method, path] :
       {std::pair("GET", "/health"), std::pair("GET", "/ping"), std::pair("POST", "/ping")})
    at_once(method, path, [this](const auto&) { return http::Response{service_.healthy() ? 200 : 503, {}, {}}; });
  at_once("GET", "/live", [](const auto&) { return http::Response{200, {}, {}}; });
  at_once("GET", "/load", [this](const auto&) { return load(); });
  at_once("GET", "/version",
          [this](const auto&) { return json_response(json::object{{"version", options_.version}}); });
  if (render_state_)
    at_once("GET", "/state", [this](const auto&) { return http::Response::json(200, render_state_()); });
  if (render_expert_load_)
    at_once("GET", "/expert_load", [this](const auto&) { return http::Response::json(200, render_expert_load_()); });
  if (render_metrics_)
    at_once("GET", "/metrics", [this](const auto&) {
      return http::Response{200,
                            {{"Content-Type", "text/plain; version=0.0.4; charset=utf-8"}},
                            render_metrics_() + keys_->render_metrics()};
    });
}

}  // namespace cachalot::openai
