#include "cli/chat_session.h"

#include <fmt/format.h>

#include <boost/json.hpp>

#include "base/text.h"
#include "http/sse.h"

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

}  // namespace cachalot
