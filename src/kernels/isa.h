#pragma once

#include <string_view>

namespace cachalot {

// Instruction levels, lowest first. Results may differ in their last bits between levels, so a group of ranks agrees on
// one.
enum class IsaLevel {
  kReference,  // plain loops, any x86-64
  kAvx2,       // AVX2, FMA, F16C
  kAvx512,     // AVX-512 F, BW, DQ, VL, VNNI
};

// The highest level that this CPU (and operating system) runs.
IsaLevel detect_isa();
std::string_view isa_name(IsaLevel isa);  // "reference", "avx2", "avx512"

}  // namespace cachalot
