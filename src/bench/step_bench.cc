#include "bench/step_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <iterator>
#include <memory>
#include <numeric>
#include <random>

#include "base/math.h"
#include "comm/group.h"

namespace cachalot {

namespace {

const char* category(TraceSpan::Kind kind) {
  switch (kind) {
    case TraceSpan::Kind::kCompute:
      return "compute";
    case TraceSpan::Kind::kExchange:
      return "exchange";
    case TraceSpan::Kind::kWaiting:
      return "waiting";
  }
  return "";
}

double microseconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

void append_number(std::string& text, const char* key, int value) {
  if (value >= 0) fmt::format_to(std::back_inserter(text), "{}\"{}\":{}", text.back() == '{' ? "" : ",", key, value);
}

}  // namespace

// Names are words of this program, which need no escapes.
std::string chrome_events(int rank, const std::string& name, std::span<const TraceSpan> spans) {
  std::string text =
      fmt::format(R"({{"ph":"M","name":"thread_name","pid":0,"tid":{},"args":{{"name":"{}"}}}})", rank, name);
  for (const TraceSpan& span : spans) {
    fmt::format_to(std::back_inserter(text),
                   ",\n"
                   R"({{"ph":"X","name":"{}","cat":"{}","pid":0,"tid":{},"ts":{:.3f},"dur":{:.3f},"args":{{)",
                   span.name, category(span.kind), rank, microseconds(span.begin.time_since_epoch()),
                   microseconds(span.end - span.begin));
    append_number(text, "layer", span.layer);
    append_number(text, "rows", span.rows);
    append_number(text, "experts", span.experts);
    text += "}}";
  }
  return text;
}

std::string chrome_trace(std::span<const std::string> events_of_ranks) {
  std::string text = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  text += R"({"ph":"M","name":"process_name","pid":0,"args":{"name":"ranks"}})";
  for (const std::string& events : events_of_ranks) text += ",\n" + events;
  return text + "\n]}\n";
}

namespace {

using Clock = std::chrono::steady_clock;

int longest_batch(const StepBenchOptions& options) {
  return options.batches.empty() ? 0 : std::ranges::max(options.batches);
}

int sequence_length(const StepBenchOptions& options) {
  return options.batches.empty() ? 0 : options.context + options.steps;
}

// Runs the steps of one or more replicas' sequences on one engine: as a leader by a plan of its own, else by following.
class Player {
 public:
  Player(RankEngine& engine, const StepBenchOptions& options, int first_replica, int num_replicas)
      : engine_(engine), options_(options), num_replicas_(num_replicas) {
    const int block_size = engine.memory().block_size;
    length_ = std::max(sequence_length(options), options.prompt);
    blocks_of_sequence_ = ceil_div(length_, block_size);
    blocks_.resize(static_cast<size_t>(engine.memory().num_blocks));
    std::iota(blocks_.begin(), blocks_.end(), 0);
    for (int replica = first_replica; replica < first_replica + num_replicas; replica++) {
      std::mt19937_64 random(static_cast<uint64_t>(replica) + 1);
      std::vector<TokenId>& tokens =
          tokens_.emplace_back(static_cast<size_t>(std::max(longest_batch(options), 1) * length_));
      for (TokenId& token : tokens)
        token = static_cast<TokenId>(random() % static_cast<uint64_t>(engine.config().vocab_size));
    }
  }

  // of each replica
  Status fill_context(int sequence_idx) {
    const auto max_rows = static_cast<int>(engine_.model().settings().max_rows);
    const int piece = std::max(1, max_rows / num_replicas_);
    for (int position = 0; position < options_.context; position += piece) {
      const int count = std::min(piece, options_.context - position);
      for (int replica = 0; replica < num_replicas_; replica++)
        add(replica, sequence_idx, position, count, options_.context);
      RETURN_IF_ERROR(run());
    }
    return {};
  }

  Status prefill() {
    for (int replica = 0; replica < num_replicas_; replica++) add(replica, 0, 0, options_.prompt, options_.prompt);
    return run();
  }
  Status decode(int batch, int step_idx) {
    for (int sequence_idx = 0; sequence_idx < batch; sequence_idx++) {
      for (int replica = 0; replica < num_replicas_; replica++)
        add(replica, sequence_idx, options_.context + step_idx, 1, options_.context);
    }
    return run();
  }

 private:
  void add(int replica, int sequence_idx, int first_position, int num_tokens, int num_prompt_tokens) {
    const std::span<const TokenId> tokens(tokens_[static_cast<size_t>(replica)]);
    const int place = sequence_idx * num_replicas_ + replica;
    plan_.sequences.push_back(
        {.id = static_cast<RequestId>(place),
         .tokens = tokens.subspan(static_cast<size_t>(sequence_idx * length_),
                                  static_cast<size_t>(first_position + num_tokens)),
         .first_position = first_position,
         .num_tokens = num_tokens,
         .num_prompt_tokens = num_prompt_tokens,
         .blocks = std::span<const BlockId>(blocks_).subspan(static_cast<size_t>(place * blocks_of_sequence_),
                                                             static_cast<size_t>(blocks_of_sequence_)),
         .sample = true,
         .sampling = &sampling_});
  }

  Status run() {
    if (!engine_.placement().parallel.is_leader()) {
      ASSIGN_OR_RETURN(const Round* round, engine_.lockstep().next_round());
      return engine_.follow(*round);
    }
    RETURN_IF_ERROR(engine_.lockstep().agree({.num_rows = plan_.num_tokens()}));
    RETURN_IF_ERROR(engine_.run(plan_));
    plan_.sequences.clear();
    return {};
  }

  RankEngine& engine_;
  const StepBenchOptions& options_;
  const int num_replicas_;
  int length_ = 0, blocks_of_sequence_ = 0;
  SamplingParams sampling_{.temperature = 0, .max_tokens = 1 << 30};
  std::vector<BlockId> blocks_;               // of the cache, a run of them for each sequence
  std::vector<std::vector<TokenId>> tokens_;  // [replica]: random; a sequence's begin at its index times length_
  StepPlan plan_;
};

// What a rank tells rank 0 of a turn, with its ExpertWork behind.
struct TurnReport {
  double seconds, computing, exchanging;
};

class StepBench {
 public:
  StepBench(RankEngine& engine, RankEngine* alone, const StepBenchOptions& options, std::unique_ptr<Group> world)
      : engine_(engine),
        options_(options),
        world_(std::move(world)),
        player_(engine, options, engine.placement().parallel.data_parallel_rank, 1) {
    const ParallelOptions& parallel = engine.placement().parallel;
    if (alone) alone_.emplace(*alone, options, 0, parallel.group_size() / parallel.tensor_parallel_size);
  }

  ~StepBench() { engine_.set_trace(nullptr); }

  Result<std::vector<MoveFigure>> run_moves() {
    RETURN_IF_ERROR(fill_contexts());
    const int num_steps = options_.steps * options_.repeat;
    const auto tenth = std::max(num_steps / 10, 1);
    std::vector<MovedStep> steps;
    for (int step = 0; step < num_steps; step++) {
      if (step % tenth == 0) tell(fmt::format("step {} of {}", step, num_steps));
      const RankReport before = engine_.report();
      const Clock::time_point begin = Clock::now();
      RETURN_IF_ERROR(player_.decode(options_.batches.front(), step % options_.steps));
      const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
      const RankReport after = engine_.report();
      MovedStep& moved = steps.emplace_back(
          MovedStep{seconds, after.placement_switches, engine_.balancing()->is_moving(), after.layer_expert_rows});
      for (size_t layer = 0; layer < moved.rows.size(); layer++) moved.rows[layer] -= before.layer_expert_rows[layer];
    }
    const uint64_t last = steps.back().num_switches;
    std::vector<MoveFigure> figures;
    for (const auto& [name, is_of] :
         {std::pair<const char*, std::function<bool(const MovedStep&)>>{
              "before", [](const MovedStep& step) { return !step.moves && step.num_switches == 0; }},
          {"while copying", [](const MovedStep& step) { return step.moves; }},
          {"after", [&](const MovedStep& step) { return !step.moves && step.num_switches == last && last > 0; }}}) {
      ASSIGN_OR_RETURN(figures.emplace_back(), figure_of(name, steps, is_of));
    }
    return figures;
  }

  Result<StepBenchResult> run() {
    StepBenchResult result;
    if (options_.prompt > 0) {
      ASSIGN_OR_RETURN(StepFigure figure,
                       phase("prefill", options_.prompt, 1, [](Player& player) { return player.prefill(); }));
      result.figures.push_back(std::move(figure));
    }
    RETURN_IF_ERROR(fill_contexts());
    for (const int batch : options_.batches) {
      ASSIGN_OR_RETURN(StepFigure figure, phase("decode", batch, options_.steps, [&](Player& player) -> Status {
                         for (int step_idx = 0; step_idx < options_.steps; step_idx++)
                           RETURN_IF_ERROR(player.decode(batch, step_idx));
                         return {};
                       }));
      result.figures.push_back(std::move(figure));
    }
    const ParallelOptions& parallel = engine_.placement().parallel;
    const std::string events = chrome_events(parallel.group_rank(),
                                             fmt::format("rank {} (replica {}, tp {})", parallel.group_rank(),
                                                         parallel.data_parallel_rank, parallel.tensor_parallel_rank),
                                             noted_);
    ASSIGN_OR_RETURN(const auto all, gather(std::as_bytes(std::span(events))));
    for (const std::vector<std::byte>& bytes : all)
      result.events.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return result;
  }

 private:
  using Steps = std::function<Status(Player&)>;
  struct MovedStep {
    double seconds;
    uint64_t num_switches;
    bool moves;
    std::array<uint64_t, 128> rows;  // by layer, of this rank's experts
  };

  // The same steps on all ranks.
  Result<MoveFigure> figure_of(const char* name, const std::vector<MovedStep>& steps,
                               const std::function<bool(const MovedStep&)>& is_of) {
    constexpr int kFirst = 8;  // steps that touch memory for the first time do not count
    std::array<uint64_t, 128> rows{};
    std::vector<double> milliseconds;
    for (size_t idx = kFirst; idx < steps.size(); idx++) {
      if (!is_of(steps[idx])) continue;
      milliseconds.push_back(steps[idx].seconds * 1e3);
      for (size_t layer = 0; layer < rows.size(); layer++) rows[layer] += steps[idx].rows[layer];
    }
    ASSIGN_OR_RETURN(const auto all, gather(std::as_bytes(std::span(rows))));
    MoveFigure figure{.name = name, .num_steps = static_cast<int>(milliseconds.size())};
    if (!is_first() || milliseconds.empty()) return figure;
    std::ranges::sort(milliseconds);
    figure.median_ms = milliseconds[milliseconds.size() / 2];
    figure.p90_ms = milliseconds[milliseconds.size() * 9 / 10];
    double busiest = 0, sum = 0;
    for (size_t layer = 0; layer < rows.size(); layer++) {
      uint64_t most = 0;
      for (const std::vector<std::byte>& bytes : all) {
        uint64_t of_rank = 0;
        std::memcpy(&of_rank, bytes.data() + layer * sizeof of_rank, sizeof of_rank);
        most = std::max(most, of_rank);
        sum += static_cast<double>(of_rank);
      }
      busiest += static_cast<double>(most);
    }
    figure.busiest_over_mean = sum > 0 ? busiest * static_cast<double>(all.size()) / sum : 1;
    return figure;
  }

  // One sequence after the other, so that nobody waits for long.
  Status fill_contexts() {
    for (int sequence_idx = 0; sequence_idx < longest_batch(options_); sequence_idx++) {
      tell(fmt::format("context {} of {}", sequence_idx + 1, longest_batch(options_)));
      if (alone_) RETURN_IF_ERROR(alone_->fill_context(sequence_idx));
      RETURN_IF_ERROR(meet());
      RETURN_IF_ERROR(player_.fill_context(sequence_idx));
    }
    return {};
  }

  // `steps`: what a player does in a turn.
  Result<StepFigure> phase(const char* name, int batch, int num_steps, const Steps& steps) {
    std::vector<StepTurn> turns;
    // The first turn touches memory for the first time, and does not count.
    for (int turn_idx = 0; turn_idx <= options_.repeat; turn_idx++) {
      tell(fmt::format("{}, batch {}, {}", name, batch,
                       turn_idx == 0 ? "warming up" : fmt::format("{} of {}", turn_idx, options_.repeat)));
      ASSIGN_OR_RETURN(StepTurn turn, this->turn(num_steps, steps));
      if (turn_idx > 0) turns.push_back(std::move(turn));
    }
    noted_.insert(noted_.end(), trace_.spans().begin(), trace_.spans().end());
    return is_first() ? summarize(name, batch, turns) : StepFigure{};
  }

  Result<StepTurn> turn(int num_steps, const Steps& steps) {
    StepTurn turn{.num_steps = num_steps, .ranks = {}};
    if (alone_) {
      const Clock::time_point begin = Clock::now();
      RETURN_IF_ERROR(steps(*alone_));
      turn.alone_seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    }
    ASSIGN_OR_RETURN(const RankTurn own, own_turn(steps));
    const TurnReport report{own.seconds, own.computing, own.exchanging};
    std::vector<std::byte> bytes(sizeof report + own.work.size() * sizeof(ExpertWork));
    std::memcpy(bytes.data(), &report, sizeof report);
    std::memcpy(bytes.data() + sizeof report, own.work.data(), own.work.size() * sizeof(ExpertWork));
    ASSIGN_OR_RETURN(const auto reports, gather(bytes));
    for (const std::vector<std::byte>& other : reports) {
      if (!is_first()) break;
      if (other.size() != bytes.size())
        return make_error(ErrorCode::kInternal, "a rank took part in another number of expert exchanges");
      TurnReport its;
      std::memcpy(&its, other.data(), sizeof its);
      RankTurn& rank = turn.ranks.emplace_back(its.seconds, its.computing, its.exchanging, own.work);
      std::memcpy(rank.work.data(), other.data() + sizeof its, rank.work.size() * sizeof(ExpertWork));
    }
    return turn;
  }

  Result<RankTurn> own_turn(const Steps& steps) {
    RETURN_IF_ERROR(meet());
    trace_.clear();
    engine_.set_trace(&trace_);
    const RankReport before = engine_.report();
    const Clock::time_point begin = Clock::now();
    RETURN_IF_ERROR(steps(player_));
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    const RankReport after = engine_.report();
    engine_.set_trace(nullptr);
    return RankTurn{
        .seconds = seconds,
        .computing = static_cast<double>(after.nanoseconds_computing - before.nanoseconds_computing) * 1e-9,
        .exchanging = static_cast<double>(after.nanoseconds_exchanging - before.nanoseconds_exchanging) * 1e-9,
        .work = expert_work(trace_.spans())};
  }

  Status meet() { return world_->barrier({.operation = "meeting of the measured ranks"}); }
  // On rank 0, every rank's bytes; elsewhere nothing.
  Result<std::vector<std::vector<std::byte>>> gather(std::span<const std::byte> own) {
    const CollectiveSite site{.operation = "report of the measured ranks"};
    const auto num_ranks = static_cast<size_t>(world_->size());
    std::vector<uint64_t> sizes(num_ranks);
    const uint64_t own_size = own.size();
    constexpr int64_t kBytes = sizeof(uint64_t);
    RETURN_IF_ERROR(world_->all_gather(
        View<const std::byte, 2>(reinterpret_cast<const std::byte*>(&own_size), 1, kBytes),
        RowPartition(world_->size(), world_->size()),
        View<std::byte, 2>(reinterpret_cast<std::byte*>(sizes.data()), world_->size(), kBytes), site));
    std::vector<std::vector<std::byte>> all(num_ranks);
    std::vector<std::span<const std::byte>> sent(num_ranks);
    std::vector<std::span<std::byte>> received(num_ranks);
    sent[0] = own;
    for (size_t rank = 0; is_first() && rank < num_ranks; rank++) {
      all[rank].resize(sizes[rank]);
      received[rank] = all[rank];
    }
    RETURN_IF_ERROR(world_->all_to_all(sent, received, site));
    return all;
  }

  bool is_first() const { return world_->rank() == 0; }
  void tell(const std::string& what) const {
    if (options_.on_progress && is_first()) options_.on_progress(what);
  }

  RankEngine& engine_;
  const StepBenchOptions& options_;
  std::unique_ptr<Group> world_;  // all ranks
  Player player_;
  std::optional<Player> alone_;
  StepTrace trace_;               // of a turn
  std::vector<TraceSpan> noted_;  // of the last turn of every phase
};

}  // namespace

void reserve_for_steps(const StepBenchOptions& options, int num_replicas, EngineOptions& engine) {
  const int num_sequences = std::max(longest_batch(options), 1) * num_replicas;
  const int length = std::max(sequence_length(options), options.prompt);
  engine.max_num_batched_tokens =
      std::max({options.prompt * num_replicas, std::min(options.context, 512) * num_replicas, num_sequences});
  engine.max_num_seqs = num_sequences;
  engine.max_model_len = length;
  engine.num_gpu_blocks_override = num_sequences * ceil_div(length, engine.block_size);
}

namespace {

Result<std::unique_ptr<Group>> all_ranks(RankEngine& engine) {
  Mesh& mesh = *engine.placement().mesh;
  std::vector<int> members(static_cast<size_t>(mesh.size()));
  std::iota(members.begin(), members.end(), 0);
  return make_message_group(mesh, {.members = std::move(members)});
}

}  // namespace

Result<StepBenchResult> run_step_bench(RankEngine& engine, RankEngine* alone, const StepBenchOptions& options) {
  ASSIGN_OR_RETURN(auto world, all_ranks(engine));
  return StepBench(engine, alone, options, std::move(world)).run();
}

Result<std::vector<MoveFigure>> run_moves_bench(RankEngine& engine, const StepBenchOptions& options) {
  if (!engine.balancing() || options.batches.empty())
    return make_parameter_error("--moves", "--moves needs --enable-eplb, more than one rank, and a --batch");
  ASSIGN_OR_RETURN(auto world, all_ranks(engine));
  return StepBench(engine, nullptr, options, std::move(world)).run_moves();
}

std::string moves_table(const std::vector<MoveFigure>& figures) {
  std::string text = fmt::format("{:<14} {:>7} {:>10} {:>10} {:>18}\n", "decode steps", "steps", "median ms", "p90 ms",
                                 "busiest over mean");
  for (const MoveFigure& figure : figures)
    text += fmt::format("{:<14} {:>7} {:>10.3f} {:>10.3f} {:>18.3f}\n", figure.name, figure.num_steps, figure.median_ms,
                        figure.p90_ms, figure.busiest_over_mean);
  return text;
}

}  // namespace cachalot
