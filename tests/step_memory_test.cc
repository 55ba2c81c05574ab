// What ranks allocate: their buffers as they were planned, to the byte; and within a step nothing but its result.
#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <cerrno>
#include <cstdlib>
#include <thread>

#include "comm/local_mesh_test_util.h"
#include "engine/participate.h"
#include "golden_cases.h"
#include "model_harness.h"

// ---- counting ----

namespace {

std::atomic<int64_t> num_allocations{0};        // of all threads
thread_local int64_t num_allocations_here = 0;  // of this one

[[maybe_unused]] void count_allocation() {
  num_allocations.fetch_add(1, std::memory_order_relaxed);
  num_allocations_here++;
}

}  // namespace

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kCounts = false;  // the sanitizer has an allocator of its own
#else
constexpr bool kCounts = true;

extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

void* malloc(size_t size) {
  count_allocation();
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  count_allocation();
  return __libc_calloc(count, size);
}
void* realloc(void* memory, size_t size) {
  count_allocation();
  return __libc_realloc(memory, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  count_allocation();
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** memory, size_t alignment, size_t size) {
  count_allocation();
  *memory = __libc_memalign(alignment, size);
  return *memory ? 0 : ENOMEM;
}
}
#endif

namespace cachalot::test {
namespace {

constexpr int kNumSteps = 4;  // of a round

struct Case {
  std::string model;
  Layout layout;
  DTypeOption dtype = DTypeOption::kAuto;
};

EngineOptions options_of(const Case& tried, IsaLevel isa) {
  const IsaOption options[] = {IsaOption::kReference, IsaOption::kAvx2, IsaOption::kAvx512};
  return {.model = tried.model,
          .dtype = tried.dtype,
          .isa = options[static_cast<int>(isa)],
          .max_model_len = 512,
          .max_num_batched_tokens = 128,
          .max_num_seqs = 8,
          .num_scheduler_steps = kNumSteps,
          .num_gpu_blocks_override = 48};
}

// Ranks as threads, from loading to dismissal.
class Ranks {
 public:
  using Lead = std::function<void(RankEngine&)>;  // of a replica's leader, until it leaves the group

  Ranks(const Case& tried, IsaLevel isa, int threads_of_rank = 1)
      : tried_(tried), isa_(isa), num_threads_(threads_of_rank) {}

  void run(const Lead& lead, const RoundObserver& after_followed) {
    const int num_ranks = tried_.layout.num_ranks();
    auto meshes = make_local_mesh(num_ranks, {.deadline = std::chrono::seconds(120)});
    ASSERT_TRUE(meshes) << meshes.error().message;
    std::barrier all_loaded(num_ranks);
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < num_ranks; rank++) {
      threads.emplace_back([&, rank] {
        auto engine =
            RankEngine::create(options_of(tried_, isa_), placement(rank, *(*meshes)[static_cast<size_t>(rank)]), {});
        ASSERT_TRUE(engine) << engine.error().message;
        planned_bytes_ += planned_bytes(**engine);
        all_loaded.arrive_and_wait();
        Status status;
        if ((*engine)->placement().parallel.is_leader()) {
          lead(**engine);
          status = leave_group(**engine);
        } else {
          status = follow_leader(**engine, after_followed);
        }
        EXPECT_TRUE(status) << status.error().message;
      });
    }
  }

  size_t planned_bytes() const { return planned_bytes_; }

 private:
  Placement placement(int rank, Mesh& mesh) const {
    const Layout& layout = tried_.layout;
    return {.parallel = {.tensor_parallel_size = layout.tp_size,
                         .tensor_parallel_rank = rank % layout.tp_size,
                         .data_parallel_size = layout.dp_size,
                         .data_parallel_rank = rank / layout.tp_size,
                         .enable_expert_parallel = layout.expert_parallel},
            .mesh = &mesh,
            .num_local_ranks = layout.num_ranks(),
            .threads = {.num_threads = num_threads_, .spin_microseconds = 0},
            .isa = isa_,
            .on_activity = {}};
  }
  // All buffers. What the ranks of a node share is memory of the transport.
  static size_t planned_bytes(const RankEngine& engine) {
    const MemoryPlan& plan = engine.memory();
    return plan.rank.fixed_bytes() - plan.rank.shared_bytes + plan.cache_bytes;
  }

  const Case& tried_;
  IsaLevel isa_;
  int num_threads_;
  std::atomic<size_t> planned_bytes_{0};
};

std::vector<Case> cases() {
  const std::string nano = CACHALOT_SOURCE_DIR "/models/nano";
  return {{nano, {}},
          {nano, {.tp_size = 2}, DTypeOption::kFloat32},
          {CACHALOT_SOURCE_DIR "/models/nano-awq", {.dp_size = 2}},
          {golden_folder("r1-bf16"), {.dp_size = 2, .tp_size = 2}},
          {golden_folder("r1-fp8"), {.tp_size = 4, .expert_parallel = false}},
          {golden_folder("r1-awq"), {.dp_size = 4}},
          {golden_folder("r1-awq"), {.dp_size = 3}},  // which do not divide the experts
          {golden_folder("v2lite-bf16"), {.tp_size = 2, .expert_parallel = false}},
          {golden_folder("v32-fp8"), {.tp_size = 2}},
          {golden_folder("glm52-bf16"), {.dp_size = 2}}};
}

std::string describe(const Case& tried, IsaLevel isa) {
  return fmt::format("{} dp {} tp {}{} {}", tried.model, tried.layout.dp_size, tried.layout.tp_size,
                     tried.layout.expert_parallel ? " ep" : "", isa_name(isa));
}

// ---- planned ----

TEST(StepMemory, RanksAllocateWhatTheyPlannedToTheByte) {
  for (const Case& tried : cases()) {
    for (const IsaLevel isa : available_levels()) {
      const size_t before = Device::bytes_given();
      Ranks ranks(tried, isa, 2);
      std::atomic<size_t> after{0};
      ranks.run([&](RankEngine& /*engine*/) { after = Device::bytes_given(); }, [](RankEngine& /*engine*/) {});
      EXPECT_EQ(after - before, ranks.planned_bytes()) << describe(tried, isa);
    }
  }
}

// ---- steps ----

// Lists that a result consists of: it is handed to another thread, and so is what a round may allocate.
int64_t num_lists(const StepResult& result) {
  const auto of_tokens = [](const std::vector<SampledToken>& tokens) {
    const auto of_alternatives =
        std::ranges::count_if(tokens, [](const SampledToken& token) { return !token.top.empty(); });
    return (tokens.empty() ? 0 : 1) + of_alternatives;
  };
  int64_t count = result.sequences.empty() ? 0 : 1;
  for (const SequenceResult& sequence : result.sequences)
    count += of_tokens(sequence.tokens) + of_tokens(sequence.prompt_logprobs);
  return count;
}

struct Known {
  std::vector<TokenId> tokens;
  std::vector<BlockId> blocks;
};

std::vector<Known> prompts(int num_tokens) {
  std::vector<Known> known(3);
  for (size_t idx = 0; idx < known.size(); idx++) {
    for (int position = 0; position < num_tokens; position++)
      known[idx].tokens.push_back((7 * position + 3 * static_cast<int>(idx)) % 200);
    for (int block = 0; block < 4; block++) known[idx].blocks.push_back(static_cast<int>(idx) * 4 + block);
  }
  return known;
}

// Prompts in two chunks, then answers in rounds of several steps. Expects that a round allocates its result alone, by
// `allocations`.
void run_rounds(RankEngine& engine, const SamplingParams& sampling, const std::function<int64_t()>& allocations) {
  constexpr int kPrompt = 60, kFirstChunk = 25, kRounds = 12;
  std::vector<Known> known = prompts(kPrompt);
  for (int round = 0; round < kRounds; round++) {
    StepPlan plan{.round = static_cast<uint64_t>(round), .num_steps = round < 2 ? 1 : kNumSteps, .sequences = {}};
    for (Known& sequence : known) {
      const int num_tokens = static_cast<int>(sequence.tokens.size()), first = round == 0   ? 0
                                                                               : round == 1 ? kFirstChunk
                                                                                            : num_tokens - 1;
      plan.sequences.push_back({.id = plan.sequences.size(),
                                .tokens = sequence.tokens,
                                .first_position = first,
                                .num_tokens = (round == 0 ? kFirstChunk : num_tokens) - first,
                                .num_prompt_tokens = kPrompt,
                                .blocks = sequence.blocks,
                                .sample = round > 0,
                                .sampling = &sampling});
    }
    const Wish wish{.num_rows = plan.num_tokens(), .num_steps = plan.num_steps};
    const int64_t before = allocations();
    const auto agreement = engine.lockstep().agree(wish);
    ASSERT_TRUE(agreement) << agreement.error().message;
    const auto result = engine.run(plan, agreement->num_steps);
    const int64_t allocated = allocations() - before;
    ASSERT_TRUE(result) << result.error().message;
    EXPECT_EQ(allocated, num_lists(*result)) << "round " << round;
    for (size_t idx = 0; idx < known.size(); idx++) {
      EXPECT_EQ(result->sequences[idx].error, "");
      for (const SampledToken& token : result->sequences[idx].tokens) known[idx].tokens.push_back(token.token);
    }
  }
}

// Every rule of the sampler, and logprobs of answers and prompts.
SamplingParams everything() {
  return {.temperature = 0.7f,
          .top_p = 0.9f,
          .top_k = 40,
          .min_p = 0.01f,
          .presence_penalty = 0.1f,
          .frequency_penalty = 0.1f,
          .repetition_penalty = 1.1f,
          .logit_bias = {{5, 1.f}},
          .seed = 3,
          .max_tokens = 400,
          .min_tokens = 390,
          .stop_token_ids = {1},
          .num_logprobs = 5,
          .num_prompt_logprobs = 3};
}

TEST(StepMemory, AStepAllocatesItsResultAlone) {
  if (!kCounts) GTEST_SKIP() << "the sanitizer has an allocator of its own";
  for (const Case& tried : cases()) {
    for (const SamplingParams& sampling : {SamplingParams{.temperature = 0, .max_tokens = 400}, everything()}) {
      SCOPED_TRACE(describe(tried, detect_isa()));
      Ranks ranks(tried, detect_isa());
      ranks.run([&](RankEngine& engine) { run_rounds(engine, sampling, [] { return num_allocations_here; }); },
                [](RankEngine& engine) {
                  thread_local int64_t before = 0;  // a follower's rounds, from the end of its first one on
                  if (engine.num_steps() > 1) {
                    EXPECT_EQ(num_allocations_here, before) << "step " << engine.num_steps();
                  }
                  before = num_allocations_here;
                });
    }
  }
}

TEST(StepMemory, NeitherDoTheThreadsOfARank) {
  if (!kCounts) GTEST_SKIP() << "the sanitizer has an allocator of its own";
  const Case tried = cases().front();
  Ranks ranks(tried, detect_isa(), 3);
  ranks.run([&](RankEngine& engine) { run_rounds(engine, everything(), [] { return num_allocations.load(); }); },
            [](RankEngine& /*engine*/) {});
}

}  // namespace
}  // namespace cachalot::test
