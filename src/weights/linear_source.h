#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "config/model_config.h"
#include "kernels/matrix.h"
#include "weights/checkpoint.h"

namespace cachalot {

// The tensors that hold one linear layer: `weight` alone (F32, BF16, F16), `weight` (F8_E4M3, or I8 of two E2M1) with
// `scale`, `packed` (I32, or U8 of two E2M1) with `scale` and perhaps `zero_point` and `shape`, or `qweight`, `scales`
// and mostly `qzeros`. Null: not there.
struct LinearParts {
  const TensorRef* weight = nullptr;      // prefix.weight
  const TensorRef* packed = nullptr;      // prefix.weight_packed
  const TensorRef* scale = nullptr;       // prefix.weight_scale_inv, weight_scale or scale
  const TensorRef* zero_point = nullptr;  // prefix.weight_zero_point
  const TensorRef* shape = nullptr;       // prefix.weight_shape
  const TensorRef* qweight = nullptr;     // prefix.qweight
  const TensorRef* qzeros = nullptr;      // prefix.qzeros
  const TensorRef* scales = nullptr;      // prefix.scales
  // A part that is not read, and what it asks for.
  const TensorRef* refused = nullptr;
  std::string_view reason;

  bool found() const { return weight || packed || qweight; }
  bool has_four_bits(int64_t in_features) const;  // a weight
  std::vector<const TensorRef*> all() const;      // those that are there
};
LinearParts find_linear(const Checkpoint& checkpoint, std::string_view prefix);

// The layer's weight as the file holds it, its whole as the window. Checks dtypes and shapes, reads no data.
Result<WeightSource> linear_source(const LinearParts& parts, std::string_view prefix, int64_t out_features,
                                   int64_t in_features, const QuantizationConfig& quantization);

// The first element of a tensor's data that is NaN or infinite; none for whole numbers. As fast as memory.
std::optional<size_t> first_not_finite(std::span<const std::byte> data, DType dtype);
// Every scale must be finite, and so must be what it multiplies: one bad number would poison the whole answer far from
// its cause.
Status check_scales(const LinearParts& parts);
// "element [3, 17] is nan, which no weight can be" of element `index` of a table.
std::string not_finite_text(const TensorRef& tensor, size_t index);

// A plain tensor of floats as a linear layer's weight (a tied embedding).
WeightSource plain_source(const TensorRef& tensor);

// The bytes of the file in which a window's weights, scales and zeros lie (rows outside the window left out).
std::array<std::span<const std::byte>, 3> window_bytes(const WeightSource& source);

bool is_float_dtype(DType dtype);  // F32, BF16, F16
Status check_float(const TensorRef& tensor);
// Elements of a tensor of such a dtype as floats.
std::vector<float> to_floats(const TensorRef& tensor);

// "folder/file: tensor NAME: ..."
template <class... Args>
std::unexpected<Error> tensor_error(const TensorRef& tensor, fmt::format_string<Args...> format, Args&&... args) {
  return make_error(ErrorCode::kCorrupt, "{}: tensor {}: {}", *tensor.file, name_text(tensor.spec.name, 200),
                    fmt::format(format, std::forward<Args>(args)...));
}
Status check_shape(const TensorRef& tensor, std::span<const int64_t> wanted);

}  // namespace cachalot
