#include <emmintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/matrix_pack.h"

// AWQ words and kI4 vectors hold the same nibbles in different order. A word of a source row has outputs 0, 2, 4, 6 in
// its low half and 1, 3, 5, 7 in its high half; so two words a row are a strip's outputs, and eight rows make one
// vector.
namespace cachalot {
namespace {

constexpr int kRowsOfVector = 8;
constexpr int64_t kRowsAhead = 32;    // to prefetch
constexpr int64_t kStripsOfLine = 8;  // strips whose words share a cache line of the source
constexpr int64_t kStripsAtOnce =
    kPackedStrips;  // rows lie pages apart: the more of one is read, the fewer pages are walked
constexpr int kWordShift[8] = {0, 16, 4, 20, 8, 24, 12, 28};

// The outputs of one strip in rows of words: the two words of row `idx`, as one number.
class StripWords {
 public:
  StripWords() = default;
  StripWords(const WeightSource& source, int64_t strip)
      : words_of_row_(source.out_features / 8),
        first_output_(source.out_begin + strip * kStrip),
        num_outputs_(static_cast<int>(std::min<int64_t>(kStrip, source.out_count - strip * kStrip))) {}

  uint64_t at(const void* words, int64_t row) const {
    const auto* row_words = static_cast<const std::byte*>(words) + row * words_of_row_ * 4;
    return first_output_ % 8 == 0 && num_outputs_ == kStrip ? whole_words(row_words) : gathered(row_words);
  }
  // The rows lie far apart, each in a page of its own: no prefetcher of the processor follows them.
  void prefetch(const void* words, int64_t row) const {
    __builtin_prefetch(static_cast<const std::byte*>(words) + row * words_of_row_ * 4 + first_output_ / 8 * 4);
  }
  int64_t first_output() const { return first_output_; }
  int num_outputs() const { return num_outputs_; }

 private:
  uint64_t whole_words(const std::byte* row_words) const {
    uint64_t pair;
    std::memcpy(&pair, row_words + first_output_ / 8 * 4, sizeof(pair));
    return pair;
  }
  // A window that cuts a word, or a strip that is not full.
  uint64_t gathered(const std::byte* row_words) const {
    uint64_t pair = 0;
    for (int lane = 0; lane < num_outputs_; lane++) {
      const int64_t output = first_output_ + lane;
      uint32_t word;
      std::memcpy(&word, row_words + output / 8 * 4, sizeof(word));
      const uint64_t nibble = (word >> kWordShift[output % 8]) & 15;
      pair |= nibble << (lane / 8 * 32 + kWordShift[lane % 8]);
    }
    return pair;
  }

  int64_t words_of_row_ = 0, first_output_ = 0;
  int num_outputs_ = 0;
};

__m128i load_pair(uint64_t pair) {
  return _mm_cvtsi64_si128(static_cast<int64_t>(pair));
}

// Four rows of four-byte groups, transposed: dword i holds byte i of each row.
struct Columns {
  __m128i first_word, second_word;
};
Columns transpose(const __m128i (&rows)[4]) {
  const __m128i low = _mm_unpacklo_epi8(rows[0], rows[1]), high = _mm_unpacklo_epi8(rows[2], rows[3]);
  return {_mm_unpacklo_epi16(low, high), _mm_unpackhi_epi16(low, high)};
}

// A word's outputs 0, 4, 1, 5 and 2, 6, 3, 7 as dwords, put into order.
void store_outputs(__m128i even_nibbles, __m128i odd_nibbles, std::byte* out) {
  const __m128 even = _mm_castsi128_ps(even_nibbles), odd = _mm_castsi128_ps(odd_nibbles);
  auto* target = reinterpret_cast<__m128i*>(out);
  _mm_storeu_si128(target, _mm_castps_si128(_mm_shuffle_ps(even, odd, _MM_SHUFFLE(2, 0, 2, 0))));
  _mm_storeu_si128(target + 1, _mm_castps_si128(_mm_shuffle_ps(even, odd, _MM_SHUFFLE(3, 1, 3, 1))));
}

// Eight rows of a strip to one vector: rows 0..3 in low nibbles, 4..7 in high ones.
void pack_vector(const uint64_t (&rows)[kRowsOfVector], std::byte* out) {
  const __m128i low_mask = _mm_set1_epi8(0x0f), high_mask = _mm_set1_epi8(static_cast<char>(0xf0));
  __m128i even[4], odd[4];
  for (int row = 0; row < 4; row++) {
    const __m128i low = load_pair(rows[row]), high = load_pair(rows[row + 4]);
    even[row] = _mm_or_si128(_mm_and_si128(low, low_mask), _mm_and_si128(_mm_slli_epi32(high, 4), high_mask));
    odd[row] = _mm_or_si128(_mm_and_si128(_mm_srli_epi32(low, 4), low_mask), _mm_and_si128(high, high_mask));
  }
  const Columns even_columns = transpose(even), odd_columns = transpose(odd);
  store_outputs(even_columns.first_word, odd_columns.first_word, out);
  store_outputs(even_columns.second_word, odd_columns.second_word, out + 32);
}

// An fp16 number as its bits; exact by the plan.
uint16_t fp16_bits(float value) {
  const uint32_t sign = std::bit_cast<uint32_t>(value) >> 16 & 0x8000;
  const float shifted = std::bit_cast<float>(std::bit_cast<uint32_t>(value) & 0x7fffffffu) * 0x1p-112f;
  return static_cast<uint16_t>(sign | std::bit_cast<uint32_t>(shifted) >> 13);
}

void pack_scales(const WeightSource& source, int64_t group, const StripWords& strip, std::byte* out) {
  uint16_t scales[kStrip] = {};
  const auto count = static_cast<size_t>(strip.num_outputs());
  const auto first = static_cast<size_t>(group * source.out_features + strip.first_output());
  const auto* data = static_cast<const std::byte*>(source.scales) + first * dtype_size(source.scale_dtype);
  if (source.scale_dtype == DType::kF16) {
    std::memcpy(scales, data, count * sizeof(uint16_t));
  } else if (source.scale_dtype == DType::kF32) {
    float values[kStrip];
    std::memcpy(values, data, count * sizeof(float));
    for (size_t lane = 0; lane < count; lane++) scales[lane] = fp16_bits(values[lane]);
  } else {
    bf16 values[kStrip];
    std::memcpy(values, data, count * sizeof(bf16));
    for (size_t lane = 0; lane < count; lane++) scales[lane] = fp16_bits(static_cast<float>(values[lane]));
  }
  std::memcpy(out, scales, sizeof(scales));
}

// Zero points of a group: even outputs in the first dword, odd ones in the second; an AWQ word has them in its two
// halves.
void pack_zeros(uint64_t pair, std::byte* out) {
  const auto first = static_cast<uint32_t>(pair), second = static_cast<uint32_t>(pair >> 32);
  const uint32_t zeros[2] = {(first & 0xffff) | second << 16, first >> 16 | (second & 0xffff0000u)};
  std::memcpy(out, zeros, sizeof(zeros));
}

// One block of up to kStripsAtOnce strips, side by side, so that a line of the source is read once.
void pack_block(const WeightSource& source, const MatrixShape& shape, const StripWords* strips, int64_t num_strips,
                int64_t block_idx, std::byte* out, size_t out_stride) {
  const int64_t first_row = source.in_begin + block_idx * shape.block_inputs;
  const int64_t end_row = source.in_begin + source.in_count;
  const int64_t group = first_row / source.group_size;
  uint64_t zeros[kStripsAtOnce];
  for (int64_t idx = 0; idx < num_strips; idx++) {
    zeros[idx] = source.zeros ? strips[idx].at(source.zeros, group) : 0x8888888888888888u;
    std::byte* block = out + static_cast<size_t>(idx) * out_stride;
    pack_scales(source, group, strips[idx], block + shape.scales_offset());
    pack_zeros(zeros[idx], block + shape.zeros_offset());
  }
  for (int vector = 0; vector < shape.block_inputs / kRowsOfVector; vector++) {
    const int64_t row_begin = first_row + vector * kRowsOfVector;
    for (int64_t row = 0; row < kRowsOfVector; row++)
      for (int64_t idx = 0; idx < num_strips; idx += kStripsOfLine)
        strips[idx].prefetch(source.data, row_begin + kRowsAhead + row);
    for (int64_t idx = 0; idx < num_strips; idx++) {
      uint64_t rows[kRowsOfVector];
      for (int64_t row = 0; row < kRowsOfVector; row++)
        rows[row] = row_begin < end_row ? strips[idx].at(source.data, row_begin + row) : zeros[idx];
      pack_vector(rows, out + static_cast<size_t>(idx) * out_stride + vector * 64);
    }
  }
}

}  // namespace

void pack_awq(const WeightSource& source, const MatrixShape& shape, const StripRange& strips) {
  for (int64_t begin = strips.begin; begin < strips.end;) {
    const int64_t end = std::min((begin / kStripsAtOnce + 1) * kStripsAtOnce, strips.end);
    std::byte* out = strips.out + static_cast<size_t>(begin - strips.begin) * strips.out_stride;
    StripWords words[kStripsAtOnce];
    for (int64_t strip = begin; strip < end; strip++) words[strip - begin] = StripWords(source, strip);
    for (int64_t block_idx = 0; block_idx < shape.num_blocks(); block_idx++)
      pack_block(source, shape, words, end - begin, block_idx,
                 out + static_cast<size_t>(block_idx) * shape.block_bytes(), strips.out_stride);
    begin = end;
  }
}

}  // namespace cachalot
