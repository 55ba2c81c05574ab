#include "serve/server.h"

#include <pthread.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "base/log.h"
#include "config/version.h"
#include "http/io_threads.h"
#include "http/server.h"
#include "openai/api_server.h"
#include "scheduler/make_options.h"
#include "serve/load_progress.h"
#include "serve/metrics.h"
#include "serve/rank_group.h"
#include "serve/rank_metrics.h"
#include "serve/replica.h"
#include "text/chat_template.h"
#include "text/generation_config.h"
#include "text/tokenizer.h"

namespace cachalot {
namespace {

// SIGTERM and SIGINT are waited for, not handled: blocked here before any thread starts, so that all inherit it.
class StopSignals {
 public:
  StopSignals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
  }
  ~StopSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

  int wait() const {
    int signal = 0;
    sigwait(&set_, &signal);
    return signal;
  }
  bool arrived_within(std::chrono::milliseconds time) const {
    const timespec timeout{.tv_sec = time.count() / 1000, .tv_nsec = time.count() % 1000 * 1'000'000};
    return sigtimedwait(&set_, nullptr, &timeout) > 0;
  }

 private:
  sigset_t set_, before_;
};

Result<std::unique_ptr<ChatTemplate>> load_template(const std::string& folder) {
  auto chat_template = ChatTemplate::load(folder);
  if (chat_template || chat_template.error().code != ErrorCode::kNotFound) return chat_template;
  log::warn("{}: no chat template; /v1/chat/completions is refused", folder);
  return std::unique_ptr<ChatTemplate>();
}

// Everything of a running server, in the order in which it may be taken down again: the last member goes first.
struct Service {
  std::unique_ptr<RankGroup> group;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;
  std::unique_ptr<Metrics> metrics;
  std::unique_ptr<Replica> replica;
  std::unique_ptr<http::IoThreads> io_threads;  // may abort requests until they are joined
  std::unique_ptr<openai::ApiServer> api;       // its workers may submit until they are joined
  std::unique_ptr<http::Server> http;
};

RankGroupOptions group_options(const ServeOptions& options) {
  return {.engine = options.engine,
          .parallel = options.parallel,
          .starts = Starts::kReplica,
          .command_line = options.command_line};
}

std::string render_metrics(const Service& service) {
  const RankReport own = service.replica->report();
  service.group->publish(own);
  std::vector<RankReport> reports = service.group->reports();
  if (reports.empty()) reports.push_back(own);
  return service.metrics->render(service.replica->stats(), service.replica->healthy()) + render_rank_reports(reports);
}

Status start(const ServeOptions& options, Service& service, Replica::FailureHandler on_failure) {
  const std::string& folder = options.engine.model;
  ASSIGN_OR_RETURN(service.tokenizer, Tokenizer::load(folder));
  ASSIGN_OR_RETURN(service.chat_template, load_template(folder));
  ASSIGN_OR_RETURN(const GenerationConfig generation_config, load_generation_config(folder));
  // Children are started before this process has threads.
  ASSIGN_OR_RETURN(service.group, RankGroup::join(group_options(options)));
  LoadProgress progress;
  const auto on_progress = [&, show = progress.callback()](size_t num_done, size_t num_total) {
    show(num_done, num_total);
    service.group->set_loaded(num_done, num_total);
  };
  ASSIGN_OR_RETURN(std::unique_ptr<RankEngine> engine,
                   RankEngine::create(options.engine, service.group->placement(), on_progress));
  RETURN_IF_ERROR(service.group->wait_until_all_ready());

  const std::vector<std::string> names =
      options.served_model_names.empty() ? std::vector{folder} : options.served_model_names;
  const MemoryPlan& memory = engine->memory();
  const ModelConfig& config = engine->config();
  openai::ApiServerOptions api_options{.served_model_names = names,
                                       .model_path = folder,
                                       .api_keys = options.api_keys,
                                       .version = kVersion,
                                       .max_model_len = memory.max_model_len,
                                       .vocab_size = config.vocab_size,
                                       .generation_config = generation_config,
                                       .eos_token_ids = {config.eos_token_ids.begin(), config.eos_token_ids.end()},
                                       .seed = options.engine.seed,
                                       .reasoning = options.reasoning};
  log::info("{}: {} layers, {} threads of {}, context of {} tokens", folder, config.num_layers, engine->num_threads(),
            isa_name(engine->isa()), memory.max_model_len);

  service.metrics = std::make_unique<Metrics>(names.front());
  const SchedulerOptions scheduler = make_scheduler_options(options.engine, memory.num_blocks, memory.max_model_len);
  service.replica = std::make_unique<Replica>(std::move(engine), scheduler, *service.metrics, std::move(on_failure));
  service.io_threads = std::make_unique<http::IoThreads>(options.io_threads);
  service.api = std::make_unique<openai::ApiServer>(*service.replica, *service.tokenizer, service.chat_template.get(),
                                                    *service.io_threads, api_options);
  service.api->set_metrics([&service] { return render_metrics(service); });
  service.http = std::make_unique<http::Server>(*service.io_threads,
                                                http::ServerOptions{.host = options.host, .port = options.port});
  service.api->register_routes(*service.http);
  RETURN_IF_ERROR(service.http->start());
  log::info("ready: http://{}:{}/v1, model {}", options.host, service.http->port(), names.front());
  return {};
}

void drain(const ServeOptions& options, const StopSignals& signals, Service& service) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(options.drain_seconds);
  std::jthread draining([&] {
    service.replica->drain(deadline);
    service.http->drain(std::chrono::milliseconds(2000));
  });
  std::jthread waiter([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      if (!signals.arrived_within(std::chrono::milliseconds(200))) continue;
      log::warn("second signal: the running answers are ended");
      service.replica->drain(std::chrono::steady_clock::now());
      return;
    }
  });
  draining.join();
}

}  // namespace

Status run_server(const ServeOptions& options) {
  if (options.parallel.rank_board_fd >= 0) return run_started_rank(group_options(options));
  const StopSignals signals;
  std::mutex mutex;
  std::optional<Error> failure;  // of a round; guarded by the mutex
  Service service;
  const Status started = start(options, service, [&](const Error& error) {
    const Error left_to_say = service.group->give_up(error);
    if (options.parallel.wait_on_failure) return;
    {
      const std::lock_guard lock(mutex);
      failure = left_to_say;
    }
    kill(getpid(), SIGTERM);  // as whoever stops this server would
  });
  if (!started) return service.group ? std::unexpected(service.group->give_up(started.error())) : started;
  const int signal = signals.wait();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(options.drain_seconds);
  const auto failed = [&] {
    const std::lock_guard lock(mutex);
    return failure;
  }();
  if (!failed) {
    log::info("{}: no new requests; running ones have {} s", signal == SIGTERM ? "SIGTERM" : "SIGINT",
              options.drain_seconds);
  }
  drain(options, signals, service);
  service.replica->leave(deadline);
  service.group->leave();
  if (failed) return std::unexpected(*failed);
  log::info("stopped");
  return {};
}

}  // namespace cachalot
