#include "openai/api_server.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <chrono>
#include <random>
#include <thread>

#include "base/error.h"
#include "base/text.h"
#include "config/json.h"
#include "openai/api_error.h"
#include "openai/api_pages.h"
#include "page/feed.h"
#include "page/page_files.h"
#include "text/tool_call_grammar.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

constexpr int kDefaultCompletionTokens = 16;  // OpenAI's
constexpr size_t kMaxRequestIdBytes = 128;

uint64_t random_word() {
  thread_local std::mt19937_64 generator([] {
    std::random_device device;
    return (static_cast<uint64_t>(device()) << 32) ^ device();
  }());
  return generator();
}

http::Response json_response(const json::value& value) {
  return http::Response::json(200, json_text(value));
}

// Bytes that are no text, or move a reader's cursor, are no name.
bool is_usable_id(std::string_view name) {
  return !name.empty() && name.size() <= kMaxRequestIdBytes && to_valid_utf8(name) == name &&
         std::ranges::none_of(name, [](char byte) { return static_cast<unsigned char>(byte) < 0x20 || byte == 0x7f; });
}

// A mask takes a millisecond or less, a step of a large model a hundred: few keep up with many sequences.
int num_mask_workers() {
  return static_cast<int>(std::clamp(std::thread::hardware_concurrency() / 8, 1u, 4u));
}

PromptMaker::Fit fit_of(const GenerationParams& params, std::optional<int> default_max_tokens) {
  return {.max_tokens = params.max_tokens,
          .default_max_tokens = default_max_tokens,
          .truncate = params.truncate_prompt_tokens,
          .truncates_end = params.truncates_end,
          .prompt_only = false};
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
      responses_(std::make_unique<ResponseStore>(options_.max_stored_response_bytes)),
      workers_(options_.num_workers),
      worker_for_large_(1),
      mask_workers_(std::make_shared<MaskWorkers>(num_mask_workers())) {
  CHECK(!options_.served_model_names.empty());
  if (options_.max_model_len > 0)
    open({options_.max_model_len, options_.vocab_size, options_.eos_token_ids, options_.system_fingerprint});
}

void ApiServer::open(LoadedModel model) {
  CHECK(!is_open_ && model.max_model_len > 1, "max_model_len is {}", model.max_model_len);
  options_.max_model_len = options_.limits.max_model_len = model.max_model_len;
  const int wanted = options_.limits.max_logprobs;
  options_.vocab_size = options_.limits.vocab_size = model.vocab_size > 0 ? model.vocab_size : tokenizer_.vocab_size();
  options_.limits.max_logprobs = wanted < 0 ? options_.vocab_size : std::min(wanted, options_.vocab_size);
  options_.system_fingerprint = std::move(model.system_fingerprint);
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

std::optional<http::Response> ApiServer::check_head(const http::Request& head) const {
  static constexpr std::string_view kOpenToAll[] = {"/health", "/ping",          "/load",  "/version",
                                                    "/live",   "/metrics",       "/state", "/openapi.json",
                                                    "/docs",   "/docs/style.css"};
  static constexpr std::string_view kAlways[] = {"/health", "/ping",           "/version",
                                                 "/live",   "/state",          "/openapi.json",
                                                 "/docs",   "/docs/style.css", page::kEventsPath};
  if (page::is_page(head.path)) return std::nullopt;
  if (auto refusal = check_api_key(head, options_.api_keys, kOpenToAll)) return refusal;
  if (is_open_.load(std::memory_order_acquire) || std::ranges::find(kAlways, head.path) != std::end(kAlways))
    return std::nullopt;
  http::Response response = ApiError(503, "the model is still being loaded; /state says how far it is", "server_error")
                                .to_response({}, error_form(head.path));
  response.headers.set("Retry-After", "5");
  return response;
}

ApiServer::Identity ApiServer::identify(const http::Request& request, const char* prefix) const {
  const std::string_view given = request.headers.find("X-Request-Id").value_or("");
  const bool is_made_up = !is_usable_id(given);
  const std::string name =
      is_made_up ? fmt::format("{:016x}{:016x}", random_word(), random_word()) : std::string(given);
  return {.prefix = prefix, .name = name, .headers = {{"X-Request-Id", name}}, .is_made_up = is_made_up};
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
  if (form == ErrorForm::kAnthropic) identity.headers.set("request-id", identity.name);
  boost::asio::io_context& worker = workers_for(call.request).context();
  ApiResult<GenerationPlan> planned = co_await http::run_on(worker, [&]() -> ApiResult<GenerationPlan> {
    const http::Request request = std::move(call.request);  // gone with this
    if (call.client_is_gone()) return std::unexpected(ApiError(499, "the client is gone", "invalid_request_error"));
    return (this->*plan)(request, identity);
  });
  if (!planned) {
    http::Response refusal = planned.error().to_response(identity.headers, form);
    co_return co_await call.respond(std::move(refusal));
  }
  planned->headers = std::move(identity.headers);
  planned->keep_alive = options_.keep_alive;
  if (options_.log_requests) planned->log_name = identity.prefix + identity.name;
  GenerationCall generation(service_, tokenizer_, call, std::move(*planned));
  co_await generation.run();
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
    return answered ? json_response(*answered) : answered.error().to_response({}, form);
  });
  co_await call.respond(std::move(response));
}

GenerationPlan ApiServer::common_plan(GenerationParams& params) const {
  GenerationPlan plan;
  plan.choices_per_prompt = params.best_of;
  plan.num_best = params.num_choices;
  plan.choice = {.stop = std::move(params.stop),
                 .min_tokens = params.sampling.min_tokens,
                 .skip_special_tokens = params.skip_special_tokens,
                 .include_stop = params.include_stop,
                 .logprobs = params.sampling.num_logprobs >= 0};
  plan.sampling = std::move(params.sampling);
  plan.sampling.seed = params.seed ? *params.seed : options_.seed ? *options_.seed : random_word();
  for (const TokenId id : plan.sampling.stop_token_ids)
    if (params.ignore_eos || !std::ranges::binary_search(eos_token_ids_, id))
      plan.choice.explicit_stop_ids.push_back(id);
  if (!params.ignore_eos) std::ranges::copy(eos_token_ids_, std::back_inserter(plan.sampling.stop_token_ids));
  // To choose the best of some, their probabilities are wanted.
  if (params.best_of > params.num_choices) plan.sampling.num_logprobs = std::max(plan.sampling.num_logprobs, 0);
  plan.sampling.bad_words = tokens_of_words(params.bad_words);
  plan.priority = params.priority;
  plan.cache_salt = std::move(params.cache_salt);
  plan.budget = budget_;
  plan.arrival_ns = std::chrono::steady_clock::now().time_since_epoch().count();
  plan.stream = params.stream;
  plan.continuous_usage = params.continuous_usage;
  plan.include_progress = params.stream && params.include_progress;
  plan.choice.ids = params.return_ids;
  return plan;
}

// As they stand in a text's beginning and behind a blank, which most tokenizers write in other tokens.
std::vector<std::vector<TokenId>> ApiServer::tokens_of_words(const std::vector<std::string>& words) const {
  std::vector<std::vector<TokenId>> all;
  for (const std::string& word : words)
    for (const std::string& text : {word, " " + word})
      if (auto tokens = tokenizer_.encode(text, false);
          tokens && !tokens->empty() && std::ranges::max(*tokens) < options_.vocab_size)  // else it never comes
        all.push_back(std::move(*tokens));
  return all;
}

// A token's id, if the model can write it: a tokenizer may have more of them than the model.
std::optional<TokenId> ApiServer::writable_id(std::string_view token) const {
  const std::optional<TokenId> id = tokenizer_.token_id(token);
  return id && *id < options_.vocab_size ? id : std::nullopt;
}

void ApiServer::set_thought(GenerationPlan& plan) const {
  plan.thought.begin = writable_id("<think>");
  plan.thought.end = writable_id("</think>");
  if (plan.choice.tool_calls) plan.thought.call = writable_id(plan.choice.tool_calls->thought_end());
}

ApiResult<const Grammars*> ApiServer::grammars() const {
  std::call_once(grammars_made_, [&] {
    grammars_ = Grammars::create(tokenizer_, options_.vocab_size, eos_token_ids_);
    for (TokenId id = 0; id < std::min(options_.vocab_size, tokenizer_.vocab_size()); ++id) {
      const std::string_view bytes = tokenizer_.token_bytes(id, false);
      if (!bytes.empty() && std::string_view(" \t\r\n").contains(bytes.front())) spaces_.push_back(id);
    }
  });
  if (!grammars_) return std::unexpected(ApiError(500, grammars_.error().message, "server_error"));
  return grammars_->get();
}

ApiResult<void> ApiServer::set_grammar(const GrammarText& grammar, bool may_think, GenerationPlan& plan) const {
  ASSIGN_OR_RETURN(const Grammars* known, grammars());
  Result<std::unique_ptr<GrammarMatcher>> matcher = known->compile(grammar);
  if (!matcher)
    return std::unexpected(ApiError(400, "the answer's form cannot be had: " + matcher.error().message,
                                    "invalid_request_error", "", "invalid_grammar"));
  plan.grammar = std::move(*matcher);
  if (may_think) {
    set_thought(plan);
    const Result<bool> wants_space = plan.grammar->copy()->allows_any(spaces_, options_.vocab_size);
    plan.choice.keeps_space = !wants_space || *wants_space;
    if (!plan.choice.keeps_space)
      for (const char* blank : {"\n", "\n\n"})
        if (const auto ids = tokenizer_.encode(blank, false); ids && ids->size() == 1)
          plan.thought.blanks.push_back(ids->front());
  }
  plan.end_ids = eos_token_ids_;
  plan.vocab_size = options_.vocab_size;
  plan.mask_workers = mask_workers_;
  plan.mask_budget = std::make_shared<MaskBudget>(plan.choices_per_prompt);
  return {};
}

// Calls that must come are held to the tools' schemas, and those of tools that are `strict`. `form`: of an answer that
// calls none.
ApiResult<void> ApiServer::use_tools(ToolUse use, std::optional<GrammarText> form, GenerationPlan& plan) const {
  plan.choice.tool_calls = tool_calls_;
  const bool must_call = use.choice == ToolUse::Choice::kRequired || use.choice == ToolUse::Choice::kNamed;
  const bool is_strict = std::ranges::any_of(use.tools, [](const json::value& tool) {
    const json::value* strict = tool.at("function").as_object().if_contains("strict");
    return strict && *strict == json::value(true);
  });
  if (must_call || is_strict || form) {
    ASSIGN_OR_RETURN(const Grammars* known, grammars());
    const ToolCallRules rules{
        .must_call = must_call, .may_repeat = use.parallel, .only = use.named, .form = std::move(form)};
    RETURN_IF_ERROR(set_grammar(tool_call_grammar(*tool_calls_, *known, use.tools, rules), reasoning_, plan));
    if (!rules.form) plan.choice.keeps_space = false;  // text beside calls is free
  }
  plan.tools = std::make_unique<json::array>(std::move(use.tools));
  plan.choice.tools = plan.tools.get();
  plan.choice.skip_special_tokens = false;  // a format's marks may be such tokens
  return {};
}

AnswerHead ApiServer::answer_head(const GenerationParams& params, const Identity& identity) const {
  const std::string& name = identity.is_made_up && is_usable_id(params.request_id) ? params.request_id : identity.name;
  return {.id = identity.prefix + name,
          .created = unix_seconds(),
          .model = params.model.empty() ? options_.served_model_names.front() : params.model,
          .system_fingerprint = options_.system_fingerprint,
          .service_tier = params.service_tier.empty() ? "" : "default"};
}

ApiResult<GenerationPlan> ApiServer::plan_completion(const http::Request& request, const Identity& identity) const {
  ASSIGN_OR_RETURN(const json::object body, parse_body(request.body));
  RETURN_IF_ERROR(check_model(body));
  ASSIGN_OR_RETURN(CompletionRequest parsed,
                   parse_completion_request(body, options_.generation_config, options_.limits));
  GenerationParams& params = parsed.params;
  const bool prompt_only = params.max_tokens == 0;
  // An echo has the prompt's probabilities anyway; apart they stand only if they were asked for.
  const bool prompt_logprobs = body.contains("prompt_logprobs") && params.sampling.num_prompt_logprobs >= 0;
  const AnswerOptions answer{.num_logprobs = params.sampling.num_logprobs,
                             .prompt_logprobs = prompt_logprobs,
                             .tokens_as_ids = params.tokens_as_ids.value_or(options_.tokens_as_ids),
                             .ids = params.return_ids,
                             .include_usage = params.include_usage || options_.force_include_usage,
                             .continuous_usage = params.continuous_usage};
  PromptMaker::Fit fit = fit_of(params, kDefaultCompletionTokens);
  fit.prompt_only = prompt_only;
  fit.reserve = kDefaultCompletionTokens;
  std::vector<Prompt> prompts;
  for (auto& given : parsed.prompts) {
    auto* text = std::get_if<std::string>(&given);
    ASSIGN_OR_RETURN(Prompt prompt,
                     text ? prompts_.from_text(std::move(*text), parsed.add_special_tokens, parsed.echo, fit)
                          : prompts_.from_ids(std::move(std::get<std::vector<TokenId>>(given)), parsed.echo,
                                              params.skip_special_tokens, fit));
    prompts.push_back(std::move(prompt));
  }
  const AnswerHead head = answer_head(params, identity);
  GenerationPlan plan = common_plan(params);
  plan.prompts = std::move(prompts);
  plan.choice.echo = parsed.echo;
  plan.choice.prompt_only = prompt_only;
  if (params.grammar) RETURN_IF_ERROR(set_grammar(*params.grammar, false, plan));
  plan.choice.prompt_logprobs = prompt_logprobs;
  plan.format = make_completion_format(tokenizer_, head, answer,
                                       plan.prompts.size() * static_cast<size_t>(plan.choices_per_prompt));
  return plan;
}

AnswerOptions ApiServer::chat_options(const ChatRequest& request) const {
  const GenerationParams& params = request.params;
  return {.num_logprobs = params.sampling.num_logprobs,
          .prompt_logprobs = params.sampling.num_prompt_logprobs >= 0,
          .tokens_as_ids = params.tokens_as_ids.value_or(options_.tokens_as_ids),
          .ids = params.return_ids,
          .reasoning = reasoning_,
          .named_call = request.conversation.tools.choice == ToolUse::Choice::kNamed,
          .include_usage = params.include_usage || options_.force_include_usage,
          .continuous_usage = params.continuous_usage};
}

ApiResult<GenerationPlan> ApiServer::plan_chat(const http::Request& request, const Identity& identity) const {
  ASSIGN_OR_RETURN(const json::object body, parse_body(request.body));
  RETURN_IF_ERROR(check_model(body));
  ASSIGN_OR_RETURN(ChatRequest parsed, parse_chat_request(body, options_.generation_config, options_.limits));
  const AnswerOptions answer = chat_options(parsed);
  const AnswerHead head = answer_head(parsed.params, identity);
  ASSIGN_OR_RETURN(GenerationPlan plan,
                   plan_conversation(parsed, fit_of(parsed.params, options_.generation_config.max_new_tokens)));
  plan.choice.prompt_logprobs = answer.prompt_logprobs;
  plan.format = make_chat_format(tokenizer_, head, answer);
  return plan;
}

// vLLM's: a list of conversations, each of which is answered as if it were alone, by the choice of its number.
ApiResult<GenerationPlan> ApiServer::plan_batch(const http::Request& request, const Identity& identity) const {
  ASSIGN_OR_RETURN(json::object body, parse_body(request.body));
  RETURN_IF_ERROR(check_model(body));
  ASSIGN_OR_RETURN(const json::array conversations, read_batch(body, options_.limits));
  GenerationPlan plan;
  const auto add = [&]() -> ApiResult<void> {
    ASSIGN_OR_RETURN(ChatRequest parsed, parse_chat_request(body, options_.generation_config, options_.limits));
    const PromptMaker::Fit fit = fit_of(parsed.params, options_.generation_config.max_new_tokens);
    if (plan.format) {  // all but the prompt is the first one's
      ASSIGN_OR_RETURN(Prompt prompt, prompts_.from_chat(parsed.conversation, fit));
      plan.prompts.push_back(std::move(prompt));
      return {};
    }
    AnswerOptions answer = chat_options(parsed);
    answer.prompt_ids = false;
    const AnswerHead head = answer_head(parsed.params, identity);
    ASSIGN_OR_RETURN(plan, plan_conversation(parsed, fit));
    plan.format = make_chat_format(tokenizer_, head, answer);
    return {};
  };
  for (size_t i = 0; i < conversations.size(); ++i) {
    body["messages"] = conversations[i];
    ApiResult<void> added = add();
    if (added) continue;
    ApiError error = std::move(added.error());
    if (error.param.starts_with("messages")) {
      error.message = fmt::format("of conversation {}: {}", i, error.message);
      error.param.insert(std::string_view("messages").size(), fmt::format("[{}]", i));
    }
    return std::unexpected(std::move(error));
  }
  return plan;
}

ApiResult<GenerationPlan> ApiServer::plan_conversation(ChatRequest& request, const PromptMaker::Fit& fit,
                                                       const char* messages) const {
  ToolUse& tools = request.conversation.tools;
  if (!tools.may_call() && options_.exclude_unusable_tools) tools.tools.clear();
  if (tools.may_call() && !tool_calls_)
    return std::unexpected(ApiError(400,
                                    "tools are given, but nothing is known of how this model calls them: its chat "
                                    "template shows none of the known formats; --tool-call-parser names one",
                                    "invalid_request_error", "tools"));
  ApiResult<Prompt> prompt = prompts_.from_chat(request.conversation, fit);
  if (!prompt) {
    if (prompt.error().param == "messages") prompt.error().param = messages;
    return std::unexpected(std::move(prompt.error()));
  }
  GenerationPlan plan = common_plan(request.params);
  plan.prompts.push_back(std::move(*prompt));
  plan.choice.parse_reasoning = reasoning_;
  plan.choice.thought_end = writable_id("</think>");
  plan.choice.include_reasoning = request.include_reasoning;
  if (tools.may_call()) {
    RETURN_IF_ERROR(use_tools(std::move(tools), std::move(request.params.grammar), plan));
  } else if (request.params.grammar) {
    RETURN_IF_ERROR(set_grammar(*request.params.grammar, reasoning_, plan));
  }
  if (request.params.thought_budget >= 0) {
    set_thought(plan);
    if (!plan.thought.end)
      return std::unexpected(
          ApiError(400, "thinking_token_budget is given, but this model's thoughts have no end that is a token",
                   "invalid_request_error", "thinking_token_budget"));
    plan.thought_budget = request.params.thought_budget;
  }
  return plan;
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
  // Anthropic's clients want to know less.
  if (request.headers.contains("anthropic-version")) {
    const std::string created = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(created_));
    for (const std::string& name : names)
      data.push_back({{"type", "model"}, {"id", name}, {"display_name", name}, {"created_at", created}});
    return json_response(
        {{"data", std::move(data)}, {"has_more", false}, {"first_id", names.front()}, {"last_id", names.back()}});
  }
  for (const std::string& name : names) data.push_back(describe_model(name));
  return json_response({{"object", "list"}, {"data", std::move(data)}});
}

http::Response ApiServer::model(std::string_view name) const {
  // A path has each slash once; a name that begins with one has lost it.
  const std::string rooted = "/" + std::string(name);
  if (std::ranges::find(options_.served_model_names, rooted) != options_.served_model_names.end()) name = rooted;
  if (const auto known = check_model({{"model", name}}); !known) return known.error().to_response();
  return json_response(describe_model(name));
}

json::object ApiServer::describe_model(std::string_view name) const {
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
                                                       {"running", stats.num_running},
                                                       {"waiting", stats.num_waiting},
                                                       {"pending_tokens", stats.num_pending_tokens},
                                                       {"kv_usage", stats.kv_usage},
                                                       {"instance", responses_->mark()}});
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
  at_once("GET", "/v1/models/*", [this](const auto& request) {
    return model(std::string_view(request.path).substr(std::string_view("/v1/models/").size()));
  });
  for (const auto& [method, path] :
       {std::pair("GET", "/health"), std::pair("GET", "/ping"), std::pair("POST", "/ping")})
    at_once(method, path, [this](const auto&) { return http::Response{service_.healthy() ? 200 : 503, {}, {}}; });
  at_once("GET", "/live", [](const auto&) { return http::Response{200, {}, {}}; });
  at_once("GET", "/load", [this](const auto&) { return load(); });
  at_once("GET", "/version",
          [this](const auto&) { return json_response(json::object{{"version", options_.version}}); });
  if (render_state_)
    at_once("GET", "/state", [this](const auto&) { return http::Response::json(200, render_state_()); });
  if (render_metrics_)
    at_once("GET", "/metrics", [this](const auto&) {
      return http::Response{200, {{"Content-Type", "text/plain; version=0.0.4; charset=utf-8"}}, render_metrics_()};
    });
}

}  // namespace cachalot::openai
