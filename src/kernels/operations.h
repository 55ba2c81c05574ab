#pragma once

#include "kernels/cores.h"

// The operations over the inner loops of the context's level, behind class Ops; ops.h says what each computes.
namespace cachalot {

// Rows are shared out among threads in chunks that are worth a wake-up, so a few rows stay on the caller's thread.
void embed(const OpsContext& context, const EmbedArgs& args);
void add_norm(const OpsContext& context, const NormArgs& args);
void rotate_queries(const OpsContext& context, View<float, 3> q_rope, View<const int32_t, 1> positions,
                    const RopeTable& rope);
void store_latents(const OpsContext& context, const LatentStoreArgs& args);
void load_latents(const OpsContext& context, const LoadLatentsArgs& args);
void route(const OpsContext& context, const RouteArgs& args);
void combine(const OpsContext& context, const CombineArgs& args);
void gather_rows(const OpsContext& context, View<const float, 2> in, View<const int32_t, 1> row_ids,
                 View<float, 2> out);
void to_compute(const OpsContext& context, View<const float, 2> in, const ComputeView<2>& out);
void from_compute(const OpsContext& context, const ComputeView<2>& in, View<float, 2> out);

void quantize(const OpsContext& context, View<const float, 2> rows, const QuantizedRows& out);
void linear(const OpsContext& context, const LinearInput& input, const PackedMatrix& matrix, View<float, 2> out);
void gated_linear(const OpsContext& context, const LinearInput& input, const PackedMatrix& gate_up, View<float, 2> out,
                  const QuantizedRows& quantized);
void experts(const OpsContext& context, const ExpertsArgs& args);
// Threads share heads and strips. Uses no scratch.
void per_head_linear(const OpsContext& context, View<const float, 3> x, std::span<const PackedMatrix> matrices,
                     View<float, 3> out);

// Attention over the latents in the cache. The rule of numbers, the same on every level, for any other rows, chunks and
// threads, so that results are equal to the bit:
//
// - score of a row and a position = softmax_scale * (chain of fma over the key's dimensions: expanded, no-position part
//   then rotated part; absorbed, latent then rotated part).
// - Positions go in tiles of kAttentionTile, in order. A tile's visible positions change the state (max, sum, acc) of a
//   row: new max = max(max, scores); p = exp(score - new max), 0 where invisible; decay = exp(max - new max);
//   sum = fma(sum, decay, total of the tile's p), added by halves: p[i] + p[i + 32], then of those [i] + [i + 16], ...;
//   acc[d] = fma(acc[d], decay, chain of fma over p * value[d], positions in order).
// - Expanded: out = acc / sum at the end.
// - Absorbed: each span of kAttentionSpan positions has a state of its own, so that threads can share a long context.
//   The states are merged in order: new max = max of both, earlier = exp(its max - new max), later likewise;
//   sum = fma(sum, earlier, later sum * later), acc[d] = fma(acc[d], earlier, later acc[d] * later); out = acc / sum.
// - exp is that of kernels/cores.h.
inline constexpr int kAttentionSpan = 512;  // a multiple of kAttentionTile
void attend_expanded(const OpsContext& context, const ExpandedAttentionArgs& args);
void attend_absorbed(const OpsContext& context, const AbsorbedAttentionArgs& args);

size_t row_scratch_bytes(const OpsLimits& limits, int num_threads);  // of each thread a row of floats
size_t linear_scratch_bytes(const LinearCores& cores, const OpsLimits& limits, int num_threads);
size_t attention_scratch_bytes(const OpsLimits& limits, int num_threads);

}  // namespace cachalot
