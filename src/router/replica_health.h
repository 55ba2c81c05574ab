#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "http/message.h"

namespace cachalot::router {

struct HealthPolicy {
  int fall = 2, rise = 2;  // failed or good answers in a row to the health question
  int eject_after_errors = 5;
  std::chrono::milliseconds eject_time{5000}, longest_eject_time{60'000};
  std::chrono::milliseconds slow_start{10'000};
};

// What the router thinks of one replica, from the answers to its own questions and from what becomes of requests. A
// pure state machine: time comes from outside.
class ReplicaHealth {
 public:
  using Time = std::chrono::steady_clock::time_point;
  enum class State {
    kStarting,  // never heard of
    kUp,
    kDown,
  };

  explicit ReplicaHealth(const HealthPolicy& policy) : policy_(policy) {}

  // The health question: answered, and requests are taken; answered, and they are not; not answered in time; or
  // refused, as by a process that is not there.
  void heard_well(Time now);
  void heard_ill(const std::string& reason) { go_down(reason, false); }
  void heard_nothing(const std::string& reason) { go_down(reason, true); }
  void was_refused(const std::string& reason);
  // A request: no connection was to be had; the replica failed; it answered.
  void request_not_taken(const std::string& reason) { go_down(reason, false); }
  // An error that a server `has_words` for counts a quarter of a lost connection or of a bare 5xx: it lives, and what
  // it says may be the request's own fault.
  void request_failed(Time now, const std::string& reason, bool has_words = false);
  void request_answered() { num_errors_ = num_ejections_ = 0; }

  State state() const { return state_; }
  bool is_up() const { return state_ == State::kUp; }
  // Down for its silence: it may hold connections that it does not serve.
  bool is_silent() const { return state_ == State::kDown && is_silent_; }
  // Why it is not up; of one that is up, empty.
  const std::string& reason() const { return reason_; }
  // After errors: until then good answers to the health question do not count.
  std::optional<Time> ejected_until() const { return ejected_until_; }
  // The part of its share that it gets, from above 0 to 1.
  double ramp(Time now) const;
  int num_falls() const { return num_falls_; }

 private:
  void go_down(const std::string& reason, bool is_silent);

  HealthPolicy policy_;
  State state_ = State::kStarting;
  std::string reason_ = "no answer yet";
  bool is_silent_ = false;
  int num_good_ = 0, num_refused_ = 0;  // in a row
  int num_errors_ = 0;                  // of requests, in a row, in quarters
  int num_ejections_ = 0;               // without a good answer to a request in between
  int num_falls_ = 0;                   // since the start
  std::optional<Time> ejected_until_;
  std::optional<Time> back_since_;
};

constexpr std::string_view name_of(ReplicaHealth::State state) {
  return state == ReplicaHealth::State::kUp ? "up" : state == ReplicaHealth::State::kDown ? "down" : "starting";
}

class ReplicaTable;

// The router's questions to one replica: how it is and what it has to do (GET /load; of a server that has no such path,
// GET /health). A state machine: enters the answers into the table, and says what is to be asked next.
class HealthQuestions {
 public:
  using Time = ReplicaHealth::Time;
  enum class Next {
    kAtOnce,  // ask() again
    kModels,  // what it serves: hear_models()
    kLater,   // after the interval
  };

  // model: that the replica should serve; empty: whichever. timeout: of an answer, for what is said.
  HealthQuestions(ReplicaTable& table, size_t replica, std::string model, std::chrono::milliseconds timeout)
      : table_(table), replica_(replica), model_(std::move(model)), timeout_(timeout) {}

  // The target of the next question.
  std::string ask(Time now);
  // kUnavailable: refused; other errors: no answer in time.
  Next hear(const Result<http::Response>& answer, Time now);
  void hear_models(const Result<http::Response>& answer);

 private:
  ReplicaTable& table_;
  const size_t replica_;
  const std::string model_;
  const std::chrono::milliseconds timeout_;
  std::string question_ = "/load";
  Time asked_;
  bool knows_model_ = false, was_odd_ = false;
};

}  // namespace cachalot::router
