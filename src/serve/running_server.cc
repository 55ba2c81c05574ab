#include "serve/running_server.h"

#include <fmt/format.h>

#include "base/log.h"
#include "config/version.h"
#include "http/io_threads.h"
#include "http/server.h"
#include "openai/api_server.h"
#include "scheduler/make_options.h"
#include "serve/load_progress.h"
#include "serve/metrics.h"
#include "serve/rank_info.h"
#include "serve/rank_metrics.h"
#include "serve/replica.h"
#include "text/chat_template.h"
#include "text/generation_config.h"
#include "text/tokenizer.h"

namespace cachalot {
namespace {

Result<std::unique_ptr<ChatTemplate>> load_template(const std::string& folder) {
  auto chat_template = ChatTemplate::load(folder);
  if (chat_template || chat_template.error().code != ErrorCode::kNotFound) return chat_template;
  log::warn("{}: no chat template; /v1/chat/completions is refused", folder);
  return std::unique_ptr<ChatTemplate>();
}

}  // namespace

// In the order in which they may be taken down again: the last member goes first.
struct RunningServer::Parts {
  std::unique_ptr<RankGroup> group;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;
  GenerationConfig generation_config;
  std::unique_ptr<Metrics> metrics;
  std::unique_ptr<Replica> replica;
  std::unique_ptr<http::IoThreads> io_threads;  // may abort requests until they are joined
  std::unique_ptr<openai::ApiServer> api;       // its workers may submit until they are joined
  std::unique_ptr<http::Server> http;
};

RankGroupOptions group_options(const ServeOptions& options) {
  return {.engine = options.engine,
          .parallel = options.parallel,
          .starts = options.starts,
          .command_line = options.command_line,
          .load_lines = options.load_lines};
}

RunningServer::RunningServer(const ServeOptions& options) : options_(options), parts_(std::make_unique<Parts>()) {}

RunningServer::~RunningServer() = default;

Result<std::unique_ptr<RunningServer>> RunningServer::start(const ServeOptions& options, FailureHandler on_failure) {
  std::unique_ptr<RunningServer> server(new RunningServer(options));
  const Status started = server->start_parts(std::move(on_failure));
  if (started) return server;
  RankGroup* group = server->parts_->group.get();
  return std::unexpected(group ? group->give_up(started.error()) : started.error());
}

Status RunningServer::start_parts(FailureHandler on_failure) {
  const std::string& folder = options_.engine.model;
  ASSIGN_OR_RETURN(const ModelConfig config, load_model_config(folder));
  ASSIGN_OR_RETURN(parts_->tokenizer, Tokenizer::load(folder, config.vocab_size));
  ASSIGN_OR_RETURN(parts_->chat_template, load_template(folder));
  ASSIGN_OR_RETURN(parts_->generation_config, load_generation_config(folder, config.vocab_size));
  if (options_.parallel.group_rank() == 0)
    for (const auto& notes : {config.notes, parts_->tokenizer->notes(), parts_->generation_config.notes})
      for (const std::string& note : notes) log::warn("{}", note);
  // Children are started before this process has threads.
  ASSIGN_OR_RETURN(parts_->group, RankGroup::join(group_options(options_)));
  LoadProgress progress;
  const auto on_progress = [&, show = progress.callback()](size_t num_done, size_t num_total) {
    show(num_done, num_total);
    parts_->group->set_loaded(num_done, num_total);
  };
  ASSIGN_OR_RETURN(std::unique_ptr<RankEngine> engine,
                   RankEngine::create(options_.engine, parts_->group->placement(), on_progress));
  RETURN_IF_ERROR(parts_->group->wait_until_all_ready());
  return serve_api(std::move(engine), std::move(on_failure));
}

Status RunningServer::serve_api(std::unique_ptr<RankEngine> engine, FailureHandler on_failure) {
  const std::string& folder = options_.engine.model;
  const std::vector<std::string> names =
      options_.served_model_names.empty() ? std::vector{folder} : options_.served_model_names;
  const MemoryPlan& memory = engine->memory();
  const ModelConfig& config = engine->config();
  openai::ApiServerOptions api_options{.served_model_names = names,
                                       .model_path = folder,
                                       .api_keys = options_.api_keys,
                                       .version = kVersion,
                                       .max_model_len = memory.max_model_len,
                                       .vocab_size = config.vocab_size,
                                       .generation_config = parts_->generation_config,
                                       .eos_token_ids = {config.eos_token_ids.begin(), config.eos_token_ids.end()},
                                       .seed = options_.engine.seed,
                                       .reasoning = options_.reasoning};
  log::info("{}: {} layers, {} threads of {}, context of {} tokens", folder, config.num_layers, engine->num_threads(),
            isa_name(engine->isa()), memory.max_model_len);

  parts_->metrics = std::make_unique<Metrics>(names.front());
  const SchedulerOptions scheduler = make_scheduler_options(options_.engine, memory.num_blocks, memory.max_model_len);
  parts_->replica = std::make_unique<Replica>(std::move(engine), scheduler, *parts_->metrics,
                                              [group = parts_->group.get(), on_failure = std::move(on_failure)](
                                                  const Error& error) { on_failure(group->give_up(error)); });
  parts_->io_threads = std::make_unique<http::IoThreads>(options_.io_threads);
  parts_->api = std::make_unique<openai::ApiServer>(*parts_->replica, *parts_->tokenizer, parts_->chat_template.get(),
                                                    *parts_->io_threads, api_options);
  parts_->api->set_metrics([this] { return render_metrics(); });
  parts_->http = std::make_unique<http::Server>(*parts_->io_threads,
                                                http::ServerOptions{.host = options_.host, .port = options_.port});
  parts_->api->register_routes(*parts_->http);
  RETURN_IF_ERROR(parts_->http->start());
  log::info("ready: {}, model {}", url(), names.front());
  return {};
}

std::string RunningServer::url() const {
  return fmt::format("http://{}:{}/v1", options_.host, parts_->http->port());
}

std::string RunningServer::render_metrics() const {
  const RankReport own = parts_->replica->report();
  parts_->group->publish(own);
  std::vector<RankReport> reports = parts_->group->reports();
  if (reports.empty()) reports.push_back(own);
  return parts_->metrics->render(parts_->replica->stats(), parts_->replica->healthy()) + render_rank_reports(reports) +
         render_rank_info(reports, parts_->group->members());
}

void RunningServer::stop(Deadline deadline) {
  parts_->replica->drain(deadline);
  parts_->http->drain(std::chrono::milliseconds(2000));
  parts_->replica->leave(deadline);
  parts_->group->leave();
}

void RunningServer::end_answers() {
  parts_->replica->drain(std::chrono::steady_clock::now());
}

}  // namespace cachalot
