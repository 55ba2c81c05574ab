#include "traffic/instant_server.h"

#include <fmt/format.h>

#include <boost/json.hpp>

namespace cachalot {

namespace json = boost::json;

namespace {

http::awaitable<void> answer(http::ServerCall& call, std::string_view choice) {
  boost::system::error_code error;
  const json::value body = json::parse(call.request.body, error);
  const json::value* wanted = error ? nullptr : body.find_pointer("/max_tokens", error);
  const int64_t num_tokens = wanted && wanted->is_int64() ? wanted->get_int64() : 16;
  const json::value* prompt = body.find_pointer("/prompt", error);
  const size_t num_prompt_tokens = prompt && prompt->is_array() ? prompt->get_array().size() : 0;
  http::Headers headers;
  headers.set("Content-Type", "text/event-stream");
  call.begin(200, std::move(headers));
  const std::string event = http::format_sse(fmt::format(R"({{"choices":[{{"index":0,{}}}]}})", choice));
  for (int64_t token = 0; token < num_tokens; token++) co_await call.send(event);
  co_await call.end(
      http::format_sse(fmt::format(R"({{"choices":[],"usage":{{"prompt_tokens":{},"completion_tokens":{}}}}})",
                                   num_prompt_tokens, num_tokens)) +
      http::format_sse("[DONE]"));
}

}  // namespace

Result<std::unique_ptr<http::Server>> start_instant_server(const http::IoThreads& threads) {
  auto server = std::make_unique<http::Server>(threads, http::ServerOptions{.host = "127.0.0.1"});
  server->route("GET", "/v1/models", [](const http::Request&) {
    return http::Response{.status = 200, .body = R"({"data":[{"id":"instant"}]})"};
  });
  server->route("POST", "/v1/completions",
                [](http::ServerCall& call) -> http::awaitable<void> { co_await answer(call, R"("text":"a ")"); });
  server->route("POST", "/v1/chat/completions", [](http::ServerCall& call) -> http::awaitable<void> {
    co_await answer(call, R"("delta":{"content":"a "})");
  });
  RETURN_IF_ERROR(server->start());
  return server;
}

}  // namespace cachalot
