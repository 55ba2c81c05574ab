#pragma once

#include <cstdint>
#include <string>

#include "model_harness.h"

namespace cachalot::test {

// The bytes of weights that a rank must hold under --dtype float32, reckoned from the headers of the model's files and
// from nothing of the loader: each tensor's share, in the packed formats of docs/architecture.md.
uint64_t weight_bytes_by_headers(const std::string& model_folder, const Layout& layout, int rank);

}  // namespace cachalot::test
