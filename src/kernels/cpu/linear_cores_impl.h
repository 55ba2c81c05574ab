#pragma once

#include <cstdint>

#include "base/math.h"
#include "base/numbers.h"
#include "kernels/cores.h"
#include "kernels/cpu/float_core_loops.h"
#include "kernels/cpu/float_decoders.h"
#include "kernels/cpu/int_records.h"
#include "kernels/row_cores.h"

// LinearCores written once over a level's vectors, its Simd and TileSimd (simd.h), but for the integer core. Included
// by one file of each level, and of internal linkage, as cpu/row_cores_impl.h.
namespace cachalot {
namespace {

template <class T>
void float_core(const FloatCoreArgs& args) {
  switch (args.matrix.shape.format) {
    case MatrixFormat::kF32:
      return FloatCoreLoops<T, Decoder<T, MatrixFormat::kF32>>::run(args);
    case MatrixFormat::kBF16:
      return FloatCoreLoops<T, Decoder<T, MatrixFormat::kBF16>>::run(args);
    case MatrixFormat::kF8:
      return FloatCoreLoops<T, Decoder<T, MatrixFormat::kF8>>::run(args);
    case MatrixFormat::kI8:
      return FloatCoreLoops<T, Decoder<T, MatrixFormat::kI8>>::run(args);
    case MatrixFormat::kI4:
      return FloatCoreLoops<T, Decoder<T, MatrixFormat::kI4>>::run(args);
  }
}

template <const RowCores& kRowCores>
void quantize(const float* x, int64_t count, int group, int8_t* values, float* scales) {
  kRowCores.quantize(x, count, group, values, scales);
}

template <class S>
void silu_product(float* gate, const float* up, int64_t stride, int64_t num_rows) {
  using Floats = typename S::Floats;
  const typename S::Whole whole{};
  for (int64_t row = 0; row < num_rows; row++, gate += stride, up += stride) {
    for (int column = 0; column < kStrip; column += S::kLanes) {
      const Floats x = S::load(gate + column, whole);
      const Floats e = S::exp_nonpositive(S::sub(S::zero(), S::abs(x)));
      const Floats silu = S::div(S::mul(x, S::select_negative(x, e, S::set(1.f))), S::add(S::set(1.f), e));
      S::store(gate + column, whole, S::mul(silu, S::load(up + column, whole)));
    }
  }
}

template <class S>
void store_bf16(const float* tile, int64_t stride, int64_t num_rows, bf16* out, int64_t out_stride) {
  const typename S::Whole whole{};
  for (int64_t row = 0; row < num_rows; row++, tile += stride, out += out_stride) {
    for (int column = 0; column < kStrip; column += S::kLanes)
      S::store(out + column, whole, S::load(tile + column, whole));
  }
}

template <class S, class T, const RowCores& kRowCores, const IntCore& kIntCore>
constexpr LinearCores linear_cores() {
  return {.float_core = float_core<T>,
          .int_core = &kIntCore,
          .quantize = quantize<kRowCores>,
          .silu_product = silu_product<S>,
          .store_bf16 = store_bf16<S>};
}

}  // namespace
}  // namespace cachalot
