#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace cachalot {

// How a checkpoint file holds a linear layer's weight.
enum class SourceFormat {
  kPlain,     // data [out, in] of `dtype` (F32, BF16, F16)
  kFp8Block,  // data [out, in] F8_E4M3, scales [ceil(out/block_rows), ceil(in/block_cols)]: weight = data * scale
  kAwq,  // data I32 [in, out/8] (8 nibbles a word, output 8*w + {0,2,4,6,1,3,5,7}[nibble]), zeros I32 [in/group, out/8]
         // (same order), scales [in/group, out]: weight = (q - zero) * scale
  kPackedInt,  // data [out, ceil(in*bits/32)] words, inputs in order from the lowest bits up, zeros
               // [ceil(out*bits/32), in/group] words, outputs in order, scales [out, in/group]: as kAwq
  kMxfp4,      // data [out, in/2] bytes of two inputs, the first in the lower four bits, each a place in kE2m1Doubled,
               // scales [out, in/32] 2^(byte - 127): weight = doubled / 2 * scale
};

// Twice what E2M1 codes stand for: bit 3 is the sign; -0 is 0.
inline constexpr int8_t kE2m1Doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// A linear layer's weight as the file holds it (whole, borrowed from the mapped file), and the window of it that a rank
// takes: outputs [out_begin, out_begin + out_count) x inputs [in_begin, in_begin + in_count). Windows may cut through
// blocks and groups anywhere.
struct WeightSource {
  SourceFormat format = SourceFormat::kPlain;
  DType dtype = DType::kBF16;
  const void* data = nullptr;
  const void* scales = nullptr;
  DType scale_dtype = DType::kF32;            // kF32, kBF16, kF16; kFp8Block and kMxfp4: or kF8E8M0
  const void* zeros = nullptr;                // kAwq, kPackedInt; null: every zero point is half of the range
  int64_t out_features = 0, in_features = 0;  // of the whole tensor
  int bits = 4;                               // kPackedInt: 4 or 8
  int group_size = 0;                         // kAwq, kPackedInt, kMxfp4
  int block_rows = 128, block_cols = 128;     // kFp8Block
  int64_t out_begin = 0, out_count = 0, in_begin = 0, in_count = 0;
};

// The whole tensor as its own window.
inline WeightSource whole(WeightSource source) {
  source.out_begin = source.in_begin = 0;
  source.out_count = source.out_features;
  source.in_count = source.in_features;
  return source;
}

// Row `out` of the window (0 <= out < out_count), inputs [in, in + count) of the window, as floats.
void read_values(const WeightSource& source, int64_t out, int64_t in, int64_t count, float* values);

// Of an AWQ word: where the nibble of output 8 * word + i begins.
inline constexpr int kAwqShift[8] = {0, 16, 4, 20, 8, 24, 12, 28};

// The parts of a weight of kAwq or kPackedInt, window coordinates: weight = (quantum - zero) * scale.
struct IntElement {
  uint8_t quantum, zero;
  float scale;
};
IntElement int_element(const WeightSource& source, int64_t out, int64_t in);
// Number `idx` of a source's scales.
float scale_at(const WeightSource& source, int64_t idx);

}  // namespace cachalot

// A linear layer's weight in the kernels' own layout, the same on every instruction level.
//
// Outputs come in strips of 16 (the last one padded with zeros); a strip is one sequential stream over the inputs, made
// of blocks in input order. All numbers little endian. A block holds
//
//   format  inputs      bytes   what
//   kF32    2           128     [16 outputs][2 inputs] float
//   kBF16   2           64      [16 outputs][2 inputs] bf16 (the order of vdpbf16ps)
//   kF8     128         2112    32 x 64 bytes: [16 outputs][4 inputs] e4m3, then 16 float scales, one an output
//   kI8     64          1088    16 x 64 bytes: [16 outputs][4 inputs] int8, then 16 float scales
//   kI4/64  64          552     8 x 64 bytes: byte 4*o+j of vector v: low nibble q[o][8v+j], high nibble q[o][8v+4+j];
//                               then 16 fp16 scales; then 8 bytes of zero points: output o is nibble o>>1 of dword o&1
//   kI4/32  32          296     4 x 64 bytes, else the same
//   kI4Bf16 64, 32      as kI4  with bf16 scales, none of them of a magnitude below 2^-100 but 0
//   kF4     32          288     4 x 64 bytes as kI4, each nibble a place in kE2m1Doubled, the weight; then 16 bf16
//   scales,
//                               half of the file's: 2^-128 to 2^126
//
// Inputs are padded to whole blocks: with zero weights, in kI4 with q = zero point. kF8: the first block may begin in
// the middle of a 128-block of the file (a shard that cuts it): `first_block_inputs` real inputs, in the block's first
// places. kI4 scales are fp16 as AWQ files hold them; a group of 128 inputs is two blocks of 64 with the same scale.
namespace cachalot {

inline constexpr int kStrip = 16;

enum class MatrixFormat : uint8_t { kF32, kBF16, kF8, kI8, kI4, kI4Bf16, kF4 };

struct MatrixShape {
  MatrixFormat format = MatrixFormat::kBF16;
  int64_t out_features = 0, in_features = 0;
  int block_inputs = 2;        // inputs a block: 2, 128, 64 or 32 (see above); for integers also the activations' group
  int first_block_inputs = 2;  // real inputs of the first block; = block_inputs but for a cut kF8 matrix

  bool operator==(const MatrixShape&) const = default;
  bool is_integer() const { return format >= MatrixFormat::kI8; }
  bool has_four_bits() const { return format >= MatrixFormat::kI4; }
  int64_t num_strips() const { return (out_features + kStrip - 1) / kStrip; }
  int64_t num_blocks() const;    // blocks a strip
  size_t scales_offset() const;  // of a block's scales: behind the values
  size_t zeros_offset() const;   // of a block's zero points, where it has any
  size_t block_bytes() const;
  size_t strip_bytes() const { return static_cast<size_t>(num_blocks()) * block_bytes(); }
  size_t bytes() const { return static_cast<size_t>(num_strips()) * strip_bytes(); }
};

// Borrowed: the memory belongs to the model. 64-byte aligned.
struct PackedMatrix {
  MatrixShape shape;
  const std::byte* data = nullptr;
};

// What the model wants of a linear; the file decides what it gets.
struct MatrixPolicy {
  bool float32 = false;           // --dtype float32: no weight is rounded below what the file holds
  bool int8_activations = false;  // fp8 weights are then requantized to kI8
};

// The shape that packing `source` (its window) gives: kPlain -> kF32 for F32 and F16 files, kBF16 for BF16; kFp8Block
// -> kF8 or kI8; kAwq and four bits of kPackedInt -> kI4, or kI4Bf16 where the file's scales are bf16; eight bits
// without zero points -> kI8; kMxfp4 -> kF4; or, where the window cuts a group in a way that blocks cannot follow
// (in_begin or in_count no multiple of 32, or of 64 for kI8), where scales are no numbers of 16 bits, or eight bits
// have zero points, kF32 under float32 and kBF16 otherwise.
MatrixShape plan_matrix(const WeightSource& source, const MatrixPolicy& policy);

inline constexpr int64_t kPackedStrips = 32;

// Writes strips [strip_begin, strip_end) of the matrix; `matrix` is the start of the whole one. Threads may share the
// work; multiples of kPackedStrips read an AWQ file fastest.
void pack_matrix(const WeightSource& source, const MatrixShape& shape, int64_t strip_begin, int64_t strip_end,
                 std::byte* matrix);

// gate and up of a gated linear as one matrix of interleaved strips: strip 2i is gate's strip i, strip 2i+1 is up's.
// Both windows have the same extents; where the two would be planned differently, both become kF32 or kBF16, as above.
// The result's out_features counts whole strips of both: 2 * 16 * num_strips(gate).
MatrixShape plan_gate_up(const WeightSource& gate, const WeightSource& up, const MatrixPolicy& policy);
void pack_gate_up(const WeightSource& gate, const WeightSource& up, const MatrixShape& shape, int64_t strip_begin,
                  int64_t strip_end, std::byte* matrix);

// The plain definition of the layout: weight [out][in] of a packed matrix is value * scale; the value of integers is an
// integer, zero point subtracted. For tests and the reference kernels.
struct PackedElement {
  float value, scale;
};
PackedElement packed_element(const PackedMatrix& matrix, int64_t out, int64_t in);

}  // namespace cachalot
