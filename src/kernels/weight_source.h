#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace cachalot {

// How a checkpoint file holds a linear layer's weight.
enum class SourceFormat {
  kPlain,     // data [out, in] of `dtype` (F32, BF16, F16)
  kFp8Block,  // data [out, in] F8_E4M3, scales F32 [ceil(out/block_rows), ceil(in/block_cols)]: weight = data * scale
  kAwq,  // data I32 [in, out/8] (8 nibbles a word, output 8*w + {0,2,4,6,1,3,5,7}[nibble]), zeros I32 [in/group, out/8]
         // (same order), scales F16, BF16 or F32 as `scale_dtype` [in/group, out]: weight = (q - zero) * scale
};

// A linear layer's weight as the file holds it (whole, borrowed from the mapped file), and the window of it that a rank
// takes: outputs [out_begin, out_begin + out_count) x inputs [in_begin, in_begin + in_count). Windows may cut through
// blocks and groups anywhere.
struct WeightSource {
  SourceFormat format = SourceFormat::kPlain;
  DType dtype = DType::kBF16;
  const void* data = nullptr;
  const void* scales = nullptr;
  DType scale_dtype = DType::kF32;
  const void* zeros = nullptr;                // kAwq; null: every zero point is 8
  int64_t out_features = 0, in_features = 0;  // of the whole tensor
  int group_size = 0;                         // kAwq
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

// Row `out` of the window (0 <= out < out_count), inputs [in, in + count) of the window, as floats. The plain
// definition of what a weight is: packing, the reference kernels and the tests stand on it.
void dequantize(const WeightSource& source, int64_t out, int64_t in, int64_t count, float* values);

// The parts of an AWQ weight, window coordinates: weight = (nibble - zero) * scale.
struct AwqElement {
  uint8_t nibble, zero;
  float scale;
};
AwqElement awq_element(const WeightSource& source, int64_t out, int64_t in);

}  // namespace cachalot
