#include <emmintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/cores.h"

// The plain definitions, one number at a time; the other levels are tested against them.
namespace cachalot::reference {
namespace {

// ---- rows ----

// The rule of sums of cores.h: step(i, sum) gives `sum` with element i added.
template <class Step>
float sum_in_order(int64_t count, Step step) {
  float sums[kPartialSums] = {};
  for (int64_t i = 0; i < count; i++) sums[i % kPartialSums] = step(i, sums[i % kPartialSums]);
  for (int half = kPartialSums / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; i++) sums[i] += sums[i + half];
  }
  return sums[0];
}

float sum_of_squares(const float* x, int64_t count) {
  return sum_in_order(count, [&](int64_t i, float sum) { return std::fma(x[i], x[i], sum); });
}

float add_and_square(float* x, const float* delta, int64_t count) {
  for (int64_t i = 0; i < count; i++) x[i] += delta[i];
  return sum_of_squares(x, count);
}

void scale(const float* x, float factor, const float* weight, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i++) out[i] = x[i] * factor * weight[i];
}

void quantize(const float* x, int64_t count, int group, int8_t* values, float* scales) {
  for (int64_t begin = 0; begin < count; begin += group) {
    const int64_t end = std::min<int64_t>(begin + group, count);
    uint32_t bits = 0;  // in the order of the magnitudes, NaN behind all
    for (int64_t i = begin; i < end; i++) bits = std::max(bits, std::bit_cast<uint32_t>(std::fabs(x[i])));
    const auto largest = std::bit_cast<float>(bits);
    const bool zero = largest < kSmallestQuantized;
    *scales++ = zero ? 0.f : largest / 127.f;
    const float factor = zero || !std::isfinite(largest) ? 0.f : 127.f / largest;
    for (int64_t i = begin; i < end; i++)
      values[i] = factor == 0 ? int8_t{0} : static_cast<int8_t>(std::nearbyint(x[i] * factor));
  }
}

void rotate(const float* x, const float* cos, const float* sin, int64_t num_pairs, float* out) {
  for (int64_t pair = 0; pair < num_pairs; pair++) {
    const float first = x[2 * pair], second = x[2 * pair + 1];
    out[2 * pair] = first * cos[pair] - second * sin[pair];
    out[2 * pair + 1] = first * sin[pair] + second * cos[pair];
  }
}

void rotate_halves(const float* x, const float* cos, const float* sin, int64_t num_pairs, float* out) {
  for (int64_t pair = 0; pair < num_pairs; pair++) {
    const float first = x[pair], second = x[num_pairs + pair];
    out[pair] = first * cos[pair] - second * sin[pair];
    out[num_pairs + pair] = first * sin[pair] + second * cos[pair];
  }
}

template <class From, class To>
void convert(const From* in, int64_t count, To* out) {
  for (int64_t i = 0; i < count; i++) out[i] = static_cast<To>(static_cast<float>(in[i]));
}

template <class T>
void add_weighted(const T* const* rows, const float* weights, int num_rows, int64_t count, bool accumulate,
                  float* sum) {
  for (int64_t i = 0; i < count; i++) {
    if (!accumulate) sum[i] = 0;
    for (int k = 0; k < num_rows; k++) sum[i] = std::fma(weights[k], static_cast<float>(rows[k][i]), sum[i]);
  }
}

void sigmoid(const float* logits, int64_t count, float* scores) {
  for (int64_t i = 0; i < count; i++) {
    const float small = exp_nonpositive(-std::fabs(logits[i]));
    scores[i] = (logits[i] < 0 ? small : 1.f) / (1.f + small);
  }
}

void softmax(const float* logits, int64_t count, float* scores) {
  const float largest = *std::max_element(logits, logits + count);
  const float sum = sum_in_order(count, [&](int64_t i, float sum) {
    scores[i] = exp_nonpositive(logits[i] - largest);
    return sum + scores[i];
  });
  for (int64_t i = 0; i < count; i++) scores[i] /= sum;
}

void choice_scores(const float* scores, const float* bias, int64_t count, float* choice) {
  for (int64_t i = 0; i < count; i++) {
    choice[i] = scores[i] + (bias ? bias[i] : 0.f);
    if (!(choice[i] >= kLowestChoice)) choice[i] = kLowestChoice;  // a NaN, too
  }
}

int argmax(const float* x, int64_t count) {
  return static_cast<int>(std::max_element(x, x + count) - x);
}

void largest_two(const float* x, int64_t count, float* first, float* second) {
  *first = *second = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < count; i++) {
    *second = std::max(*second, std::min(*first, x[i]));
    *first = std::max(*first, x[i]);
  }
}

// ---- linears ----

// Adds the inputs [begin, begin + count) of all rows, a span, to one output's results.
void add_span(const FloatCoreArgs& args, int64_t out, int64_t begin, int64_t count, float* results) {
  float weights[kFloatSpan];
  for (int64_t place = 0; place < count; place++)
    weights[place] = packed_element(args.matrix, out, begin + place).value;
  const float scale = packed_element(args.matrix, out, begin).scale;
  for (int64_t row = 0; row < args.num_rows; row++) {
    float sums[4] = {};
    for (int64_t place = 0; place < count; place++)
      sums[place % 4] = std::fma(weights[place], args.rows[row][begin + place], sums[place % 4]);
    float& result = results[row * args.out_stride];
    result = std::fma((sums[0] + sums[2]) + (sums[1] + sums[3]), scale, result);
  }
}

void float_core(const FloatCoreArgs& args) {
  const MatrixShape& shape = args.matrix.shape;
  const int64_t span = shape.block_inputs == 2 ? kFloatSpan : shape.block_inputs;
  for (int64_t out = args.strip_begin * kStrip; out < args.strip_end * kStrip; out++) {
    float* results = args.out + out - args.strip_begin * kStrip;
    for (int64_t row = 0; row < args.num_rows; row++) results[row * args.out_stride] = 0;
    int64_t count = shape.format == MatrixFormat::kF8 ? shape.first_block_inputs : span;  // a cut matrix starts short
    for (int64_t begin = 0; begin < shape.in_features; begin += count, count = span) {
      count = std::min(count, shape.in_features - begin);
      add_span(args, out, begin, count, results);
    }
  }
}

// Prepared rows stay as they are: the values of all rows, then their scales, both padded to whole blocks.
struct PreparedRows {
  PreparedRows(const MatrixShape& shape, int64_t num_rows, std::byte* memory)
      : num_blocks(shape.num_blocks()),
        num_values(num_blocks * shape.block_inputs),
        values(reinterpret_cast<int8_t*>(memory)),
        scales(reinterpret_cast<float*>(memory + (num_values * num_rows + 63) / 64 * 64)) {}
  int64_t num_blocks, num_values;
  int8_t* values;  // [num_rows, num_values]
  float* scales;   // [num_rows, num_blocks]
};

size_t prepared_bytes(int64_t in_features, int64_t num_rows) {
  const auto rows = static_cast<size_t>(num_rows), padded = static_cast<size_t>((in_features + 63) / 64 * 64);
  return rows * padded + 64 + rows * padded / 32 * sizeof(float);
}

void prepare(const MatrixShape& shape, const IntRows& rows, std::byte* memory) {
  const PreparedRows prepared(shape, rows.num_rows, memory);
  for (int64_t row = 0; row < rows.num_rows; row++) {
    int8_t* values = prepared.values + row * prepared.num_values;
    std::fill(std::copy_n(rows.values[row], shape.in_features, values), values + prepared.num_values, int8_t{0});
    std::copy_n(rows.scales[row], prepared.num_blocks, prepared.scales + row * prepared.num_blocks);
  }
}

void multiply(const IntCoreArgs& args) {
  constexpr int kMostInputs = 64;
  const MatrixShape& shape = args.shape;
  const PreparedRows rows(shape, args.num_rows, const_cast<std::byte*>(args.prepared));
  std::fill_n(args.out, args.num_rows * 2 * kStrip, 0.f);
  for (int strip = 0; strip < 2; strip++) {
    const PackedMatrix matrix{shape, args.strips[strip]};
    for (int64_t block = 0; block < rows.num_blocks; block++) {
      for (int lane = 0; lane < kStrip; lane++) {
        int32_t weights[kMostInputs];
        for (int place = 0; place < shape.block_inputs; place++)
          weights[place] = static_cast<int32_t>(packed_element(matrix, lane, block * shape.block_inputs + place).value);
        const float scale = packed_element(matrix, lane, block * shape.block_inputs).scale;
        for (int64_t row = 0; row < args.num_rows; row++) {
          const int8_t* values = rows.values + row * rows.num_values + block * shape.block_inputs;
          int32_t sum = 0;
          for (int place = 0; place < shape.block_inputs; place++) sum += weights[place] * values[place];
          float& out = args.out[(2 * row + strip) * kStrip + lane];
          out = std::fma(static_cast<float>(sum), scale * rows.scales[row * rows.num_blocks + block], out);
        }
      }
    }
  }
}

void silu_product(float* gate, const float* up, int64_t stride, int64_t num_rows) {
  for (int64_t row = 0; row < num_rows; row++) {
    for (int64_t idx = row * stride; idx < row * stride + kStrip; idx++) {
      const float x = gate[idx], e = exp_nonpositive(-std::fabs(x));
      gate[idx] = (x < 0 ? x * e : x) / (1 + e) * up[idx];
    }
  }
}

void store_bf16(const float* tile, int64_t stride, int64_t num_rows, bf16* out, int64_t out_stride) {
  for (int64_t row = 0; row < num_rows; row++) {
    for (int column = 0; column < kStrip; column++) out[row * out_stride + column] = bf16(tile[row * stride + column]);
  }
}

// ---- attention: keys and values lie as they come, a position's behind another's ----

void pack_keys(const std::byte* const* rows, DType dtype, int64_t num_positions, int64_t first_dim, int64_t dim,
               int64_t key_dim, float* keys) {
  visit_compute(dtype, [&]<class T>() {
    for (int64_t position = 0; position < num_positions; position++)
      convert(reinterpret_cast<const T*>(rows[position]), dim, keys + position * key_dim + first_dim);
  });
}

void pack_values(const std::byte* const* rows, DType dtype, int64_t num_positions, int64_t dim, float* values) {
  pack_keys(rows, dtype, num_positions, 0, dim, dim, values);
}

void attend_row(const AttentionTile& tile, int64_t row, int64_t visible) {
  float p[kAttentionTile] = {};
  float &max = tile.max[row * tile.state_stride], &sum = tile.sum[row * tile.state_stride], new_max = max;
  const float* key = tile.keys;
  for (int64_t position = 0; position < visible; position++) {
    for (const AttentionTile::Piece& piece : tile.query)
      for (int64_t dim = 0; dim < piece.dim; dim++)
        p[position] = std::fma(piece.data[row * piece.stride + dim], *key++, p[position]);
    p[position] *= tile.softmax_scale;
    new_max = std::max(new_max, p[position]);
  }
  for (int64_t position = 0; position < visible; position++) p[position] = exp_nonpositive(p[position] - new_max);
  const float decay = exp_nonpositive(max - new_max);
  sum = std::fma(sum, decay, sum_in_order(kAttentionTile, [&](int64_t i, float sum) { return sum + p[i]; }));
  max = new_max;
  for (int64_t dim = 0; dim < tile.value_dim; dim++) {
    float value = 0;
    for (int64_t position = 0; position < visible; position++)
      value = std::fma(p[position], tile.values[position * tile.value_dim + dim], value);
    float& acc = tile.acc[row * tile.acc_stride + dim];
    acc = std::fma(acc, decay, value);
  }
}

void attend(const AttentionTile& tile) {
  static_assert(kAttentionTile == kPartialSums);  // p is added up by the same halves
  for (int64_t row = 0; row < tile.num_rows; row++) {
    const int64_t visible = std::min(tile.visible + row * tile.visible_step, tile.num_positions);
    if (visible > 0) attend_row(tile, row, visible);
  }
}

void score_positions(const AttentionTile& tile, const float* weights, float* scores) {
  const AttentionTile::Piece& query = tile.query[0];
  for (int64_t position = 0; position < tile.num_positions; position++) {
    const float* key = tile.keys + position * query.dim;
    float score = 0;
    for (int64_t row = 0; row < tile.num_rows; row++) {
      float dot = 0;
      for (int64_t dim = 0; dim < query.dim; dim++) dot = std::fma(query.data[row * query.stride + dim], key[dim], dot);
      score = std::fma(weights[row], std::max(dot, 0.f), score);
    }
    scores[position] = score;
  }
}

void merge(float* acc, float factor, const float* later, float later_factor, int64_t dim) {
  for (int64_t d = 0; d < dim; d++) acc[d] = std::fma(acc[d], factor, later[d] * later_factor);
}

void divide(float* acc, float divisor, int64_t dim) {
  for (int64_t d = 0; d < dim; d++) acc[d] /= divisor;
}

// ---- limits ----

constexpr int kChains = 8;  // sums that run side by side

void read(const std::byte* first, const std::byte* second, size_t bytes) {
  __m128i sums = _mm_setzero_si128();
  for (size_t idx = 0; idx < bytes; idx += 16) {
    for (const std::byte* stream : {first, second})
      sums = _mm_xor_si128(sums, _mm_loadu_si128(reinterpret_cast<const __m128i*>(stream + idx)));
  }
  asm volatile("" ::"x"(sums));
}

// The level's products are plain loops over one number at a time.
template <class T>
void multiply(int64_t rounds) {
  T sums[kChains] = {}, x = 1;
  for (int64_t round = 0; round < rounds; round++) {
    for (T& sum : sums) {
      asm volatile("" : "+m"(x));
      sum += x * x;
    }
  }
  for (const T& sum : sums) asm volatile("" ::"m"(sum));
}

constexpr RowCores kRowCores = {.sum_of_squares = sum_of_squares,
                                .add_and_square = add_and_square,
                                .scale = scale,
                                .quantize = quantize,
                                .rotate = rotate,
                                .rotate_halves = rotate_halves,
                                .to_bf16 = convert<float, bf16>,
                                .from_bf16 = convert<bf16, float>,
                                .from_fp16 = convert<fp16, float>,
                                .add_weighted_f32 = add_weighted<float>,
                                .add_weighted_bf16 = add_weighted<bf16>,
                                .sigmoid = sigmoid,
                                .softmax = softmax,
                                .choice_scores = choice_scores,
                                .argmax = argmax,
                                .largest_two = largest_two};
constexpr IntCore kIntCore = {.prepared_bytes = prepared_bytes, .prepare = prepare, .multiply = multiply};
constexpr LinearCores kLinearCores = {.float_core = float_core,
                                      .int_core = &kIntCore,
                                      .quantize = quantize,
                                      .silu_product = silu_product,
                                      .store_bf16 = store_bf16};
constexpr AttentionKernels kAttentionKernels = {.pack_keys = pack_keys,
                                                .pack_values = pack_values,
                                                .attend = attend,
                                                .score_positions = score_positions,
                                                .merge = merge,
                                                .divide = divide};
constexpr LimitCores kLimitCores = {.read = read,
                                    .multiply_int8 = multiply<int32_t>,
                                    .multiply_floats = multiply<float>,
                                    .int8_operations = 2 * kChains,
                                    .float_operations = 2 * kChains};

}  // namespace

constinit const LevelCores kCores = {.isa = IsaLevel::kReference,
                                     .rows = &kRowCores,
                                     .linear = &kLinearCores,
                                     .attention = &kAttentionKernels,
                                     .limits = &kLimitCores};

}  // namespace cachalot::reference
