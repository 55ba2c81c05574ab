#include "processes/api_client.h"

#include <sstream>

#include "base/text.h"
#include "processes/served_group.h"

namespace cachalot::test {
namespace {

// Takes "data: {...}" lines out of what came, and keeps a last one that is not whole.
class Events {
 public:
  void add(const std::string& piece) { unread_ += piece; }
  std::optional<std::string> next() {
    const size_t end = unread_.find("\n\n");
    if (end == std::string::npos) return std::nullopt;
    std::string event = unread_.substr(0, end);
    unread_.erase(0, end + 2);
    return event.starts_with("data: ") ? event.substr(6) : event;
  }

 private:
  std::string unread_;
};

// Whether the stream goes on.
bool take_event(const std::string& event, bool& finished, StreamedAnswer& answer) {
  using End = StreamedAnswer::End;
  if (event == "[DONE]") {
    if (finished) answer.end = End::kComplete;
    return false;
  }
  const boost::json::object object = boost::json::parse(event).as_object();
  if (const auto* error = object.if_contains("error")) {
    answer.end = End::kErrorEvent;
    answer.error = boost::json::value_to<std::string>(error->at("message"));
    return false;
  }
  if (const auto* usage = object.if_contains("usage"); usage && usage->is_object())
    answer.num_tokens = usage->at("completion_tokens").to_number<int>();
  if (object.at("choices").as_array().empty()) return true;
  const boost::json::object& choice = object.at("choices").at(0).as_object();
  answer.text += boost::json::value_to<std::string>(choice.at("text"));
  finished |= !choice.at("finish_reason").is_null();
  return true;
}

}  // namespace

http::ClientRequest ApiClient::request_to(uint16_t port, const std::string& target,
                                          const boost::json::object* body) const {
  http::ClientRequest request{.url = {.host = host_, .port = port, .target = target}, .headers = {}, .body = {}};
  if (body == nullptr) return request;
  request.method = "POST";
  request.headers.add("Content-Type", "application/json");
  request.body = boost::json::serialize(*body);
  return request;
}

Result<http::Response> ApiClient::get(uint16_t port, const std::string& target) const {
  return client_.fetch(request_to(port, target, nullptr));
}

Result<http::Response> ApiClient::complete(uint16_t port, boost::json::object body) const {
  return client_.fetch(request_to(port, "/v1/completions", &body));
}

StreamedAnswer ApiClient::stream(uint16_t port, boost::json::object body,
                                 const std::function<bool(int)>& on_event) const {
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}, {"continuous_usage_stats", true}};
  return *io_threads_.wait(read_stream(request_to(port, "/v1/completions", &body), on_event));
}

http::awaitable<Result<StreamedAnswer>> ApiClient::read_stream(http::ClientRequest request,
                                                               const std::function<bool(int)>& on_event) const {
  using End = StreamedAnswer::End;
  StreamedAnswer answer;
  http::ClientCall call = client_.call(std::move(request));
  const Result<http::ResponseHead> head = co_await call.head();
  if (!head) {
    answer.end = head.error().code == ErrorCode::kDeadlineExceeded ? End::kSilent : End::kUnreachable;
    co_return answer;
  }
  answer.status = head->status;
  answer.has_retry_after = head->headers.contains("Retry-After");
  if (head->status != 200) {
    answer.end = End::kRefused;
    co_return answer;
  }
  answer.end = End::kCut;
  bool finished = false;
  for (Events events;;) {
    const Result<std::string> piece = co_await call.read();
    if (!piece && piece.error().code == ErrorCode::kDeadlineExceeded) answer.end = End::kSilent;
    if (!piece || piece->empty()) co_return answer;
    events.add(*piece);
    while (const std::optional<std::string> event = events.next()) {
      if (event->starts_with(':')) continue;  // the server is still there
      if (!take_event(*event, finished, answer)) co_return answer;
      if (on_event && !on_event(answer.num_tokens)) co_return answer;  // which drops the call
    }
  }
}

double ApiClient::metric(uint16_t port, const std::string& name, const std::string& labels) const {
  const Result<http::Response> page = get(port, "/metrics");
  if (!page) return -1;
  std::istringstream lines(page->body);
  double sum = 0;
  bool found = false;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(name) || (line[name.size()] != '{' && line[name.size()] != ' ')) continue;
    if (line.find(labels) == std::string::npos) continue;
    sum += leading_number<double>(std::string_view(line).substr(line.rfind(' ') + 1));
    found = true;
  }
  return found ? sum : -1;
}

boost::json::object completion_body(const boost::json::value& prompt, int max_tokens) {
  return {{"model", nano_folder()},
          {"prompt", prompt},
          {"max_tokens", max_tokens},
          {"temperature", 0},
          {"ignore_eos", true}};
}

}  // namespace cachalot::test
