// Kinds of elements, with the names that safetensors give them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/numbers.h"

namespace cachalot {

enum class DType { kF32, kBF16, kF16, kF8E4M3, kI64, kI32, kI16, kI8, kU8, kBool, kF64 };

size_t dtype_size(DType dtype);
std::string_view dtype_name(DType dtype);  // as in safetensors: "F32", "BF16", "F8_E4M3", ...

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::kF32;
}
template <>
constexpr DType dtype_of<bf16>() {
  return DType::kBF16;
}
template <>
constexpr DType dtype_of<fp16>() {
  return DType::kF16;
}

}  // namespace cachalot
