#pragma once

#include <cstdint>
#include <ostream>
#include <vector>

#include "model_harness.h"

namespace cachalot::test {

// Token rows of a rank in the expert exchange, summed over layers.
struct Rows {
  uint64_t brought = 0, sent = 0, received = 0;
  bool operator==(const Rows&) const = default;
};
void PrintTo(const Rows& rows, std::ostream* out);

// What every rank of a layout brings, sends and receives: a row goes once to each other rank that holds any of the
// experts which its token chose. `results` hold the choices; `run`, of any layout, knows the model and the steps.
std::vector<Rows> rows_by_routing(const ModelRun& run, const Layout& layout, const std::vector<ReplicaInput>& inputs,
                                  const std::vector<RunResult>& results);

}  // namespace cachalot::test
