#pragma once

#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/step_trace.h"
#include "comm/transport.h"

namespace cachalot {

// Where in a step a collective stands; every error names it.
struct CollectiveSite {
  std::string_view operation;  // what for, e.g. "o_proj reduce-scatter"
  uint64_t step = 0;
  int layer = -1;

  // "o_proj reduce-scatter (layer 3, step 17)"
  std::string text() const {
    if (layer < 0) return fmt::format("{} (step {})", operation, step);
    return fmt::format("{} (layer {}, step {})", operation, layer, step);
  }
};

// Where a rank's time with messages goes: waiting, while nothing moves until a peer has done its part, and exchanging,
// which is the rest of the calls to collectives and exchanges: packing, copying, adding up. Advanced by the engine's
// thread; the totals may be read by any.
class ExchangeClock {
 public:
  using Clock = std::chrono::steady_clock;

  // A call of a collective or an exchange, as long as this object lives. Calls within a call are its parts.
  class Call {
   public:
    Call(ExchangeClock& clock, std::string_view name, int layer) : clock_(clock), name_(name), layer_(layer) {
      if (clock_.depth_++ == 0) {
        waiting_before_ = clock_.waiting_.value();
        begin_ = Clock::now();
      }
    }
    Call(ExchangeClock& clock, const CollectiveSite& site) : Call(clock, site.operation, site.layer) {}
    ~Call() {
      if (--clock_.depth_ > 0) return;
      const Clock::time_point end = Clock::now();
      const uint64_t waited = clock_.waiting_.value() - waiting_before_;
      clock_.exchanging_ += static_cast<uint64_t>((end - begin_).count()) - waited;
      if (clock_.trace_)
        clock_.trace_->add(
            {.name = name_, .kind = TraceSpan::Kind::kExchange, .layer = layer_, .begin = begin_, .end = end});
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    ExchangeClock& clock_;
    std::string_view name_;
    int layer_;
    uint64_t waiting_before_ = 0;
    Clock::time_point begin_;
  };

  // Within a call: nothing moved from `begin` to `end`.
  void add_wait(Clock::time_point begin, Clock::time_point end, int layer) {
    waiting_ += static_cast<uint64_t>((end - begin).count());
    if (trace_)
      trace_->add({.name = "waiting", .kind = TraceSpan::Kind::kWaiting, .layer = layer, .begin = begin, .end = end});
  }

  std::chrono::nanoseconds exchanging() const { return std::chrono::nanoseconds(exchanging_.value()); }
  std::chrono::nanoseconds waiting() const { return std::chrono::nanoseconds(waiting_.value()); }
  std::chrono::nanoseconds total() const { return exchanging() + waiting(); }

  // What was counted so far belongs to no step. By the thread that calls.
  void forget() {
    exchanging_ += uint64_t{0} - exchanging_.value();
    waiting_ += uint64_t{0} - waiting_.value();
  }
  // Calls and waits from now on are noted there; null: nowhere. Borrowed.
  void set_trace(StepTrace* trace) { trace_ = trace; }
  StepTrace* trace() const { return trace_; }

 private:
  Counter exchanging_, waiting_;  // nanoseconds
  int depth_ = 0;                 // of calls
  StepTrace* trace_ = nullptr;
};

}  // namespace cachalot
