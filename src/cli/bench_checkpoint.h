#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "base/error.h"

namespace cachalot {

// The model of a measurement: a folder that is there, or random weights of a shape.
struct BenchCheckpointFlags {
  std::string model;
  std::string shape, keep;  // keep: where the random checkpoint stays
  std::string quant = "awq";
  int num_layers = 0;  // of the shape; 0: all
};
void add_bench_checkpoint_flags(CLI::App& command, BenchCheckpointFlags& flags);

// The model's folder while this object lives. A random checkpoint goes with it, also when Ctrl-C or SIGTERM ends the
// program: it holds gigabytes.
class BenchCheckpoint {
 public:
  // Writes the random checkpoint, if it is to be one. Errors: neither or both of model and shape; the disk.
  static Result<std::unique_ptr<BenchCheckpoint>> open(const BenchCheckpointFlags& flags);
  virtual ~BenchCheckpoint() = default;
  virtual const std::string& folder() const = 0;
};

// The name of the format that the folder's weights have: awq, fp8 or bf16.
Result<std::string> weight_format_name(const std::string& folder);

}  // namespace cachalot
