#pragma once

#include <cstdint>
#include <span>

#include "config/model_config.h"
#include "tensor/dtype.h"

// How the weights that share a scale are rounded, in each format.
namespace cachalot {

// A group (a multiple of 32 finite weights), and how much the squared error of each counts: alike, unless it is known
// how large the activations are that it meets.
struct WeightGroup {
  std::span<const float> weights, importance;
};

// One AWQ group: weight = (nibble - zero) * scale.
struct AwqGroup {
  fp16 scale;
  uint8_t zero = 0;
  double squared_error = 0;
};

// Rounds a group to nibbles. The range of 15 steps is that of the weights or a
// narrower one: cutting off a few outliers makes all steps finer; the range with the least squared error wins, and its
// scale is fitted to the nibbles by least squares.
AwqGroup quantize_awq_group(const WeightGroup& group, uint8_t* nibbles);

// One group with the zero point 8 and a bf16 scale, as compressed-tensors' symmetric int4: else the same.
struct SymmetricGroup {
  bf16 scale;
  double squared_error = 0;
};
SymmetricGroup quantize_symmetric_group(const WeightGroup& group, uint8_t* nibbles);

// One group of MXFP4: weight = E2M1 code * 2^(scale - 127), each code the nearest, ties to even. The scale is of those
// around the largest weight the one with the least squared error.
struct Mxfp4Group {
  uint8_t scale = 0;
  double squared_error = 0;
};
Mxfp4Group quantize_mxfp4_group(const WeightGroup& group, uint8_t* codes);

// The numbers that a group is in kAwq, kPackedInt (of four bits, without zero points) or kMxfp4. `codes`: as many, to
// work in.
void round_trip(WeightFormat format, const WeightGroup& group, uint8_t* codes, float* values);

// fp8 e4m3 as fp8e4m3(value) rounds, for finite values up to 448; fast.
uint8_t encode_e4m3(float value);
// The scale of an fp8 block with this largest magnitude.
float fp8_block_scale(float max_magnitude);

}  // namespace cachalot
