#include "serve/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <boost/json.hpp>
#include <cmath>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "base/ports.h"
#include "base/progress.h"
#include "base/stop_signals.h"
#include "base/text.h"
#include "config/version.h"
#include "http/io_threads.h"
#include "http/server.h"
#include "openai/api_server.h"
#include "page/feed.h"
#include "scheduler/scheduler.h"
#include "serve/metrics.h"
#include "serve/parent.h"
#include "serve/rank_reports.h"
#include "serve/replica.h"
#include "text/chat_template.h"
#include "text/folder_config.h"
#include "text/tokenizer.h"
#include "weights/model_files.h"

namespace cachalot {

namespace {

constexpr int kOtherFiles = 256;  // beside the clients' connections: ranks, logs, UCX
constexpr std::chrono::seconds kStatsInterval{10};

std::map<std::string, std::string> cache_config(const EngineOptions& options, const MemoryPlan& memory) {
  return {{"block_size", std::to_string(memory.block_size)},
          {"num_gpu_blocks", std::to_string(memory.num_blocks)},
          {"cache_dtype", options.dtype == DTypeOption::kFloat32 ? "float32" : "auto"},
          {"enable_prefix_caching", options.enable_prefix_caching ? "True" : "False"},
          {"gpu_memory_utilization", fmt::format("{}", options.gpu_memory_utilization)}};
}

// What decides an answer's bits, in a word: equal where that is.
std::string system_fingerprint(const ServeOptions& options, IsaLevel isa) {
  std::string all = fmt::format("{} {}", options.engine.model, isa_name(isa));
  for (const auto& [flag, value] : group_settings(options.engine, options.parallel))
    all += fmt::format(" {}={}", flag, value);
  return fmt::format("cachalot-{}-{:08x}", kVersion, std::hash<std::string>()(all) & 0xffffffff);
}

// The same in full, of all servers whose answers have the same bits, however many replicas their groups have.
Result<std::string> bits_fingerprint(const ServeOptions& options, IsaLevel isa) {
  constexpr std::string_view kDecide = "--tensor-parallel-size --enable-expert-parallel --dtype --activation-dtype";
  ASSIGN_OR_RETURN(const ModelFiles files, ModelFiles::open(options.engine.model));
  ASSIGN_OR_RETURN(const std::string model, files.fingerprint());
  std::string all = fmt::format("{} {}", model.substr(0, 32), isa_name(isa));
  for (const auto& [flag, value] : group_settings(options.engine, options.parallel))
    if (has_word(kDecide, flag)) all += ' ' + value;
  std::ranges::replace(all, ' ', '-');
  return fmt::format("{}-{}", kVersion, all);
}

QueueLimits queue_limits(const ServiceOptions& service, int max_model_len) {
  constexpr int64_t kSequences = 16;
  return {.max_requests = service.max_num_queued_reqs,
          .max_tokens = service.max_num_queued_tokens > 0 ? service.max_num_queued_tokens : kSequences * max_model_len};
}

// One line of rates in each interval that had any.
void log_stats(const std::stop_token& stopped, const Replica& replica) {
  StatsLine line(std::chrono::steady_clock::now(), replica.stats());
  std::mutex mutex;
  std::condition_variable_any changed;
  std::unique_lock lock(mutex);
  for (;;) {
    changed.wait_for(lock, stopped, kStatsInterval, [] { return false; });
    if (stopped.stop_requested()) return;
    if (const auto text = line.next(std::chrono::steady_clock::now(), replica.stats())) log::info("{}", *text);
  }
}

Result<std::unique_ptr<ChatTemplate>> load_template(const std::string& folder, const TextOptions& options) {
  if (!options.chat_template.empty()) return ChatTemplate::from_file_or_text(options.chat_template, folder);
  auto chat_template = ChatTemplate::load(folder);
  if (chat_template || chat_template.error().code != ErrorCode::kNotFound) return chat_template;
  log::warn("{}: no chat template; /v1/chat/completions is refused", folder);
  return std::unique_ptr<ChatTemplate>();
}

// The replica, as soon as there is one.
class LateService : public GenerationService {
 public:
  void set(Replica& replica) { replica_.store(&replica, std::memory_order_release); }
  Replica* get() const { return replica_.load(std::memory_order_acquire); }

  RequestId next_id() override { return get()->next_id(); }  // of an open API
  Status submit(Request request, Listener listener) override {
    return get()->submit(std::move(request), std::move(listener));
  }
  void abort(RequestId id) override { get()->abort(id); }
  ReplicaStats stats() const override { return get() ? get()->stats() : ReplicaStats{}; }
  bool healthy() const override { return get() && get()->healthy(); }

 private:
  std::atomic<Replica*> replica_{nullptr};
};

Result<GenerationConfig> load_sampling_defaults(const std::string& model_folder, int vocab_size,
                                                const TextOptions& options) {
  ASSIGN_OR_RETURN(GenerationConfig config, load_generation_config(model_folder, vocab_size));
  if (options.generation_config == "vllm") {
    // Where answers end is no matter of sampling.
    config = GenerationConfig{.eos_token_ids = std::move(config.eos_token_ids)};
  } else if (options.generation_config != "auto") {
    if (!std::filesystem::is_regular_file(options.generation_config + "/generation_config.json"))
      return make_parameter_error(
          "--generation-config", "--generation-config {}: must be auto, vllm or a folder with a generation_config.json",
          cachalot::quoted(options.generation_config));
    ASSIGN_OR_RETURN(config, load_generation_config(options.generation_config, vocab_size));
  }
  if (!options.override_generation_config.empty())
    RETURN_IF_ERROR(override_generation_config(options.override_generation_config, "--override-generation-config",
                                               vocab_size, config));
  return config;
}

}  // namespace

// In the order in which they may be taken down again: the last member goes first.
struct RunningServer::Parts {
  explicit Parts(const ServeOptions& given) : options(given) {}

  Status start(FailureHandler on_failure) {
    const std::string& folder = options.engine.model;
    // A port that is taken is known before anything is loaded.
    io_threads = std::make_unique<http::IoThreads>(options.io_threads);
    ASSIGN_OR_RETURN(tracer,
                     telemetry::Tracer::create(options.traces, "cachalot-server",
                                               {{"cachalot.replica", int64_t{options.parallel.data_parallel_rank}}}));
    http::ServerOptions http_options{.host = options.host,
                                     .port = options.port,
                                     .max_body_bytes_in_flight = options.max_body_bytes_in_flight,
                                     .idle_timeout = std::chrono::seconds(options.idle_timeout_seconds),
                                     .door = options.door};
    ASSIGN_OR_RETURN(keys, openai::ApiKeys::open(options.api_keys, options.door.api_key_file));
    http_options.max_connections = std::min(http_options.max_connections, http::raise_file_limit() - kOtherFiles);
    http = std::make_unique<http::Server>(*io_threads, std::move(http_options));
    RETURN_IF_ERROR(http->listen());
    const TextOptions& text = options.text;
    const std::string& texts = text.tokenizer.empty() ? folder : text.tokenizer;
    ASSIGN_OR_RETURN(const ModelConfig config, load_model_config(folder));
    ASSIGN_OR_RETURN(tokenizer, Tokenizer::load(texts, config.vocab_size));
    ASSIGN_OR_RETURN(chat_template, load_template(texts, text));
    ASSIGN_OR_RETURN(generation_config, load_sampling_defaults(folder, config.vocab_size, text));
    if (options.parallel.group_rank() == 0)
      for (const auto& notes : {config.notes, tokenizer->notes(), generation_config.notes})
        for (const std::string& note : notes) log::warn("{}", note);
    ASSIGN_OR_RETURN(group, RankGroup::start(group_options(options)));
    RETURN_IF_ERROR(answer_probes());
    RETURN_IF_ERROR(group->form());
    ASSIGN_OR_RETURN(std::unique_ptr<RankEngine> engine, load());
    RETURN_IF_ERROR(group->meet(*engine));
    if (options.stop.stop_requested())
      return make_error(ErrorCode::kCancelled, "{} came before it served", signal_name(received_stop_signal()));
    serve_api(std::move(engine), std::move(on_failure));
    return {};
  }

  // The API, of which only probes are answered as yet.
  Status answer_probes() {
    const std::string& folder = options.engine.model;
    openai::ApiServerOptions api_options{
        .served_model_names = options.served_model_names.empty() ? std::vector{folder} : options.served_model_names,
        .model_path = folder,
        .keys = keys,
        .version = kVersion,
        .generation_config = generation_config,
        .seed = options.engine.seed,
        .reasoning = options.reasoning,
        .log_requests = options.service.log_requests};
    api_options.tool_call_parser = options.text.tool_call_parser;
    api_options.special_tokens_in_messages = options.text.special_tokens_in_messages;
    api_options.exclude_unusable_tools = options.text.exclude_unusable_tools;
    api_options.force_include_usage = options.text.force_include_usage;
    api_options.tokens_as_ids = options.text.tokens_as_ids;
    api_options.limits.trusts_chat_template = options.text.trust_request_chat_template;
    const int silence = options.service.sse_keep_alive_seconds;
    api_options.keep_alive = silence > 0 ? std::chrono::seconds(silence) : std::chrono::years(1);
    api_options.limits.max_logprobs = options.service.max_logprobs;
    api_options.max_stored_response_bytes = options.service.max_stored_response_bytes;
    if (const std::string& kwargs = options.text.default_template_kwargs; !kwargs.empty()) {
      boost::system::error_code error;
      const boost::json::value value = boost::json::parse(kwargs, error);
      if (error || !value.is_object())
        return make_parameter_error("--default-chat-template-kwargs",
                                    "--default-chat-template-kwargs {}: must be a JSON object",
                                    cachalot::quoted(kwargs));
      api_options.default_template_kwargs = value.get_object();
    }
    api = std::make_unique<openai::ApiServer>(service, *tokenizer, chat_template.get(), std::move(api_options));
    api->set_metrics([this] { return render_metrics(); });
    api->set_state([this] { return render_state(); });
    api->set_tracer(tracer.get());
    api->set_observer([this](const http::ServedRequest& served) {
      if (service.get()) metrics->observe_http(std::string(served.method), served.route, served.status, served.seconds);
    });
    api->set_expert_load([this] { return group->expert_load(); });
    api->register_routes(*http);
    feed = std::make_unique<page::Feed>(
        page::ClusterHistory::Names{.kind = "server", .version = kVersion, .model = model_name()});
    feed->register_routes(*http);
    RETURN_IF_ERROR(http->start());
    feed->start([this] { return look(); });
    return {};
  }

  Result<std::unique_ptr<RankEngine>> load() {
    ProgressBar bar("loading");
    const auto on_progress = [&](size_t num_done, size_t num_total) {
      bar.update(num_done, num_total);
      group->set_loaded(num_done, num_total);
    };
    ASSIGN_OR_RETURN(std::unique_ptr<RankEngine> engine,
                     RankEngine::create(options.engine, group->placement(), on_progress));
    group->publish(engine->report());
    return engine;
  }

  void serve_api(std::unique_ptr<RankEngine> engine, FailureHandler on_failure) {
    const std::string& folder = options.engine.model;
    const std::string name = model_name();
    const MemoryPlan memory = engine->memory();
    const ModelConfig& config = engine->config();
    openai::LoadedModel model{.max_model_len = memory.max_model_len,
                              .vocab_size = config.vocab_size,
                              .eos_token_ids = {config.eos_token_ids.begin(), config.eos_token_ids.end()},
                              .system_fingerprint = system_fingerprint(options, engine->isa()),
                              .bits_fingerprint = bits_fingerprint(options, engine->isa()).value_or("")};
    log::info("{}: {} layers, {} threads of {}, context of {} tokens", folder, config.num_layers, engine->num_threads(),
              isa_name(engine->isa()), memory.max_model_len);

    metrics = std::make_unique<Metrics>(MetricsOptions{.model_name = name,
                                                       .engine = engine->placement().parallel.data_parallel_rank,
                                                       .max_model_len = memory.max_model_len,
                                                       .cache_config = cache_config(options.engine, memory)});
    const QueueLimits queue = queue_limits(options.service, memory.max_model_len);
    const SchedulerOptions scheduler = make_scheduler_options(options.engine, memory.num_blocks, memory.max_model_len);
    replica = std::make_unique<Replica>(
        std::move(engine), scheduler, *metrics,
        [group = group.get(), on_failure = std::move(on_failure)](const Error& error) {
          on_failure(group->give_up(error));
        },
        queue, group->epochs());
    service.set(*replica);
    api->open(std::move(model));
    if (options.service.log_stats)
      stats_log =
          std::jthread([replica = replica.get()](const std::stop_token& stopped) { log_stats(stopped, *replica); });
  }

  std::string render_metrics() const {
    const std::vector<RankReport> reports = group->reports(replica->report());
    return metrics->render(replica->stats(), replica->healthy()) + render_rank_reports(reports) +
           render_rank_info(reports, group->members()) + render_process_metrics() +
           fmt::format(
               "# HELP cachalot:group_epoch Of the group; grows when it loses a rank and goes on\n"
               "# TYPE cachalot:group_epoch gauge\ncachalot:group_epoch {}\n",
               group->epoch()) +
           (tracer ? tracer->render_metrics() : "");
  }

  std::string render_state() const {
    ServerState state{
        .phase = group->phase(), .failure = group->failure(), .epoch = group->epoch(), .ranks = group->states()};
    const Replica* const serving = service.get();
    if (serving && serving->stats().is_healing) state.is_healing = true;
    // All ranks are ready a moment before this one takes requests.
    if (!serving && state.phase == RankPhase::kReady) state.phase = RankPhase::kLoading;
    if (serving) {
      const ReplicaStats stats = serving->stats();
      state.num_running = stats.num_running;
      state.num_waiting = stats.num_waiting;
      state.kv_usage_percent = static_cast<int>(std::lround(100 * std::clamp(stats.kv_usage, 0.0, 1.0)));
      state.counts = metrics->counts(stats);
      // Of this rank the newest is with its replica; the others write theirs after each round.
      for (StateOfRank& rank : state.ranks)
        if (rank.report && rank.rank == group->parallel().group_rank()) rank.report = serving->report();
    }
    return to_json(state);
  }

  // As its own /state tells it, so that the page shows the same behind a router.
  page::ClusterView look() const {
    auto server = page::parse_server_view(render_state());
    page::ClusterView cluster{.phase = std::string(name_of(group->phase())), .members = {{}}};
    page::MemberView& own = cluster.members.front();
    const Replica* const serving = service.get();
    own.state = cluster.phase == name_of(RankPhase::kFailed) ? "down" : serving ? "up" : "starting";
    if (server) own.server = std::move(*server);
    return cluster;
  }

  std::string model_name() const {
    return options.served_model_names.empty() ? options.engine.model : options.served_model_names.front();
  }

  const ServeOptions options;
  std::unique_ptr<RankGroup> group;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;
  GenerationConfig generation_config;
  std::unique_ptr<Metrics> metrics;
  std::unique_ptr<Replica> replica;
  LateService service;
  std::unique_ptr<telemetry::Tracer> tracer;
  std::shared_ptr<const openai::ApiKeys> keys;
  std::unique_ptr<openai::ApiServer> api;
  std::unique_ptr<page::Feed> feed;
  std::unique_ptr<http::IoThreads> io_threads;  // may use the API's workers, submit and abort until they are joined
  std::unique_ptr<http::Server> http;
  std::jthread stats_log;
};

RankGroupOptions group_options(const ServeOptions& options) {
  return {.engine = options.engine,
          .parallel = options.parallel,
          .starts = options.starts,
          .command_line = options.command_line,
          .stop = options.stop,
          .patience = options.end_time()};
}

RunningServer::RunningServer(const ServeOptions& options) : parts_(std::make_unique<Parts>(options)) {}

RunningServer::~RunningServer() = default;

Result<std::unique_ptr<RunningServer>> RunningServer::start(const ServeOptions& options, FailureHandler on_failure) {
  std::unique_ptr<RunningServer> server(new RunningServer(options));
  const Status started = server->parts_->start(std::move(on_failure));
  if (started) return server;
  RankGroup* group = server->parts_->group.get();
  return std::unexpected(group ? group->give_up(started.error()) : started.error());
}

std::string RunningServer::model_name() const {
  return parts_->model_name();
}

std::string RunningServer::url() const {
  return parts_->http->url() + (parts_->options.door.uds.empty() ? "/v1" : "");
}

void RunningServer::stop(Deadline deadline) {
  if (!parts_->group->failure()) parts_->group->set_draining();
  parts_->replica->drain(deadline);
  parts_->feed->end();
  parts_->http->drain(std::chrono::milliseconds(2000));
  parts_->replica->leave(deadline);
  parts_->group->leave();
}

void RunningServer::end_answers() {
  parts_->replica->drain(std::chrono::steady_clock::now());
}

namespace {

// A second signal ends what still runs.
void stop(RunningServer& server, StopSignals& signals, std::chrono::seconds patience) {
  std::jthread waiter([&](const std::stop_token& stopped) {
    while (!stopped.stop_requested()) {
      if (signals.wait_for(std::chrono::milliseconds(200)) == 0) continue;
      log::warn("second signal: the running answers are ended");
      server.end_answers();
      return;
    }
  });
  server.stop(std::chrono::steady_clock::now() + patience);
}

}  // namespace

Status run_server(const ServeOptions& options) {
  const ParallelOptions& parallel = options.parallel;
  if (parallel.fault_tolerance && !parallel.has_agent() && parallel.group_size() > 1) return run_parent(options);
  if (parallel.has_agent() ? !parallel.is_leader() : parallel.rank_board_fd >= 0)
    return run_started_rank(group_options(options));
  std::mutex mutex;
  std::optional<Error> failure;  // of a round; guarded by the mutex
  std::stop_source failed;
  ASSIGN_OR_RETURN(const auto server, RunningServer::start(options, [&](const Error& error) {
                     if (options.parallel.wait_on_failure) return;
                     {
                       const std::lock_guard lock(mutex);
                       failure = error;
                     }
                     failed.request_stop();
                   }));
  StopSignals signals(options.end_time());
  // From here on a signal is this function's: whoever reads the line may send one.
  log::info("ready: {}, model {}", server->url(), server->model_name());
  const std::stop_callback wake(failed.get_token(), [&] { signals.wake(); });
  const int signal = signals.wait();
  if (signal != 0) log::info("{}: no new requests; running ones have {} s", signal_name(signal), options.drain_seconds);
  stop(*server, signals, std::chrono::seconds(options.drain_seconds));
  const std::lock_guard lock(mutex);
  if (failure) return std::unexpected(*failure);
  log::info("stopped");
  return {};
}

}  // namespace cachalot
