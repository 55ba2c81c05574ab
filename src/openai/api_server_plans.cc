// The part of ApiServer (openai/api_server.h) from requests to what is to be generated: identities, parameters, forms,
// prompts.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <chrono>
#include <random>

#include "base/text.h"
#include "config/json.h"
#include "openai/api_server.h"
#include "openai/request/schema_bounds.h"
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

// Bytes that are no text, or move a reader's cursor, are no name.
bool is_usable_id(std::string_view name) {
  return !name.empty() && name.size() <= kMaxRequestIdBytes && to_valid_utf8(name) == name &&
         std::ranges::none_of(name, [](char byte) { return static_cast<unsigned char>(byte) < 0x20 || byte == 0x7f; });
}

PromptMaker::Fit fit_of(const GenerationParams& params, std::optional<int> default_max_tokens) {
  return {.max_tokens = params.max_tokens,
          .default_max_tokens = default_max_tokens,
          .truncate = params.truncate_prompt_tokens,
          .truncates_end = params.truncates_end,
          .prompt_only = false};
}

}  // namespace

ApiServer::Identity ApiServer::identify(const http::Request& request, const char* prefix) const {
  const std::string_view given = request.headers.find("X-Request-Id").value_or("");
  const bool is_made_up = !is_usable_id(given);
  const std::string name =
      is_made_up ? fmt::format("{:016x}{:016x}", random_word(), random_word()) : std::string(given);
  Identity identity{.prefix = prefix,
                    .name = name,
                    .headers = {{"X-Request-Id", name}},
                    .is_made_up = is_made_up,
                    .created = unix_seconds(),
                    .response_id = std::string_view(prefix) == "resp_" ? responses_->make_id() : ""};
  if (error_form(request.path) == ErrorForm::kAnthropic) identity.headers.set("request-id", name);
  return identity;
}

std::string ApiServer::fingerprint() const {
  return fmt::format("{}/{}/{}", options_.bits_fingerprint, options_.max_model_len, options_.vocab_size);
}

ApiResult<std::optional<AnswerLog>> ApiServer::take_log(http::Request& request, Identity& identity) const {
  const auto field = request.headers.find(answer_log::kField);
  if (!field) return std::nullopt;
  identity.is_logged = !options_.bits_fingerprint.empty();
  const auto num_bytes = parse_number<size_t>(*field);
  if (!num_bytes || *num_bytes > request.body.size())
    return invalid_request(
        fmt::format("{} is {}; the body has {} bytes", answer_log::kField, quoted(*field), request.body.size()));
  if (*num_bytes == 0) return std::nullopt;
  auto log = parse_answer_log(std::string_view(request.body).substr(0, *num_bytes));
  if (!log) return invalid_request(log.error().message);
  request.body.erase(0, *num_bytes);
  const AnswerStart& start = log->start;
  if (start.fingerprint != fingerprint())
    return std::unexpected(
        ApiError(409, fmt::format("an answer of {} cannot go on here, at {}", quoted(start.fingerprint), fingerprint()),
                 "invalid_request_error"));
  identity.name = start.name;
  identity.created = start.created;
  identity.response_id = start.response_id;
  responses_->put_referred(start.stored, owner_of(request));
  return std::optional(std::move(*log));
}

// What stands in a whole answer beside its text is told by the server that computed it: without a log such an answer is
// begun anew.
void ApiServer::keep_log(const Identity& identity, GenerationPlan& plan) const {
  plan.may_go_elsewhere = true;
  const bool is_plain = plan.sampling.num_logprobs < 0 && plan.sampling.num_prompt_logprobs < 0;
  if (!plan.stream && !is_plain) return;
  plan.log_headers.set(std::string(answer_log::kField),
                       fmt::format("{} {} {}", plan.stream ? answer_log::kEvents : answer_log::kWhole,
                                   responses_->mark(), fingerprint()));
  plan.start_record = start_record({.name = identity.name,
                                    .response_id = identity.response_id,
                                    .created = identity.created,
                                    .seed = plan.sampling.seed,
                                    .fingerprint = fingerprint(),
                                    .stored = std::move(plan.stored)});
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

bool ApiServer::may_begin_with_space(const GrammarMatcher& form) const {
  const Result<bool> wants_space = form.copy()->allows_any(spaces_, options_.vocab_size);
  return !wants_space || *wants_space;
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
    plan.choice.keeps_space = may_begin_with_space(*plan.grammar);
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

namespace {

// Of what the parameters' schemas leave open, models would make up more until they are cut.
json::array with_bounds(json::array tools) {
  for (json::value& tool : tools) {
    json::value* parameters = tool.at("function").as_object().if_contains("parameters");
    if (!parameters) continue;
    bound_formats(*parameters);
    close_objects(*parameters);
  }
  return tools;
}

}  // namespace

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
    // Text beside calls is free, and a call's white space is the format's own.
    const auto alone = form ? known->compile(*form) : Result<std::unique_ptr<GrammarMatcher>>();
    const bool keeps_space = form && alone && may_begin_with_space(**alone);
    const ToolCallRules rules{
        .must_call = must_call, .may_repeat = use.parallel, .only = use.named, .form = std::move(form)};
    RETURN_IF_ERROR(
        set_grammar(tool_call_grammar(*tool_calls_, *known, with_bounds(use.tools), rules), reasoning_, plan));
    plan.choice.keeps_space = keeps_space;
  }
  plan.tools = std::make_unique<json::array>(std::move(use.tools));
  plan.choice.tools = plan.tools.get();
  plan.choice.skip_special_tokens = false;  // a format's marks may be such tokens
  return {};
}

AnswerHead ApiServer::answer_head(const GenerationParams& params, const Identity& identity) const {
  const std::string& name = identity.is_made_up && is_usable_id(params.request_id) ? params.request_id : identity.name;
  return {.id = identity.prefix + name,
          .created = identity.created,
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
  plan.choice.thought_begin = writable_id("<think>");
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

}  // namespace cachalot::openai
