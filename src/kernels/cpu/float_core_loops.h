#pragma once

#include <cstring>

#include "kernels/cores.h"

// The loops of float_core, written once over a level's vectors (its TileSimd) and how formats become them
// (float_decoders.h).
//
// A quad is four inputs of kWidth outputs in four vectors: lane l (of 128 bits) of vector i holds the four weights of
// output 4 * l + i. So one broadcast of four inputs serves four fma, and the four sums of the rule (cores.h) are the
// places in a lane. A unit is kWidth outputs: a strip on AVX-512, half a strip on AVX2.
//
// Few rows: weights go from the stream straight to the fma, where sums have room two units at a time (on AVX-512 two
// long streams: measured faster than one or four). More rows: a unit's span is expanded once to a panel in L1, and
// tiles of rows run over it.
//
// Decoder:  kStepQuads, kStepBytes: quads that are expanded together, and their bytes in the strip;
//           Decoder(block, block_inputs, unit_of_strip), expand(step, Floats (&)[4 * kStepQuads]), scale().
namespace cachalot {
namespace {

constexpr int64_t kFloatRowBlock = 64;  // rows whose span is packed together: 32 KiB beside a panel of 8
constexpr int64_t kFloatPrefetchBytes = 4096;

// The spans of a strip.
struct FloatSpan {
  int64_t input = 0, count = 0;  // its first input; its real inputs
  int64_t byte = 0;              // where its weights begin in the strip
};

struct FloatStrips {
  MatrixShape shape;
  const std::byte* data;
  int64_t block_bytes, strip_bytes, span_inputs, span_bytes;

  CACHALOT_INLINE explicit FloatStrips(const PackedMatrix& matrix)
      : shape(matrix.shape),
        data(matrix.data),
        block_bytes(static_cast<int64_t>(shape.block_bytes())),
        strip_bytes(shape.num_blocks() * block_bytes),
        span_inputs(shape.block_inputs == 2 ? kFloatSpan : shape.block_inputs),
        span_bytes(span_inputs / shape.block_inputs * block_bytes) {}

  CACHALOT_INLINE FloatSpan first_span() const {
    return at_most_the_rest({0, shape.format == MatrixFormat::kF8 ? shape.first_block_inputs : span_inputs, 0});
  }
  CACHALOT_INLINE FloatSpan next_span(const FloatSpan& span) const {
    return at_most_the_rest({span.input + span.count, span_inputs, span.byte + span_bytes});
  }
  CACHALOT_INLINE bool has(const FloatSpan& span) const { return span.input < shape.in_features; }

 private:
  CACHALOT_INLINE FloatSpan at_most_the_rest(FloatSpan span) const {
    const int64_t rest = shape.in_features - span.input;
    if (span.count > rest) span.count = rest;
    return span;
  }
};

// What does not depend on the format.
template <class Simd>
struct FloatTiles {
  using Floats = typename Simd::Floats;
  static constexpr int kWidth = Simd::kWidth;

  // (sums[0] + sums[2]) + (sums[1] + sums[3]) of kWidth outputs, in order.
  CACHALOT_INLINE static Floats add_sums(const Floats* sums) {
    const Floats low = Simd::unpack_low(sums[0], sums[1]) + Simd::unpack_high(sums[0], sums[1]);
    const Floats high = Simd::unpack_low(sums[2], sums[3]) + Simd::unpack_high(sums[2], sums[3]);
    return Simd::unpack_low_pairs(low, high) + Simd::unpack_high_pairs(low, high);
  }

  CACHALOT_INLINE static void add_to(float* out, const Floats* sums, Floats scale, bool first) {
    const Floats acc = first ? Simd::zero() : Simd::load(out);
    Simd::store(out, Simd::fma(add_sums(sums), scale, acc));
  }

  template <int kRows>
  CACHALOT_INLINE static void panel_tile(const float* panel, const float* inputs, int64_t quads, Floats scale,
                                         float* out, int64_t out_stride, bool first) {
    Floats sums[kRows][4];
    unroll<kRows * 4>([&](auto i) CACHALOT_INLINE { (&sums[0][0])[i] = Simd::zero(); });
    for (int64_t quad = 0; quad < quads; quad++, panel += 4 * kWidth, inputs += 4) {
      Floats x[kRows];
      unroll<kRows>([&](auto row) CACHALOT_INLINE { x[row] = Simd::broadcast_quad(inputs + row * kFloatSpan); });
      unroll<4>([&](auto i) CACHALOT_INLINE {
        const Floats weights = Simd::load(panel + i * kWidth);
        unroll<kRows>([&](auto row) CACHALOT_INLINE { sums[row][i] = Simd::fma(weights, x[row], sums[row][i]); });
      });
    }
    unroll<kRows>([&](auto row) CACHALOT_INLINE { add_to(out + row * out_stride, sums[row], scale, first); });
  }

  // The rows of a block, packed to `inputs`, over an expanded panel; in tiles of equal size as far as can be.
  static void panel_rows(const float* panel, const float* inputs, int64_t quads, Floats scale, int64_t num_rows,
                         float* out, int64_t out_stride, bool first) {
    constexpr int kTile = Simd::kPanelRows;
    for (int64_t row = 0; row < num_rows;) {
      const int64_t tiles = (num_rows - row + kTile - 1) / kTile, count = (num_rows - row + tiles - 1) / tiles;
      unroll<kTile>([&](auto i) CACHALOT_INLINE {
        if (count == i + 1)
          panel_tile<i + 1>(panel, inputs + row * kFloatSpan, quads, scale, out + row * out_stride, out_stride, first);
      });
      row += count;
    }
  }
};

template <class Simd, class Decoder>
struct FloatCoreLoops : FloatTiles<Simd> {
  using Tiles = FloatTiles<Simd>;
  using Floats = typename Simd::Floats;
  static constexpr int kWidth = Simd::kWidth;
  static constexpr int kUnits = kStrip / kWidth;  // a strip
  static constexpr int kStepInputs = 4 * Decoder::kStepQuads;
  static constexpr int kStepVectors = 4 * Decoder::kStepQuads;

  // The strip that a unit belongs to, and its place there.
  struct Unit {
    const std::byte* strip;
    float* out;  // the first of its outputs, row 0
    int unit_of_strip;
  };

  CACHALOT_INLINE static void prefetch(const std::byte* data) {
    for (int byte = 0; byte < Decoder::kStepBytes; byte += 64) Simd::prefetch(data + byte);
  }

  // A span's weights, where the last step would read past the strip's end (an odd number of pairs) in `padded`.
  CACHALOT_INLINE static const std::byte* span_data(const FloatStrips& strips, const FloatSpan& span,
                                                    const std::byte* strip, std::byte* padded) {
    const std::byte* data = strip + span.byte;
    const int64_t size = num_steps(span) * Decoder::kStepBytes, rest = strips.strip_bytes - span.byte;
    if (size <= rest) return data;
    std::memcpy(padded, data, static_cast<size_t>(rest));
    std::memset(padded + rest, 0, static_cast<size_t>(size - rest));
    return padded;
  }

  CACHALOT_INLINE static int64_t num_steps(const FloatSpan& span) {
    return (span.count + kStepInputs - 1) / kStepInputs;
  }

  // A row's inputs of a span; with a partial last step, in `padded`.
  CACHALOT_INLINE static const float* span_inputs(const FloatSpan& span, const float* row, float* padded) {
    if (span.count % kStepInputs == 0) return row + span.input;
    copy_inputs(span, row, padded);
    return padded;
  }

  CACHALOT_INLINE static void copy_inputs(const FloatSpan& span, const float* row, float* inputs) {
    const int64_t size = num_steps(span) * kStepInputs;
    std::memcpy(inputs, row + span.input, static_cast<size_t>(span.count) * sizeof(float));
    for (int64_t idx = span.count; idx < size; idx++) inputs[idx] = 0;
  }

  // All spans of `kNumUnits` units for `kRows` rows.
  template <int kNumUnits, int kRows>
  static void stream(const FloatStrips& strips, const Unit* units, const float* const* rows, int64_t out_stride) {
    alignas(64) std::byte padded_data[kNumUnits][kFloatSpan * kStrip * sizeof(float)];
    alignas(64) float padded_inputs[kRows][kFloatSpan];
    for (FloatSpan span = strips.first_span(); strips.has(span); span = strips.next_span(span)) {
      const std::byte* data[kNumUnits];
      const float* inputs[kRows];
      for (int row = 0; row < kRows; row++) inputs[row] = span_inputs(span, rows[row], padded_inputs[row]);
      for (int unit = 0; unit < kNumUnits; unit++)
        data[unit] = span_data(strips, span, units[unit].strip, padded_data[unit]);
      stream_span<kNumUnits, kRows>(strips.shape.block_inputs, units, data, inputs, num_steps(span), out_stride,
                                    span.input == 0);
    }
  }

  template <int kNumUnits, int kRows>
  CACHALOT_INLINE static void stream_span(int block_inputs, const Unit* units, const std::byte* const* data,
                                          const float* const* inputs, int64_t steps, int64_t out_stride, bool first) {
    Floats sums[kNumUnits][kRows][4];
    unroll<kNumUnits * kRows * 4>([&](auto i) CACHALOT_INLINE { (&sums[0][0][0])[i] = Simd::zero(); });
    const auto unit_step = [&](auto unit, int64_t step) CACHALOT_INLINE {
      Floats weights[kStepVectors];
      Decoder(data[unit], block_inputs, units[unit].unit_of_strip).expand(step, weights);
      unroll<Decoder::kStepQuads>([&](auto quad) CACHALOT_INLINE {
        unroll<kRows>([&](auto row) CACHALOT_INLINE {
          const Floats x = Simd::broadcast_quad(inputs[row] + step * kStepInputs + quad * 4);
          unroll<4>([&](auto i) CACHALOT_INLINE {
            sums[unit][row][i] = Simd::fma(weights[quad * 4 + i], x, sums[unit][row][i]);
          });
        });
      });
    };
    for (int64_t step = 0; step < steps; step++) {
      unroll<kNumUnits>([&](auto unit) CACHALOT_INLINE {
        if (units[unit].unit_of_strip == 0) prefetch(data[unit] + step * Decoder::kStepBytes + kFloatPrefetchBytes);
        unit_step(unit, step);
      });
    }
    unroll<kNumUnits>([&](auto unit) CACHALOT_INLINE {
      const Floats scale = Decoder(data[unit], block_inputs, units[unit].unit_of_strip).scale();
      unroll<kRows>([&](auto row) CACHALOT_INLINE {
        Tiles::add_to(units[unit].out + row * out_stride, sums[unit][row], scale, first);
      });
    });
  }

  // Where in the matrix the panel two after this one begins: far enough to arrive in time, and not too far for L1.
  CACHALOT_INLINE static int64_t ahead_of(const FloatStrips& strips, const FloatCoreArgs& args, const FloatSpan& span,
                                          int64_t strip) {
    if (strip + 2 < args.strip_end) return (strip + 2) * strips.strip_bytes + span.byte;
    const int64_t wrapped = args.strip_begin + (strip + 2 - args.strip_end) % (args.strip_end - args.strip_begin);
    return wrapped * strips.strip_bytes + span.byte + strips.span_bytes;
  }

  static void panel_block(const FloatStrips& strips, const FloatCoreArgs& args, int64_t row_begin, int64_t num_rows) {
    alignas(64) float inputs[kFloatRowBlock * kFloatSpan];
    alignas(64) float panel[kFloatSpan * kWidth];
    alignas(64) std::byte padded_data[kFloatSpan * kStrip * sizeof(float)];
    for (FloatSpan span = strips.first_span(); strips.has(span); span = strips.next_span(span)) {
      for (int64_t row = 0; row < num_rows; row++)
        copy_inputs(span, args.rows[row_begin + row], inputs + row * kFloatSpan);
      const int64_t steps = num_steps(span);
      for (int64_t strip = args.strip_begin; strip < args.strip_end; strip++) {
        const std::byte* data = span_data(strips, span, strips.data + strip * strips.strip_bytes, padded_data);
        const std::byte* ahead = strips.data + ahead_of(strips, args, span, strip);
        for (int unit = 0; unit < kUnits; unit++) {
          const Decoder decoder(data, strips.shape.block_inputs, unit);
          for (int64_t step = 0; step < steps; step++) {
            Floats weights[kStepVectors];
            decoder.expand(step, weights);
            unroll<kStepVectors>(
                [&](auto i) CACHALOT_INLINE { Simd::store(panel + (step * kStepVectors + i) * kWidth, weights[i]); });
            if (unit == 0) prefetch(ahead + step * Decoder::kStepBytes);
          }
          float* out = args.out + row_begin * args.out_stride + (strip - args.strip_begin) * kStrip + unit * kWidth;
          Tiles::panel_rows(panel, inputs, steps * Decoder::kStepQuads, decoder.scale(), num_rows, out, args.out_stride,
                            span.input == 0);
        }
      }
    }
  }

  // Few rows: all units of the range, `kNumUnits` at a time. Two strips come from the two halves of the range.
  template <int kNumUnits, int kRows>
  static void stream_strips(const FloatStrips& strips, const FloatCoreArgs& args) {
    const int64_t num_units = (args.strip_end - args.strip_begin) * kUnits,
                  num_pairs = kNumUnits == 2 ? num_units / 2 : 0;
    const auto unit_at = [&](int64_t idx) CACHALOT_INLINE {
      const int64_t strip = args.strip_begin + idx / kUnits;
      return Unit{strips.data + strip * strips.strip_bytes, args.out + idx * kWidth, static_cast<int>(idx % kUnits)};
    };
    for (int64_t pair = 0; pair < num_pairs; pair++) {
      const int64_t first = kUnits == 1 ? pair : 2 * pair, second = kUnits == 1 ? pair + num_pairs : first + 1;
      const Unit units[2] = {unit_at(first), unit_at(second)};
      stream<2, kRows>(strips, units, args.rows, args.out_stride);
    }
    for (int64_t idx = 2 * num_pairs; idx < num_units; idx++) {
      const Unit unit = unit_at(idx);
      stream<1, kRows>(strips, &unit, args.rows, args.out_stride);
    }
  }

  static void run(const FloatCoreArgs& args) {
    const FloatStrips strips(args.matrix);
    unroll<Simd::kStreamRows>([&](auto i) CACHALOT_INLINE {
      constexpr int kRows = decltype(i)::value + 1;
      if (args.num_rows == kRows) stream_strips<(kRows <= Simd::kTwoUnitRows ? 2 : 1), kRows>(strips, args);
    });
    if (args.num_rows <= Simd::kStreamRows) return;
    const int64_t blocks = (args.num_rows + kFloatRowBlock - 1) / kFloatRowBlock;
    for (int64_t block = 0; block < blocks; block++) {
      const int64_t begin = args.num_rows * block / blocks, end = args.num_rows * (block + 1) / blocks;
      panel_block(strips, args, begin, end - begin);
    }
  }
};

}  // namespace
}  // namespace cachalot
