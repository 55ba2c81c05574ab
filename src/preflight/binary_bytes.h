#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <string>

namespace cachalot {

// "14.8 GiB", as memory is counted.
inline std::string binary_bytes(double bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < std::size(kUnits); unit++) bytes /= 1024;
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, kUnits[unit]);
}
inline std::string binary_bytes(size_t bytes) {
  return binary_bytes(static_cast<double>(bytes));
}

}  // namespace cachalot
