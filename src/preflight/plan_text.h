#pragma once

#include <string>

#include "preflight/layout_plan.h"

namespace cachalot {

// What the weights are, for the headings: the file or folder, how it stores them, and the bytes of its tensors.
struct PlanSubject {
  std::string model, weights;
  uint64_t file_bytes = 0;
};

// Tables for people.
std::string plan_text(const LayoutPlan& plan, const PlanSubject& subject);
// The same and every rank by itself.
std::string plan_json(const LayoutPlan& plan, const PlanSubject& subject);

}  // namespace cachalot
