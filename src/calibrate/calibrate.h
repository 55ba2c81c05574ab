#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/error.h"
#include "weights/folding.h"
#include "weights/model_files.h"
#include "weights/weight_catalog.h"

namespace cachalot {

struct CalibrateOptions {
  QuantTarget target;
  std::string texts;  // the file, see read_calibration_texts()
  int64_t most_tokens = 8192;
  int num_threads = 1;
  std::function<void(uint64_t num_done, uint64_t num_total)> on_progress = {};  // in layers; may be empty
};

struct Calibration {
  Foldings foldings;
  int64_t num_tokens = 0;
  // Of the linears' outputs on a sample of rows, that rounding makes: root of the mean of squared relative errors.
  double plain_error = 0, error = 0;
};

// Runs texts through the model and finds by which factors the inputs of its linears are multiplied before these are
// rounded to the target, and how much the inputs weigh. Multi-token-prediction layers, which are not run, stay as they
// are, as does what they have in common with the model: the embedding, the last norm and the head. Needs the memory of
// one layer, and what a step of so many tokens takes.
Result<Calibration> calibrate(const ModelFiles& files, const CalibrateOptions& options);

}  // namespace cachalot
