#include <emmintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/math.h"
#include "kernels/cores.h"
#include "kernels/matrix.h"

namespace cachalot {
namespace {

// Strips of one source, written to places that need not be adjacent (gate and up alternate).
struct StripRange {
  int64_t begin = 0, end = 0;  // strips of the source's window
  std::byte* out = nullptr;    // where strip `begin` goes
  size_t out_stride = 0;       // bytes from strip to strip
};

// ---- kAwq to kI4, at the speed of memory ----

// AWQ words and kI4 vectors hold the same nibbles in different order. A word of a source row has outputs 0, 2, 4, 6 in
// its low half and 1, 3, 5, 7 in its high half; so two words a row are a strip's outputs, and eight rows make one
// vector.
constexpr int kRowsOfVector = 8;
constexpr int64_t kRowsAhead = 32;    // to prefetch
constexpr int64_t kStripsOfLine = 8;  // strips whose words share a cache line of the source
constexpr int64_t kStripsAtOnce =
    kPackedStrips;  // rows lie pages apart: the more of one is read, the fewer pages are walked

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
      const uint64_t nibble = (word >> kAwqShift[output % 8]) & 15;
      pair |= nibble << (lane / 8 * 32 + kAwqShift[lane % 8]);
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

// A scale as a block of four-bit weights holds it.
uint16_t scale_bits(MatrixFormat format, float scale) {
  if (format == MatrixFormat::kI4) return fp16_bits(scale);
  constexpr float kSmallest = 0x1p-100f;
  if (format == MatrixFormat::kF4) return static_cast<uint16_t>(std::bit_cast<uint32_t>(scale * 0.5f) >> 16);
  return std::fabs(scale) < kSmallest ? 0 : static_cast<uint16_t>(std::bit_cast<uint32_t>(scale) >> 16);
}

// Scales `first`, `first + step`, ... of the source.
void pack_scales(const WeightSource& source, MatrixFormat format, int64_t first, int64_t step, int count,
                 std::byte* out) {
  uint16_t scales[kStrip] = {};
  if (source.scale_dtype == DType::kF16 && step == 1) {
    std::memcpy(scales, static_cast<const fp16*>(source.scales) + first, static_cast<size_t>(count) * sizeof(fp16));
  } else {
    for (int lane = 0; lane < count; lane++) scales[lane] = scale_bits(format, scale_at(source, first + lane * step));
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
    pack_scales(source, shape.format, group * source.out_features + strips[idx].first_output(), 1,
                strips[idx].num_outputs(), block + shape.scales_offset());
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

// ---- rows of nibbles in order (kPackedInt, kMxfp4) to the blocks of kI4 and kF4 ----

// Eight nibbles of a row to an output's four bytes of a vector: inputs 0..3 in low nibbles, 4..7 in high ones.
uint32_t vector_bytes(uint32_t word) {
  const auto spread = [](uint32_t half) {
    half = (half | half << 8) & 0x00ff00ffu;
    return (half | half << 4) & 0x0f0f0f0fu;
  };
  return spread(word & 0xffff) | spread(word >> 16) << 4;
}

// The zero points of a strip's outputs in one group, as a block holds them: output o is nibble o / 2 of dword o % 2.
void pack_zeros_of_rows(const WeightSource& source, int64_t first_row, int num_rows, int64_t group,
                        uint8_t (&zeros)[kStrip], std::byte* out) {
  uint32_t words[2] = {};
  for (int lane = 0; lane < num_rows; lane++) {
    zeros[lane] =
        int_element(source, first_row - source.out_begin + lane, group * source.group_size - source.in_begin).zero;
    words[lane & 1] |= uint32_t{zeros[lane]} << (lane / 2 * 4);
  }
  std::memcpy(out, words, sizeof(words));
}

void pack_nibble_strip(const WeightSource& source, const MatrixShape& shape, int64_t strip, std::byte* out) {
  constexpr int64_t kWordsOfLine = 16;
  const int64_t row_bytes = ceil_div(source.in_features, 8) * 4, num_words = shape.in_features / 8;
  const int64_t vectors = shape.block_inputs / 8, num_groups = ceil_div(source.in_features, source.group_size);
  const auto block_bytes = static_cast<int64_t>(shape.block_bytes());
  const int64_t first_row = source.out_begin + strip * kStrip;
  const int num_rows = static_cast<int>(std::min<int64_t>(kStrip, source.out_count - strip * kStrip));
  const auto* data =
      static_cast<const std::byte*>(source.data) + first_row * row_bytes + source.in_begin / 2;  // whole words
  for (int64_t begin = 0; begin < num_words; begin += kWordsOfLine) {
    const int64_t count = std::min(kWordsOfLine, num_words - begin);
    for (int lane = 0; lane < num_rows; lane++) {
      uint32_t words[kWordsOfLine] = {};
      std::memcpy(words, data + lane * row_bytes + begin * 4, static_cast<size_t>(count) * sizeof(uint32_t));
      for (uint32_t& word : words) word = vector_bytes(word);
      for (int64_t idx = 0; idx < count; idx++)
        std::memcpy(out + (begin + idx) / vectors * block_bytes + (begin + idx) % vectors * 64 + lane * 4, words + idx,
                    sizeof(uint32_t));
    }
  }
  for (int64_t block = 0; block < shape.num_blocks(); block++) {
    std::byte* target = out + block * block_bytes;
    const int64_t group = (source.in_begin + block * shape.block_inputs) / source.group_size;
    pack_scales(source, shape.format, first_row * num_groups + group, num_groups, num_rows,
                target + shape.scales_offset());
    if (shape.format == MatrixFormat::kF4) continue;
    uint8_t zeros[kStrip] = {};
    pack_zeros_of_rows(source, first_row, num_rows, group, zeros, target + shape.zeros_offset());
    for (int64_t word = std::max(block * vectors, num_words); word < (block + 1) * vectors; word++)  // padding
      for (int lane = 0; lane < num_rows; lane++)
        std::memset(target + (word - block * vectors) * 64 + lane * 4, zeros[lane] * 0x11, 4);
  }
}

// ---- kPackedInt of eight bits to kI8 ----

void pack_int8_strip(const WeightSource& source, const MatrixShape& shape, int64_t strip, std::byte* out) {
  const int64_t row_bytes = ceil_div(source.in_features, 4) * 4;
  const int64_t num_groups = ceil_div(source.in_features, source.group_size);
  for (int64_t lane = 0; lane < std::min<int64_t>(kStrip, source.out_count - strip * kStrip); lane++) {
    const int64_t row = source.out_begin + strip * kStrip + lane;
    const auto* data = static_cast<const uint8_t*>(source.data) + row * row_bytes + source.in_begin;
    std::byte* block = out;
    for (int64_t in = 0; in < shape.in_features; in += shape.block_inputs, block += shape.block_bytes()) {
      const int64_t count = std::min<int64_t>(shape.block_inputs, shape.in_features - in);
      for (int64_t place = 0; place < count; place++)
        block[place / 4 * 64 + lane * 4 + place % 4] = static_cast<std::byte>(data[in + place] ^ 0x80);
      const float scale = scale_at(source, row * num_groups + (source.in_begin + in) / source.group_size);
      std::memcpy(block + shape.scales_offset() + static_cast<size_t>(lane) * sizeof(float), &scale, sizeof(float));
    }
  }
}

constexpr int kInt8Inputs = 64;        // of a kI8 block
constexpr int64_t kChunkInputs = 256;  // inputs of a strip that are expanded to floats at a time

// ---- formats that hold the file's own numbers: only their order changes ----

// `words[out][idx]` to `out[idx][16 outputs]`. A source line at a time: 16 rows may lie a power of two apart.
template <class Word>
void interleave(const std::byte* const (&rows)[kStrip], int num_rows, int64_t num_words, std::byte* out) {
  constexpr int64_t kWordsOfLine = 64 / sizeof(Word);
  for (int64_t begin = 0; begin < num_words; begin += kWordsOfLine) {
    const int64_t end = std::min(begin + kWordsOfLine, num_words);
    for (int row = 0; row < num_rows; row++) {
      for (int64_t word = begin; word < end; word++)
        std::memcpy(out + (word * kStrip + row) * static_cast<int64_t>(sizeof(Word)),
                    rows[row] + word * static_cast<int64_t>(sizeof(Word)), sizeof(Word));
    }
  }
}

// `num_inputs` inputs of a strip from `in` on; a last part of a word is filled up with zeros. `out` is zeroed.
template <class Word>
void interleave_inputs(const WeightSource& source, int64_t strip, int64_t in, int64_t num_inputs, std::byte* out) {
  const size_t input_bytes = dtype_size(source.format == SourceFormat::kPlain ? source.dtype : DType::kF8E4M3);
  const int num_rows = static_cast<int>(std::min<int64_t>(kStrip, source.out_count - strip * kStrip));
  const std::byte* rows[kStrip] = {};
  for (int row = 0; row < num_rows; row++) {
    const int64_t first = (source.out_begin + strip * kStrip + row) * source.in_features + source.in_begin + in;
    rows[row] = static_cast<const std::byte*>(source.data) + static_cast<size_t>(first) * input_bytes;
  }
  const size_t bytes = static_cast<size_t>(num_inputs) * input_bytes, whole_words = bytes / sizeof(Word);
  interleave<Word>(rows, num_rows, static_cast<int64_t>(whole_words), out);
  for (int row = 0; row < num_rows; row++)
    std::memcpy(out + (whole_words * kStrip + static_cast<size_t>(row)) * sizeof(Word),
                rows[row] + whole_words * sizeof(Word), bytes % sizeof(Word));
}

void pack_fp8_strip(const WeightSource& source, const MatrixShape& shape, int64_t strip, std::byte* out) {
  const int64_t blocks_of_row = ceil_div(source.in_features, source.block_cols);
  int64_t count = shape.first_block_inputs;
  for (int64_t in = 0; in < shape.in_features; in += count, count = shape.block_inputs, out += shape.block_bytes()) {
    count = std::min(count, shape.in_features - in);
    interleave_inputs<uint32_t>(source, strip, in, count, out);
    for (int64_t lane = 0; lane < std::min<int64_t>(kStrip, source.out_count - strip * kStrip); lane++) {
      const int64_t row = source.out_begin + strip * kStrip + lane;
      const int64_t scale = row / source.block_rows * blocks_of_row + (source.in_begin + in) / source.block_cols;
      const float value = scale_at(source, scale);
      std::memcpy(out + shape.scales_offset() + static_cast<size_t>(lane) * sizeof(float), &value, sizeof(float));
    }
  }
}

// ---- all others, by way of floats ----

float widen(float value) {
  return value;
}
float widen(bf16 value) {
  return static_cast<float>(value);
}
float widen(fp16 value) {
  if ((value.bits & 0x7c00) == 0x7c00) return static_cast<float>(value);  // infinite or NaN
  const float magnitude = std::bit_cast<float>(static_cast<uint32_t>(value.bits & 0x7fff) << 13) * 0x1p112f;
  return value.bits & 0x8000 ? -magnitude : magnitude;
}
template <class T>
void widen(const void* data, int64_t first, int64_t count, float* values) {
  const auto* elements = static_cast<const T*>(data) + first;
  for (int64_t idx = 0; idx < count; idx++) values[idx] = widen(elements[idx]);
}

// The nearest integer, ties to even, for |value| < 2^22; unlike nearbyint, the compiler makes vectors of it.
int32_t round_to_int(float value) {
  constexpr float kMagic = 12582912.f;  // 1.5 * 2^23: the last bit of a sum with it counts ones
  return std::bit_cast<int32_t>(value + kMagic) - std::bit_cast<int32_t>(kMagic);
}

// The rule of QuantizedRows, for one output's inputs of a kI8 block.
void pack_i8_output(const float* values, int64_t count, int lane, std::byte* block, float* scale) {
  float largest = 0;
  for (int64_t idx = 0; idx < count; idx++) largest = std::max(largest, std::fabs(values[idx]));
  if (!(largest >= kSmallestQuantized)) return;  // the strip is zeroed
  *scale = largest / 127.f;
  const float factor = 127.f / largest;
  int8_t quantized[kInt8Inputs] = {};
  for (int64_t place = 0; place < count; place++)
    quantized[place] = static_cast<int8_t>(round_to_int(values[place] * factor));
  for (int quad = 0; quad < kInt8Inputs / 4; quad++) std::memcpy(block + quad * 64 + lane * 4, quantized + quad * 4, 4);
}

// Inputs [in, in + count) of output `lane`; `out` is their first block.
void pack_values(const MatrixShape& shape, const float* values, int64_t count, int lane, std::byte* out) {
  for (int64_t begin = 0; begin < count; begin += shape.block_inputs, out += shape.block_bytes()) {
    const int64_t block_count = std::min<int64_t>(shape.block_inputs, count - begin);
    if (shape.format == MatrixFormat::kI8) {
      pack_i8_output(values + begin, block_count, lane, out,
                     reinterpret_cast<float*>(out + shape.scales_offset()) + lane);
    } else {
      for (int64_t place = 0; place < block_count; place++) {
        const float value = values[begin + place];
        if (shape.format == MatrixFormat::kF32) {
          reinterpret_cast<float*>(out)[lane * 2 + place] = value;
        } else {
          reinterpret_cast<bf16*>(out)[lane * 2 + place] = bf16(value);
        }
      }
    }
  }
}

void pack_values_strip(const WeightSource& source, const MatrixShape& shape, int64_t strip, std::byte* out) {
  static_assert(kChunkInputs % 64 == 0);  // whole blocks of the formats that come this way
  float values[kChunkInputs];
  const int num_outputs = static_cast<int>(std::min<int64_t>(kStrip, source.out_count - strip * kStrip));
  for (int64_t in = 0; in < shape.in_features; in += kChunkInputs) {
    const int64_t count = std::min(kChunkInputs, shape.in_features - in);
    std::byte* blocks = out + static_cast<size_t>(in / shape.block_inputs) * shape.block_bytes();
    for (int lane = 0; lane < num_outputs; lane++) {
      read_values(source, strip * kStrip + lane, in, count, values);
      pack_values(shape, values, count, lane, blocks);
    }
  }
}

bool holds_own_numbers(const WeightSource& source, const MatrixShape& shape) {
  return source.format == SourceFormat::kPlain &&
         ((source.dtype == DType::kBF16 && shape.format == MatrixFormat::kBF16) ||
          (source.dtype == DType::kF32 && shape.format == MatrixFormat::kF32));
}

// Writes one strip, which is zeroed.
using StripPacker = void (*)(const WeightSource&, const MatrixShape&, int64_t strip, std::byte* out);

template <class Word>
void interleave_strip(const WeightSource& source, const MatrixShape& shape, int64_t strip, std::byte* out) {
  interleave_inputs<Word>(source, strip, 0, shape.in_features, out);
}

StripPacker strip_packer(const WeightSource& source, const MatrixShape& shape) {
  if (shape.has_four_bits()) return pack_nibble_strip;
  if (shape.format == MatrixFormat::kF8) return pack_fp8_strip;
  if (shape.format == MatrixFormat::kI8 && source.format == SourceFormat::kPackedInt) return pack_int8_strip;
  if (!holds_own_numbers(source, shape)) return pack_values_strip;
  return shape.format == MatrixFormat::kBF16 ? interleave_strip<uint32_t> : interleave_strip<uint64_t>;
}

void pack_strips(const WeightSource& source, const MatrixShape& shape, const StripRange& strips) {
  const bool of_nibbles = source.format == SourceFormat::kAwq || source.format == SourceFormat::kMxfp4 ||
                          source.format == SourceFormat::kPackedInt;
  CHECK(!shape.has_four_bits() || of_nibbles, "four-bit matrices come from files of four bits only");
  CHECK(shape.format != MatrixFormat::kF8 || source.format == SourceFormat::kFp8Block,
        "fp8 matrices come from fp8 files only");
  if (shape.has_four_bits() && source.format == SourceFormat::kAwq) return pack_awq(source, shape, strips);
  const StripPacker pack = strip_packer(source, shape);
  for (int64_t strip = strips.begin; strip < strips.end; strip++) {
    std::byte* out = strips.out + static_cast<size_t>(strip - strips.begin) * strips.out_stride;
    std::memset(out, 0, shape.strip_bytes());
    pack(source, shape, strip, out);
  }
}

}  // namespace

void read_values(const WeightSource& source, int64_t out, int64_t in, int64_t count, float* values) {
  const int64_t row = source.out_begin + out, first = row * source.in_features + source.in_begin + in;
  if (source.format == SourceFormat::kPlain) {
    if (source.dtype == DType::kF32) return widen<float>(source.data, first, count, values);
    return source.dtype == DType::kBF16 ? widen<bf16>(source.data, first, count, values)
                                        : widen<fp16>(source.data, first, count, values);
  }
  if (source.format == SourceFormat::kAwq || source.format == SourceFormat::kPackedInt) {
    for (int64_t idx = 0; idx < count; idx++) {
      const IntElement weight = int_element(source, out, in + idx);
      values[idx] = static_cast<float>(weight.quantum - weight.zero) * weight.scale;
    }
    return;
  }
  if (source.format == SourceFormat::kMxfp4) {
    const auto* codes = static_cast<const uint8_t*>(source.data);
    for (int64_t idx = first; idx < first + count; idx++) {
      const float value = static_cast<float>(kE2m1Doubled[codes[idx / 2] >> (idx % 2 * 4) & 15]) * 0.5f;
      values[idx - first] = value * scale_at(source, idx / source.group_size);
    }
    return;
  }
  const std::array<float, 256>& table = fp8_values();
  const auto* data = static_cast<const uint8_t*>(source.data) + first;
  const int64_t first_scale = row / source.block_rows * ceil_div(source.in_features, source.block_cols);
  for (int64_t idx = 0; idx < count;) {
    const int64_t column = source.in_begin + in + idx, block_end = (column / source.block_cols + 1) * source.block_cols;
    const int64_t end = std::min(idx + block_end - column, count);
    const float scale = scale_at(source, first_scale + column / source.block_cols);
    for (; idx < end; idx++) values[idx] = table[data[idx]] * scale;
  }
}

void pack_matrix(const WeightSource& source, const MatrixShape& shape, int64_t strip_begin, int64_t strip_end,
                 std::byte* matrix) {
  CHECK(0 <= strip_begin && strip_begin <= strip_end && strip_end <= shape.num_strips(), "strips [{}, {}) of {}",
        strip_begin, strip_end, shape.num_strips());
  CHECK(shape.out_features == source.out_count && shape.in_features == source.in_count,
        "a matrix [{}, {}] from a window [{}, {}]", shape.out_features, shape.in_features, source.out_count,
        source.in_count);
  pack_strips(
      source, shape,
      {strip_begin, strip_end, matrix + static_cast<size_t>(strip_begin) * shape.strip_bytes(), shape.strip_bytes()});
}

void pack_gate_up(const WeightSource& gate, const WeightSource& up, const MatrixShape& shape, int64_t strip_begin,
                  int64_t strip_end, std::byte* matrix) {
  CHECK(0 <= strip_begin && strip_begin <= strip_end && strip_end <= shape.num_strips(), "strips [{}, {}) of {}",
        strip_begin, strip_end, shape.num_strips());
  CHECK(shape.in_features == gate.in_count, "a matrix of {} inputs from a window of {}", shape.in_features,
        gate.in_count);
  const auto alternate = [&](const WeightSource& source, int64_t begin, int64_t end, int64_t odd) {
    if (begin < end)
      pack_strips(
          source, shape,
          {begin, end, matrix + static_cast<size_t>(2 * begin + odd) * shape.strip_bytes(), 2 * shape.strip_bytes()});
  };
  alternate(gate, (strip_begin + 1) / 2, (strip_end + 1) / 2, 0);
  alternate(up, strip_begin / 2, strip_end / 2, 1);
}

}  // namespace cachalot
