#pragma once

#include "kernels/cores.h"

// What fills the table of operations (ops_table.cc); ops.h says what each computes.
namespace cachalot {

// Over the inner loops of the context's level; linears of the reference level, too.
void add_row_operations(OpsTable& table);
void add_linears(OpsTable& table);
void add_attention(OpsTable& table);
size_t row_scratch_bytes(const OpsLimits& limits, int num_threads);  // of each thread a row of floats
size_t linear_scratch_bytes(const LinearCores& cores, const OpsLimits& limits, int num_threads);
size_t attention_scratch_bytes(const OpsLimits& limits, int num_threads);

// The plain definitions, which the other levels are tested against.
namespace reference {
void add_row_operations(OpsTable& table);
void add_attention(OpsTable& table);
size_t row_scratch_bytes(const OpsLimits& limits);  // a row of floats
// One row by the rule of QuantizedRows; every level gives these bits. What is quantized anywhere follows this rule.
void quantize_row(const float* x, int64_t count, int group, int8_t* values, float* scales);
}  // namespace reference

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

}  // namespace cachalot
