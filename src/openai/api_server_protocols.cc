// The part of ApiServer (openai/api_server.h) that translates other protocols into chats: OpenAI's Responses and
// Anthropic's Messages.
#include <algorithm>
#include <utility>
#include <vector>

#include "openai/api_server.h"
#include "openai/messages/messages_request.h"
#include "openai/responses/response_items.h"
#include "openai/responses/responses_format.h"

namespace cachalot::openai {

namespace json = boost::json;

ApiResult<GenerationPlan> ApiServer::plan_response(const http::Request& request, const Identity& identity) const {
  ASSIGN_OR_RETURN(const json::object body, parse_body(request.body));
  RETURN_IF_ERROR(check_model(body));
  const std::string owner = owner_of(request);
  ASSIGN_OR_RETURN(ResponsesRequest parsed,
                   parse_responses_request(body, options_.generation_config, options_.limits, *responses_, owner));
  const GenerationParams& params = parsed.chat.params;
  if (parsed.truncates) drop_oldest_turns(params.max_tokens, parsed.chat.conversation);
  const PromptMaker::Fit fit{.max_tokens = params.max_tokens,
                             .default_max_tokens = options_.generation_config.max_new_tokens};
  ResponsesAnswer answer{.head = answer_head(params, identity),
                         .num_logprobs = params.sampling.num_logprobs,
                         .tokens_as_ids = options_.tokens_as_ids,
                         .returns_thoughts = parsed.returns_thoughts};
  answer.head.id = identity.response_id;
  ASSIGN_OR_RETURN(GenerationPlan plan, plan_conversation(parsed.chat, fit, "input"));
  plan.holds_answer = true;
  if (identity.is_logged) plan.stored = responses_->referred_by(body, owner);
  if (parsed.store && options_.max_stored_response_bytes > 0)
    answer.keep = [store = responses_.get(), id = answer.head.id,
                   draft = StoredResponse{.owner = owner,
                                          .input_items = shown_input_items(parsed.input_items, answer.head.id),
                                          .previous_id = parsed.previous_id}](std::string response) mutable {
      draft.response = std::move(response);
      store->put(id, std::move(draft));
    };
  answer.echo = std::move(parsed.echo);
  answer.namespaced_tools = std::move(parsed.namespaced_tools);
  plan.format = make_responses_format(tokenizer_, std::move(answer));
  return plan;
}

ApiResult<GenerationPlan> ApiServer::plan_message(const http::Request& request, const Identity& identity) const {
  ASSIGN_OR_RETURN(const json::object body, parse_body(request.body));
  RETURN_IF_ERROR(check_model(body));
  ASSIGN_OR_RETURN(MessagesRequest parsed, parse_messages_request(body, options_.generation_config, options_.limits));
  MessagesAnswer answer{
      .head = answer_head(parsed.chat.params, identity), .request_id = identity.name, .max_tokens = parsed.max_tokens};
  const bool prompt_only = parsed.max_tokens == 0;
  ASSIGN_OR_RETURN(GenerationPlan plan, plan_conversation(parsed.chat, {.default_max_tokens = parsed.max_tokens,
                                                                        .prompt_only = prompt_only}));
  plan.choice.prompt_only = prompt_only;
  plan.format = make_messages_format(std::move(answer));
  return plan;
}

// A turn begins with a user's message; what the system says at the beginning stays.
void ApiServer::drop_oldest_turns(std::optional<int> max_tokens, Conversation& conversation) const {
  constexpr int kReserve = 1024;  // for an answer without a bound, at most a quarter of the context
  const int answer = max_tokens.value_or(std::min(kReserve, options_.max_model_len / 4));
  const json::array all = std::move(conversation.messages);
  const auto has_role = [](const char* role) {
    return [=](const json::value& message) { return message.at("role") == role; };
  };
  const auto first = std::ranges::find_if_not(all, has_role("system"));
  std::vector<json::array::const_iterator> begins{first};
  for (auto message = first; message != all.end(); ++message)
    if (message != first && has_role("user")(*message)) begins.push_back(message);
  const auto begin_at = [&](size_t turn) {
    conversation.messages = json::array(all.begin(), first);
    conversation.messages.insert(conversation.messages.end(), begins[turn], all.end());
  };
  const auto fits = [&](size_t turn) {
    begin_at(turn);
    const auto tokens = prompts_.tokenize(conversation);
    return tokens && static_cast<int64_t>(tokens->size()) + answer <= options_.max_model_len;
  };
  size_t low = 0, high = begins.size() - 1;  // the first turn that fits, or the last one, is among these
  if (fits(0)) return;
  while (low + 1 < high) {
    const size_t middle = (low + high) / 2;
    (fits(middle) ? high : low) = middle;
  }
  begin_at(high);
}

ApiResult<std::vector<TokenId>> ApiServer::tokens_of(const ChatRequest& request, const char* messages) const {
  ApiResult<std::vector<TokenId>> tokens = prompts_.tokenize(request.conversation);
  if (!tokens && tokens.error().param == "messages") tokens.error().param = messages;
  return tokens;
}

ApiResult<json::object> ApiServer::count_of_response(const json::object& body, const std::string& owner) const {
  ASSIGN_OR_RETURN(const ResponsesRequest parsed,
                   parse_responses_request(body, options_.generation_config, options_.limits, *responses_, owner));
  ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, tokens_of(parsed.chat, "input"));
  return json::object{{"object", "response.input_tokens"}, {"input_tokens", tokens.size()}};
}

ApiResult<json::object> ApiServer::count_of_message(const json::object& body, const std::string& /*owner*/) const {
  ASSIGN_OR_RETURN(const MessagesRequest parsed,
                   parse_messages_request(body, options_.generation_config, options_.limits, true));
  ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, tokens_of(parsed.chat));
  return json::object{{"input_tokens", tokens.size()}};
}

// Lists of input items are parsed.
http::awaitable<void> ApiServer::answer_stored(http::ServerCall& call) const {
  http::Response response =
      co_await http::run_on(workers_.context(), [&] { return openai::answer_stored(call.request, *responses_); });
  co_await call.respond(std::move(response));
}

}  // namespace cachalot::openai
