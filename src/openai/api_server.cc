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
                     ApiServerOptions options)
    : handlers_(std::make_unique<ApiHandlers>(service, tokenizer, chat_template, std::move(options))) {}

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
  ApiHandlers* handlers = handlers_.get();
  const auto at_once = [&](const char* method, const char* path, http::Server::Answerer answer) {
    server.route(method, path, std::move(answer));
  };
  server.route("POST", "/v1/completions", [=](http::ServerCall& call) { return handlers->complete(call); });
  server.route("POST", "/v1/chat/completions", [=](http::ServerCall& call) { return handlers->chat(call); });
  server.route("POST", "/tokenize", [=](http::ServerCall& call) { return handlers->tokenize(call); });
  server.route("POST", "/detokenize", [=](http::ServerCall& call) { return handlers->detokenize(call); });
  at_once("GET", "/v1/models", [=](const auto&) { return handlers->models(); });
  at_once("GET", "/v1/models/*", [=](const auto& request) {
    return handlers->model(std::string_view(request.path).substr(kModelsPath.size()));
  });
  for (const auto& [method, path] :
       {std::pair("GET", "/health"), std::pair("GET", "/ping"), std::pair("POST", "/ping")})
    at_once(method, path, [=](const auto&) { return handlers->health(); });
  at_once("GET", "/live", [](const auto&) { return http::Response{200, {}, {}}; });
  if (handlers->render_state)
    at_once("GET", "/state", [=](const auto&) { return http::Response::json(200, handlers->render_state()); });
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
