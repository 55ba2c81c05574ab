#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "page/cluster_view.h"

namespace cachalot::page {

// A cluster's last hour, from one look a second: rates, curves, and what happened, in words. As events for the page:
//
//   hello   {"kind", "version", "model", "step", "series": {NAME: [...], "t": [...]}, "events": [...]}: what was
//   state   {"t", "phase", "replicas": [{"replica", "state", ..., "ranks": [...]}]}: now
//   point   {"t", NAME: ...}: one more for each curve; null: nothing to tell
//   experts {"experts", "ranks": [{"rank", "replica", "held"}], "rows": [[of each layer], ...]}: of the last seconds
//   event   {"t", "kind": "lost|back|moved|slow|note", "text"}
//
// Times are milliseconds since 1970. Bounded, whatever servers say.
class ClusterHistory {
 public:
  static constexpr int64_t kStepMs = 5'000;  // of the curves; rates are over as long
  static constexpr size_t kMostPoints = 3'600'000 / kStepMs, kMostEvents = 200;

  struct Names {
    std::string kind, version, model;
  };
  explicit ClusterHistory(Names names) : names_(std::move(names)) {}

  // What is to be told to those who know what was, as server-sent events.
  std::string observe(int64_t now_ms, ClusterView cluster);
  // The same to somebody who comes now.
  std::string greeting() const;

 private:
  static constexpr size_t kNumSeries = 10;
  static const std::array<const char*, kNumSeries> kSeries;
  struct Point {
    int64_t time = 0;
    std::array<double, kNumSeries> values;  // NaN: nothing to tell
  };
  struct Event {
    int64_t time = 0;
    std::string kind, text;
  };
  struct Look {
    int64_t time = 0;
    ServerView server;
  };
  // What was seen of a member, oldest first, as far as its counts go on from each other.
  struct Member {
    std::deque<Look> looks;
    std::string state, phase;
    bool is_told = false;  // by the last look
    int num_doubts = 0;
    double seconds() const;
    const RankView* before(const RankView& rank) const;
  };
  struct Shares {
    double computing = 0, exchanging = 0, waiting = 0, busy = 0;
  };
  static Shares shares(const Member& member, const RankView& rank);

  // What the member's state is to be called.
  static std::string judge(Member& member, const MemberView& now);
  void note(const char* kind, std::string text);
  void compare(size_t idx, const MemberView& now);
  void compare_ranks(size_t idx, const ServerView& before, const ServerView& now);
  void add_look(size_t idx, const MemberView& now);
  // Of ranks that step together, the one that the others wait for, if there is one, and how much they do.
  struct Laggard {
    int64_t rank = -1;
    double others_wait = 0, own_wait = 0;
    bool is_known = false;  // whether there is one: some ranks had something to do
  };
  Laggard find_laggard(const std::vector<size_t>& members) const;
  std::vector<std::vector<size_t>> groups() const;
  void find_waits();
  void note_slow();
  Point measure() const;
  std::string state_event() const;
  std::string experts_event() const;

  const Names names_;
  int64_t now_ = 0, next_point_ = 0;
  ClusterView cluster_;
  std::vector<Member> members_;
  std::vector<Laggard> laggards_;  // [member], of its group
  std::deque<Point> points_;
  std::deque<Event> events_;
  std::string news_;
  int64_t slow_rank_ = -1, said_slow_ = -1;
  int num_times_slow_ = 0;
};

// The value below which the part `quantile` of the observations lies, between two bounds by a straight line; NaN
// without any. Beyond the last bound it is that bound.
double quantile_of(const HistogramView& histogram, double quantile);

}  // namespace cachalot::page
