#include "cli/chat_session.h"

#include <fmt/format.h>

#include <boost/json.hpp>

#include "http/sse.h"

namespace cachalot {

namespace json = boost::json;

using openai::find_text;

ChatSession::ChatSession(const http::IoThreads& threads, ChatOptions options)
    : client_(threads), options_(std::move(options)), address_(options_.url, options_.api_key) {
  reset();
}

void ChatSession::reset() {
  messages_.clear();
  if (!options_.system.empty()) messages_.push_back({{"role", "system"}, {"content", options_.system}});
}

void ChatSession::stop() {
  std::lock_guard lock(mutex_);
  if (call_) call_->cancel();
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
  Answer answer;
  const Status status = stream(json::serialize(body), sink, answer);
  {
    std::lock_guard lock(mutex_);
    call_.reset();
  }
  // A question without an answer is not said; an answer that was cut short is.
  if (answer.content.empty() && !status)
    messages_.pop_back();
  else
    messages_.push_back({{"role", "assistant"}, {"content", answer.content}});
  if (!status) return std::unexpected(status.error());
  return answer.finish;
}

Status ChatSession::stream(const std::string& body, const Sink& sink, Answer& answer) {
  ASSIGN_OR_RETURN(http::ClientRequest request, address_.request("POST", "/chat/completions", body));
  http::BlockingCall call = client_.start_blocking(std::move(request));
  {
    std::lock_guard lock(mutex_);
    call_ = call;
  }
  ASSIGN_OR_RETURN(const http::ResponseHead head, call.head());
  http::SseParser parser;
  std::string refused;
  for (;;) {
    ASSIGN_OR_RETURN(const std::string piece, call.read());
    if (piece.empty()) break;
    if (head.status != 200) {
      refused += piece;
      continue;
    }
    ASSIGN_OR_RETURN(const std::vector<http::SseEvent> events, parser.add(piece));
    for (const http::SseEvent& event : events) RETURN_IF_ERROR(take_event(event.data, sink, answer));
  }
  if (head.status != 200) return std::unexpected(openai::refusal(head.status, refused));
  if (!answer.done && answer.finish.empty()) return make_error(ErrorCode::kUnavailable, "the answer broke off");
  return {};
}

Status ChatSession::take_event(const std::string& data, const Sink& sink, Answer& answer) const {
  if (data == "[DONE]") {
    answer.done = true;
    return {};
  }
  boost::system::error_code error;
  const json::value chunk = json::parse(data, error);
  if (error) return make_error(ErrorCode::kCorrupt, "the server streams what is not JSON: {}", data.substr(0, 100));
  if (const json::string* message = find_text(chunk, "/error/message"))
    return make_error(ErrorCode::kUnavailable, "the answer broke off: {}", std::string_view(*message));
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

}  // namespace cachalot
