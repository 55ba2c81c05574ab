#include "weights/row_reader.h"

#include <algorithm>

#include "base/check.h"
#include "base/math.h"
#include "base/numbers.h"

namespace cachalot {
namespace {

template <class Number, class Bits>
std::vector<float> table_of(int num_patterns) {
  std::vector<float> table(static_cast<size_t>(num_patterns));
  for (int bits = 0; bits < num_patterns; bits++)
    table[bits] = static_cast<float>(Number::from_bits(static_cast<Bits>(bits)));
  return table;
}

}  // namespace

RowReader::RowReader(const WeightSource& source) : source_(source) {
  CHECK(source.format != SourceFormat::kAwq);
  CHECK(source.out_count == source.out_features && source.in_count == source.in_features);
  if (source.dtype == DType::kF16) table_ = table_of<fp16, uint16_t>(1 << 16);
  if (source.dtype == DType::kF8E4M3) table_ = table_of<fp8e4m3, uint8_t>(1 << 8);
}

void RowReader::read(int64_t row, float* values) const {
  const int64_t in = source_.in_features;
  switch (source_.dtype) {
    case DType::kF32:
      std::copy_n(static_cast<const float*>(source_.data) + row * in, in, values);
      return;
    case DType::kBF16: {
      const bf16* bits = static_cast<const bf16*>(source_.data) + row * in;
      for (int64_t idx = 0; idx < in; idx++) values[idx] = static_cast<float>(bits[idx]);
      return;
    }
    case DType::kF16: {
      const uint16_t* bits = static_cast<const uint16_t*>(source_.data) + row * in;
      for (int64_t idx = 0; idx < in; idx++) values[idx] = table_[bits[idx]];
      return;
    }
    case DType::kF8E4M3: {
      const uint8_t* bits = static_cast<const uint8_t*>(source_.data) + row * in;
      const int64_t blocks = ceil_div(in, source_.block_cols);
      const float* scales = static_cast<const float*>(source_.scales) + row / source_.block_rows * blocks;
      for (int64_t block = 0; block < blocks; block++) {
        const int64_t end = std::min(in, (block + 1) * source_.block_cols);
        for (int64_t idx = block * source_.block_cols; idx < end; idx++)
          values[idx] = table_[bits[idx]] * scales[block];
      }
      return;
    }
    default:
      CHECK(false, "{} is no weight", dtype_name(source_.dtype));
  }
}

}  // namespace cachalot
