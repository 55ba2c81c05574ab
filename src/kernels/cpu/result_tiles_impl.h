#pragma once

#include <cstdint>

#include "base/numbers.h"
#include "kernels/matrix.h"

// What comes after a product (LinearCores), written once over a level's vectors (avx2/simd.h, avx512/simd.h). Included
// by one file of each level, and of internal linkage, as cpu/row_cores_impl.h.
namespace cachalot {
namespace {

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

}  // namespace
}  // namespace cachalot
