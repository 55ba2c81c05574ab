#pragma once

#include "kernels/cores.h"
#include "kernels/ops.h"

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
namespace cachalot {

inline constexpr int kAttentionSpan = 512;  // a multiple of kAttentionTile

// With the kernels of a level; threads share heads, rows and spans of positions.
void attend_expanded(const AttentionKernels& kernels, const OpsContext& context, const ExpandedAttentionArgs& args);
void attend_absorbed(const AttentionKernels& kernels, const OpsContext& context, const AbsorbedAttentionArgs& args);
size_t attention_scratch_bytes(const OpsLimits& limits, int num_threads);  // of either

namespace reference {
void attend_expanded(const OpsContext& context, const ExpandedAttentionArgs& args);
void attend_absorbed(const OpsContext& context, const AbsorbedAttentionArgs& args);
}  // namespace reference

}  // namespace cachalot
