#include "cli/chat_session.h"

#include <fmt/format.h>

#include <boost/json.hpp>

#include "http/sse.h"

namespace cachalot {

namespace json = boost::json;

namespace {

// The text at a path of keys, if everything on the way is there.
const json::string* find_text(const json::value& value, const char* pointer) {
  boost::system::error_code error;
  const json::value* found = value.find_pointer(pointer, error);
  return found ? found->if_string() : nullptr;
}

// What a server says instead of an answer: OpenAI's error, or whatever it is.
std::unexpected<Error> refusal(int status, const std::string& body) {
  boost::system::error_code error;
  const json::value value = json::parse(body, error);
  const json::string* message = error ? nullptr : find_text(value, "/error/message");
  return make_error(ErrorCode::kUnavailable, "the server answers {}: {}", status,
                    message ? std::string_view(*message) : std::string_view(body).substr(0, 300));
}

std::string base_of(std::string url) {
  if (url.find("://") == url.npos) url = "http://" + url;
  while (url.ends_with('/')) url.pop_back();
  return url.ends_with("/v1") ? url : url + "/v1";
}

}  // namespace

ChatSession::ChatSession(const http::IoThreads& threads, ChatOptions options)
    : client_(threads), options_(std::move(options)) {
  options_.url = base_of(std::move(options_.url));
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

Result<http::ClientRequest> ChatSession::make_request(const std::string& method, const std::string& path,
                                                      std::string body) const {
  http::ClientRequest request{.method = method, .body = std::move(body)};
  ASSIGN_OR_RETURN(request.url, http::parse_url(options_.url + path));
  if (!request.body.empty()) request.headers.set("Content-Type", "application/json");
  if (!options_.api_key.empty()) request.headers.set("Authorization", "Bearer " + options_.api_key);
  return request;
}

Status ChatSession::connect() {
  ASSIGN_OR_RETURN(http::ClientRequest request, make_request("GET", "/models", {}));
  ASSIGN_OR_RETURN(const http::Response response, client_.fetch(std::move(request)));
  if (response.status != 200) return refusal(response.status, response.body);
  if (!options_.model.empty()) return {};
  boost::system::error_code error;
  const json::value models = json::parse(response.body, error);
  const json::string* name = error ? nullptr : find_text(models, "/data/0/id");
  if (!name)
    return make_error(ErrorCode::kUnavailable, "{}/models names no model; give one with --model", options_.url);
  options_.model = *name;
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
  ASSIGN_OR_RETURN(http::ClientRequest request, make_request("POST", "/chat/completions", body));
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
  if (head.status != 200) return refusal(head.status, refused);
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
