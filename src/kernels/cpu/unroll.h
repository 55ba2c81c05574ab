#pragma once

#include <utility>

// For the files of instruction levels: everything is inlined, so that no level's code is shared with another's.
#define CACHALOT_INLINE __attribute__((always_inline))

namespace cachalot {

// body(std::integral_constant<int, 0>) ... body(<N - 1>): indices known to the compiler, so that arrays of vectors live
// in registers (g++ 12 keeps them in memory behind loops). `body` is a lambda marked CACHALOT_INLINE.
template <int N, class Body>
CACHALOT_INLINE inline void unroll(Body&& body) {
  [&]<int... I>(std::integer_sequence<int, I...>)
      CACHALOT_INLINE { (body(std::integral_constant<int, I>{}), ...); }(std::make_integer_sequence<int, N>{});
}

}  // namespace cachalot
