#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace cachalot {

// One thing that a rank did. Times are of the steady clock, which the processes of a machine share.
struct TraceSpan {
  enum class Kind : uint8_t { kCompute, kExchange, kWaiting };  // the innermost of nested spans says what the time was

  std::string_view name;  // of static storage
  Kind kind = Kind::kCompute;
  int32_t layer = -1;    // -1: of none
  int32_t rows = -1;     // token rows, for experts each as often as it meets one; -1: not told
  int32_t experts = -1;  // that had any of these rows; -1: not told
  std::chrono::steady_clock::time_point begin, end;
};

// What a rank does, span by span, for a picture of a step (bench/step_bench.h). Written by the engine's thread.
// Whoever may be traced holds a pointer, null where nobody looks.
class StepTrace {
 public:
  void add(const TraceSpan& span) { spans_.push_back(span); }
  std::span<const TraceSpan> spans() const { return spans_; }
  void clear() { spans_.clear(); }

 private:
  std::vector<TraceSpan> spans_;  // a span stands behind those that it encloses
};

// A span that lasts as long as this object; nothing without a trace.
class TraceScope {
 public:
  TraceScope(StepTrace* trace, std::string_view name, int layer = -1, TraceSpan::Kind kind = TraceSpan::Kind::kCompute)
      : trace_(trace) {
    if (trace_) span_ = {.name = name, .kind = kind, .layer = layer, .begin = std::chrono::steady_clock::now()};
  }
  ~TraceScope() {
    if (!trace_) return;
    span_.end = std::chrono::steady_clock::now();
    trace_->add(span_);
  }
  TraceScope(const TraceScope&) = delete;
  TraceScope& operator=(const TraceScope&) = delete;

  explicit operator bool() const { return trace_ != nullptr; }
  void set_rows(int64_t rows) { span_.rows = static_cast<int32_t>(rows); }
  void set_experts(int64_t experts) { span_.experts = static_cast<int32_t>(experts); }

 private:
  StepTrace* trace_;
  TraceSpan span_;
};

}  // namespace cachalot
