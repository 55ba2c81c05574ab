#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/error.h"
#include "preflight/layout_plan.h"

namespace cachalot {

struct PlanFlags {
  LayoutPlanOptions plan;
  std::string quantization;  // how weights would be stored; empty: as the folder or its config.json says
  int group_size = 0;        // 0: the config's, or 64
  bool quantize_head = false;
};

// Those of `check --plan`: a layout's and the engine's, as for `serve`.
void add_plan_flags(CLI::App& command, PlanFlags& flags);

// Prints the plan, and writes it to the file `json` unless that is empty. The error: the layout does not divide, or
// does not fit.
Status run_plan(const PlanFlags& flags, const std::string& json);

}  // namespace cachalot
