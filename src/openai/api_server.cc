#include "openai/api_server.h"

#include "openai/api_error.h"
#include "openai/api_handlers.h"

namespace cachalot::openai {

namespace {

constexpr std::string_view kModelsPath = "/v1/models/";

std::string_view kind_of(int status) {
  return status >= 500 ? "server_error" : "invalid_request_error";
}

}  // namespace

ApiServer::ApiServer(GenerationService& service, const Tokenizer& tokenizer, const ChatTemplate* chat_template,
                     const http::IoThreads& io_threads, ApiServerOptions options)
    : handlers_(std::make_unique<ApiHandlers>(service, tokenizer, chat_template, io_threads, std::move(options))) {}

ApiServer::~ApiServer() = default;

void ApiServer::set_metrics(std::function<std::string()> render) {
  handlers_->render_metrics = std::move(render);
}

void ApiServer::set_state(std::function<std::string()> render) {
  handlers_->render_state = std::move(render);
}

void ApiServer::open(LoadedModel model) {
  handlers_->open(std::move(model));
}

void ApiServer::register_routes(http::Server& server) {
  using Run = std::function<void(const http::Request&, const http::Responder&)>;
  ApiHandlers* handlers = handlers_.get();
  const auto on_worker = [&](const char* path, const Run& run) {
    server.route("POST", path, [handlers, run](http::Request request, http::Responder responder) {
      handlers->workers().post([run, request = std::move(request), responder = std::move(responder)] {
        if (!responder.closed()) run(request, responder);
      });
    });
  };
  const auto at_once = [&](const char* method, const char* path,
                           const std::function<http::Response(const http::Request&)>& answer) {
    server.route(method, path, [answer](const http::Request& request, const http::Responder& responder) {
      responder.respond(answer(request));
    });
  };
  on_worker("/v1/completions",
            [=](const auto& request, const auto& responder) { handlers->complete(request, responder); });
  on_worker("/v1/chat/completions",
            [=](const auto& request, const auto& responder) { handlers->chat(request, responder); });
  on_worker("/tokenize",
            [=](const auto& request, const auto& responder) { responder.respond(handlers->tokenize(request)); });
  on_worker("/detokenize",
            [=](const auto& request, const auto& responder) { responder.respond(handlers->detokenize(request)); });
  at_once("GET", "/v1/models", [=](const auto&) { return handlers->models(); });
  at_once("GET", "/v1/models/*", [=](const auto& request) {
    return handlers->model(std::string_view(request.path).substr(kModelsPath.size()));
  });
  for (const auto& [method, path] :
       {std::pair("GET", "/health"), std::pair("GET", "/ping"), std::pair("POST", "/ping")})
    at_once(method, path, [=](const auto&) { return handlers->health(); });
  at_once("GET", "/live", [](const auto&) { return http::Response{200, {}, {}}; });
  if (handlers_->render_state)
    at_once("GET", "/state", [=](const auto&) { return http::Response::json(200, handlers_->render_state()); });
  at_once("GET", "/load", [=](const auto&) { return handlers->load(); });
  at_once("GET", "/version", [=](const auto&) { return handlers->version(); });
  if (handlers->render_metrics)
    at_once("GET", "/metrics", [=](const auto&) {
      return http::Response{
          200, {{"Content-Type", "text/plain; version=0.0.4; charset=utf-8"}}, handlers->render_metrics()};
    });
  server.set_head_check([=](const http::Request& head) { return handlers->check_head(head); });
  server.set_error_format([](int status, std::string_view message) {
    return ApiError(status, std::string(message), std::string(kind_of(status))).to_response();
  });
}

}  // namespace cachalot::openai
