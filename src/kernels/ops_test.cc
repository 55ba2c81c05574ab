#include "kernels/ops.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <vector>

#include "kernels/cores.h"
#include "kernels/ops_test_util.h"

namespace cachalot {
namespace {

using ::testing::HasSubstr;

// A struct of function pointers and nothing else.
template <class Cores>
bool is_complete(const Cores& cores) {
  const auto* begin = reinterpret_cast<void* const*>(&cores);
  const auto* end = reinterpret_cast<void* const*>(&cores + 1);
  return std::count(begin, end, nullptr) == 0;
}

TEST(LevelCores, AreCompleteOnEveryLevel) {
  for (IsaLevel isa : {IsaLevel::kReference, IsaLevel::kAvx2, IsaLevel::kAvx512}) {
    const LevelCores& cores = level_cores(isa);
    EXPECT_EQ(cores.isa, isa);
    EXPECT_TRUE(is_complete(*cores.rows)) << isa_name(isa);
    EXPECT_TRUE(is_complete(*cores.linear)) << isa_name(isa);
    EXPECT_TRUE(is_complete(*cores.linear->int_core)) << isa_name(isa);
    EXPECT_TRUE(is_complete(*cores.attention)) << isa_name(isa);
    EXPECT_TRUE(is_complete(*cores.limits)) << isa_name(isa);
  }
}

TEST(Ops, SayHowMuchScratchCannotBeHad) {
  Device device({.num_threads = 1});
  const Result<Ops> ops = Ops::create(IsaLevel::kReference, device, {.max_in_features = int64_t{1} << 58});
  ASSERT_FALSE(ops.has_value());
  EXPECT_EQ(ops.error().code, ErrorCode::kOutOfMemory);
  EXPECT_THAT(ops.error().message, HasSubstr("bytes"));
}

class OpsShapes : public ::testing::Test {
 protected:
  static View<float, 2> rows(int64_t num_rows, int64_t features) {
    return View<float, 2>(memory(), num_rows, features);
  }
  static View<float, 3> heads(int64_t num_rows, int64_t num_heads, int64_t dim) {
    return View<float, 3>(memory(), num_rows, num_heads, dim);
  }
  static View<float, 1> numbers(int64_t count) { return View<float, 1>(memory(), count); }
  static View<int32_t, 1> indices(int64_t count) {
    return View<int32_t, 1>(reinterpret_cast<int32_t*>(memory()), count);
  }
  static View<int32_t, 2> index_rows(int64_t num_rows, int64_t count) {
    return View<int32_t, 2>(reinterpret_cast<int32_t*>(memory()), num_rows, count);
  }
  static ComputeView<2> compute(int64_t num_rows, int64_t features) { return ComputeView<2>(rows(num_rows, features)); }
  static PackedMatrix matrix(int64_t out_features, int64_t in_features) {
    return {{.format = MatrixFormat::kF32, .out_features = out_features, .in_features = in_features},
            reinterpret_cast<std::byte*>(memory())};
  }
  static CachedContext context(int64_t width) { return {compute(64, width), kBlocks, 16}; }
  static QuantizedRows quantized(int64_t num_rows, int64_t features, int64_t num_groups) {
    return {View<int8_t, 2>(reinterpret_cast<int8_t*>(memory()), num_rows, features), rows(num_rows, num_groups), 32};
  }

  static constexpr BlockId kBlocks[] = {0, 1, 2, 3};
  TestOps ops_{IsaLevel::kReference};

 private:
  static float* memory() {
    static std::vector<float> memory(1 << 16);
    return memory.data();
  }
};

// One broken argument after another; the message names the operation, the symbol and both values.
using OpsDeathTest = OpsShapes;

TEST_F(OpsDeathTest, RowsOfOtherShapesAreRefused) {
  EXPECT_DEATH(ops_->embed({.ids = indices(3), .dtype = DType::kF32, .out = rows(2, 8)}),
               "embed: num_rows of out is 2, should be 3");
  EXPECT_DEATH(ops_->embed({.ids = indices(3), .dtype = DType::kI8, .out = rows(3, 8)}), "embed: no table of I8");
  EXPECT_DEATH(ops_->add_norm({.residual = rows(2, 8), .delta = rows(2, 9), .weight = numbers(8), .out = rows(2, 8)}),
               "add_norm: features of delta is 9, should be 8");
  EXPECT_DEATH(ops_->add_norm({.residual = rows(2, 8), .weight = numbers(8)}),
               "add_norm: neither floats nor int8 rows are wanted");
  EXPECT_DEATH(ops_->add_norm({.residual = rows(1, 9000), .weight = numbers(9000), .out = rows(1, 9000)}),
               "add_norm: features is 9000, max_in_features is 8192");
  EXPECT_DEATH(ops_->quantize(rows(2, 65), quantized(2, 65, 2)),
               "quantize: num_groups of quantized scales is 2, should be 3");
  EXPECT_DEATH(ops_->gather_rows(rows(5, 8), indices(3), rows(4, 8)), "gather_rows: num_rows of out is 4, should be 3");
  EXPECT_DEATH(ops_->to_compute(rows(5, 8), compute(5, 7)), "to_compute: features of out is 7, should be 8");
  EXPECT_DEATH(ops_->from_compute(compute(5, 8), rows(4, 8)), "from_compute: num_rows of out is 4, should be 5");
}

TEST_F(OpsDeathTest, LinearsOfOtherShapesAreRefused) {
  EXPECT_DEATH(ops_->linear({.values = rows(2, 9)}, matrix(4, 8), rows(2, 4)),
               "linear: in_features of input is 9, should be 8");
  EXPECT_DEATH(ops_->linear({.values = rows(2, 8)}, matrix(4, 8), rows(2, 5)),
               "linear: out_features of out is 5, should be 4");
  EXPECT_DEATH(ops_->linear({.values = rows(5000, 8)}, matrix(4, 8), rows(5000, 4)),
               "linear: num_rows is 5000, max_rows is 4096");
  EXPECT_DEATH(ops_->gated_linear({.values = rows(2, 8)}, matrix(64, 8), rows(2, 16), {}),
               "gated_linear: out_features .* of gate_up is 64, should be 32");
  const PackedMatrix two[] = {matrix(4, 8), matrix(4, 9)};
  EXPECT_DEATH(ops_->per_head_linear(heads(2, 3, 8), two, heads(2, 3, 4)),
               "per_head_linear: num_heads of matrices is 2, should be 3");
  EXPECT_DEATH(ops_->per_head_linear(heads(2, 2, 8), two, heads(2, 2, 4)),
               "per_head_linear: in_features of a head's matrix is 9, should be 8");
}

TEST_F(OpsDeathTest, ExpertsOfOtherShapesAreRefused) {
  const PackedMatrix gate_up[] = {matrix(32, 8), matrix(32, 8)}, down[] = {matrix(8, 16), matrix(8, 17)};
  const int32_t offsets[] = {0, 1, 3}, wrong_offsets[] = {0, 1, 4};
  ExpertsArgs args{.rows = {.values = rows(2, 8)},
                   .pair_rows = indices(3),
                   .out_rows = indices(3),
                   .offsets = wrong_offsets,
                   .gate_up = gate_up,
                   .down = down,
                   .width = 16,
                   .out = compute(3, 8)};
  EXPECT_DEATH(ops_->experts(args), "experts: num_pairs of the last offset is 4, should be 3");
  args.offsets = offsets;
  EXPECT_DEATH(ops_->experts(args), "experts: width of an expert's down is 17, should be 16");
  EXPECT_DEATH(ops_->combine({compute(5, 9), index_rows(2, 3), rows(2, 3), rows(2, 8)}),
               "combine: hidden of expert_rows is 9, should be 8");
  EXPECT_DEATH(ops_->combine({compute(5, 8), index_rows(2, 3), rows(2, 4), rows(2, 8)}),
               "combine: top_k of weights is 4, should be 3");
}

TEST_F(OpsDeathTest, ChoicesOfOtherShapesAreRefused) {
  const ScoredRow scored[] = {{context(8), 40}};
  ChoosePositionsArgs args{.q = heads(1, 3, 8), .head_weights = rows(1, 4), .rows = scored, .chosen = index_rows(1, 5)};
  EXPECT_DEATH(ops_->choose_positions(args), "choose_positions: num_heads of head_weights is 4, should be 3");
  args.head_weights = rows(1, 3);
  args.chosen = index_rows(2, 5);
  EXPECT_DEATH(ops_->choose_positions(args), "choose_positions: num_rows of chosen is 2, should be 1");
  args.chosen = index_rows(1, 5);
  args.q = heads(1, 3, 7);
  EXPECT_DEATH(ops_->choose_positions(args), "choose_positions: dim of the cache is 8, should be 7");
  const ScoredRow beyond[] = {{context(8), 64}};
  args.q = heads(1, 3, 8);
  args.rows = beyond;
  EXPECT_DEATH(ops_->choose_positions(args), "capacity of the sequence's blocks is 64");
  const int32_t chosen[] = {3, 41};
  const AbsorbedRow row{context(11), 40, View<const int32_t, 1>(chosen, 2)};
  EXPECT_DEATH(ops_->attend_absorbed(
                   {.q_latent = heads(1, 2, 8), .q_rope = heads(1, 2, 3), .rows = {&row, 1}, .out = heads(1, 2, 8)}),
               "attend_absorbed: the last chosen position is 41, the row's is 40");
}

TEST_F(OpsDeathTest, RoutingThatCannotBeIsRefused) {
  RouteArgs args{.logits = rows(2, 24),
                 .groups = RoutingGroups::kByTopTwo,
                 .num_groups = 5,
                 .topk_groups = 1,
                 .ids = index_rows(2, 8),
                 .weights = rows(2, 8)};
  EXPECT_DEATH(ops_->route(args), "route: num_experts is 24, no multiple of num_groups 5");
  args.num_groups = 4;
  EXPECT_DEATH(ops_->route(args), "route: top_k is 8, the number of experts to choose from is 6");
  args.topk_groups = 5;
  EXPECT_DEATH(ops_->route(args), "route: topk_groups is 5, num_groups is 4");
  args.topk_groups = 2;
  args.choice_bias = numbers(23);
  EXPECT_DEATH(ops_->route(args), "route: num_experts of choice_bias is 23, should be 24");
}

TEST_F(OpsDeathTest, LatentsAndContextsOfOtherShapesAreRefused) {
  const RopeTable rope{rows(10, 2), rows(10, 2)}, wide{rows(10, 3), rows(10, 3)};
  EXPECT_DEATH(ops_->rotate_queries(heads(2, 3, 4), indices(2), wide),
               "rotate_queries: rope_dim / 2 of cos is 3, should be 2");
  EXPECT_DEATH(ops_->rotate_queries(heads(2, 3, 5), indices(2), rope),
               "rotate_queries: rope_dim is 5, no multiple of a pair's 2");
  LatentStoreArgs store{
      .kv_a = rows(2, 12), .norm_weight = numbers(8), .rope = rope, .positions = indices(2), .cache = compute(64, 12)};
  EXPECT_DEATH(ops_->store_latents(store), "store_latents: num_rows of slots is 0, should be 2");
  EXPECT_DEATH(ops_->load_latents({.context = context(12), .first_position = 60, .out = rows(5, 8)}),
               "load_latents: the last position \\+ 1 is 65, the capacity of the sequence's blocks is 64");
}

TEST_F(OpsDeathTest, AttentionOfOtherShapesIsRefused) {
  ExpandedAttentionArgs expanded{.q = heads(2, 3, 12),
                                 .kv = heads(5, 3, 13),
                                 .context = context(20),
                                 .nope_dim = 8,
                                 .rope_dim = 4,
                                 .out = heads(2, 3, 6),
                                 .row_max = rows(2, 3),
                                 .row_sum = rows(2, 3)};
  EXPECT_DEATH(ops_->attend_expanded(expanded), "attend_expanded: nope_dim \\+ v_dim of kv is 13, should be 14");
  expanded.kv = heads(5, 3, 14);
  expanded.first_chunk_position = 32;
  EXPECT_DEATH(ops_->attend_expanded(expanded),
               "attend_expanded: first_chunk_position is 32, no multiple of kAttentionTile 64");
  const AbsorbedRow row{context(20), 64};
  AbsorbedAttentionArgs absorbed{
      .q_latent = heads(1, 3, 16), .q_rope = heads(1, 3, 4), .rows = {&row, 1}, .out = heads(1, 3, 16)};
  EXPECT_DEATH(ops_->attend_absorbed(absorbed),
               "attend_absorbed: the last position \\+ 1 is 65, the capacity .* is 64");
  absorbed.q_rope = heads(1, 3, 6);
  EXPECT_DEATH(ops_->attend_absorbed(absorbed),
               "attend_absorbed: kv_lora_rank \\+ rope_dim of the cache is 20, should be 22");
}

TEST_F(OpsShapes, NoRowsAreLegal) {
  ops_->add_norm({.residual = rows(0, 8), .weight = numbers(8), .out = rows(0, 8)});
  ops_->linear({.values = rows(0, 8)}, matrix(4, 8), rows(0, 4));
  ops_->gated_linear({.values = rows(0, 8)}, matrix(32, 8), rows(0, 16), {});
  ops_->combine({compute(0, 8), index_rows(0, 3), rows(0, 3), rows(0, 8)});
  ops_->route({.logits = rows(0, 8), .ids = index_rows(0, 2), .weights = rows(0, 2)});
}

}  // namespace
}  // namespace cachalot
