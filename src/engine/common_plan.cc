#include "engine/common_plan.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "base/elementary.h"
#include "comm/mesh_group.h"
#include "model/rope.h"
#include "sampler/sampler.h"

namespace cachalot {
namespace {

struct Alike {
  const char* name;
  int64_t RankNumbers::* number;
};
constexpr std::array<Alike, 15> kAlike{{
    {"tokens of a KV block (--block-size)", &RankNumbers::block_size},
    {"KV bytes of a token", &RankNumbers::cache_bytes_per_token},
    {"layers", &RankNumbers::num_layers},
    {"tokens of the vocabulary", &RankNumbers::vocab_size},
    {"token rows of a step (--max-num-batched-tokens)", &RankNumbers::max_rows},
    {"sequences at once (--max-num-seqs)", &RankNumbers::max_num_seqs},
    {"steps of a round (--num-scheduler-steps)", &RankNumbers::max_steps},
    {"rows of logits at a time", &RankNumbers::max_logit_rows},
    {"instruction level", &RankNumbers::isa_level},
    {"values of an expert's input that share a scale", &RankNumbers::expert_input_group},
    {"rows of a message to a rank's experts", &RankNumbers::expert_rows_per_peer},
    {"results of a message to a rank's experts", &RankNumbers::expert_pairs_per_peer},
    {"bytes of a row to experts", &RankNumbers::expert_row_bytes},
    {"bytes of a sum between ranks", &RankNumbers::reduced_bytes},
    {"arithmetic of rotary tables and draws (a hash)", &RankNumbers::arithmetic},
}};
static_assert(sizeof(RankNumbers) == (kAlike.size() + 3) * sizeof(int64_t), "a number is missing in the table");

}  // namespace

int64_t arithmetic_hash(const ModelConfig& config) {
  portable::BitHash hash;
  hash.add(Rope::hash(config, config.max_position_embeddings));
  hash.add(hash_of_draws());
  return static_cast<int64_t>(hash.value() >> 11);
}

Result<CommonPlan> find_common_plan(std::span<const RankNumbers> of_ranks, const ParallelOptions& parallel,
                                    std::span<const std::string> rank_names) {
  const RankNumbers& first = of_ranks.front();
  for (size_t rank = 0; rank < of_ranks.size(); rank++) {
    const RankNumbers& numbers = of_ranks[rank];
    if (numbers.format != RankNumbers::kFormat || numbers.num_blocks < 1 || numbers.max_model_len < 1)
      return make_error(ErrorCode::kCorrupt, "{} sent a plan of another format, or of {} KV blocks for {} tokens",
                        rank_names[rank], numbers.num_blocks, numbers.max_model_len);
    for (const auto& [name, number] : kAlike) {
      if (numbers.*number != first.*number)
        return make_error(ErrorCode::kInvalidArgument,
                          "{}: {} on {} and {} on {}; all ranks must run the same program with the same model and the "
                          "same settings",
                          name, numbers.*number, rank_names[rank], first.*number, rank_names[0]);
    }
  }
  // The least of some ranks' numbers, and whose it is where they differ.
  struct Least {
    int64_t number;
    std::string whose;
  };
  const auto least = [&](size_t begin, size_t count, int64_t RankNumbers::* number, std::string_view of_whom) {
    const auto [lowest, highest] = std::ranges::minmax_element(of_ranks.subspan(begin, count), {}, number);
    const auto rank = static_cast<size_t>(&*lowest - of_ranks.data());
    const bool differ = (*lowest).*number != (*highest).*number;
    return Least{(*lowest).*number, differ ? fmt::format(", the least of {} ({})", of_whom, rank_names[rank]) : ""};
  };
  const auto leader = static_cast<size_t>(parallel.group_rank() - parallel.tensor_parallel_rank);
  const Least blocks = least(leader, static_cast<size_t>(parallel.tensor_parallel_size), &RankNumbers::num_blocks,
                             "the replica's"),
              length = least(0, of_ranks.size(), &RankNumbers::max_model_len, "all ranks'");
  return CommonPlan{.num_blocks = blocks.number,
                    .max_model_len = length.number,
                    .text = fmt::format("{} KV blocks{}, and max_model_len {}{}", blocks.number, blocks.whose,
                                        length.number, length.whose)};
}

Result<CommonPlan> agree_on_plan(Mesh& mesh, const ParallelOptions& parallel, const RankNumbers& own) {
  std::vector<int> members(static_cast<size_t>(mesh.size()));
  std::iota(members.begin(), members.end(), 0);
  std::vector<RankNumbers> of_ranks(members.size());
  std::vector<std::string> names;
  for (const int rank : members) names.push_back(mesh.rank_name(rank));
  ASSIGN_OR_RETURN(const auto all, MeshGroup::create(mesh, {.members = std::move(members)}));
  constexpr auto kBytes = static_cast<int64_t>(sizeof(RankNumbers));
  RETURN_IF_ERROR(
      all->all_gather(View<const std::byte, 2>(reinterpret_cast<const std::byte*>(&own), 1, kBytes),
                      RowPartition(mesh.size(), mesh.size()),
                      View<std::byte, 2>(reinterpret_cast<std::byte*>(of_ranks.data()), mesh.size(), kBytes),
                      {.operation = "agreement on the memory plan"}));
  return find_common_plan(of_ranks, parallel, names);
}

}  // namespace cachalot
