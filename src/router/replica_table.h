#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "router/replica_health.h"
#include "router/request_facts.h"

namespace cachalot::router {

// What a replica says of its load (GET /load).
struct LoadReport {
  int num_running = 0, num_waiting = 0;  // sequences
  double num_pending_tokens = 0;         // that came and are not computed yet
  double kv_usage = 0;                   // used KV blocks; 1: all of them
  std::string instance;                  // what the ids of its responses are marked with, another one with each start
  std::string fingerprint;               // of replicas whose answers have the same bits
  bool is_healing = false;  // has lost a rank that is to come back: keeps its streams, and takes nothing meanwhile
};

Result<LoadReport> parse_load_report(std::string_view json);

// What is known of one replica when a request has to go somewhere.
struct Candidate {
  bool is_open = false;          // it takes requests, and may be sent this one
  LoadReport report;             // its last word on its load,
  int num_unreported = 0;        // requests sent to it since then less those that ended since then,
  double unreported_tokens = 0;  // and their prompts
  double known_tokens = 0;       // of this request's prompt, that it has computed lately
  double ramp = 1;               // part of its share that it may get
};

// The work, in tokens, after which a new request with so many prompt tokens would have its first token there: what
// waits to be computed, a part of what the running sequences will still generate, and the prompt less what is known of
// it.
double predicted_work(const Candidate& candidate, double num_prompt_tokens);

// The open candidate with the least predicted work; among equals the first from `start` on, round the list. None: no
// candidate is open.
std::optional<size_t> choose_replica(std::span<const Candidate> candidates, double num_prompt_tokens, size_t start);

// Somebody whose request is at a replica that answers no longer.
class SilenceListener {
 public:
  virtual ~SilenceListener() = default;
  // On any thread.
  virtual void replica_is_silent(size_t replica) = 0;
  // Another process is there now, with this mark; `was_older`: the request was sent to one before it, for certain.
  virtual void replica_is_new(size_t replica, const std::string& mark, bool was_older) = 0;
};

// Why a request was given no replica.
enum class NoPlace {
  kNoneUp,       // no replica that it has not been sent to already takes requests
  kAllFull,      // those that do have as many as they may
  kRouterFull,   // all of them together do
  kForcedIsDown  // the one that it asks for does not take requests
};

struct ReplicaStatus {
  std::string url;
  ReplicaHealth health;
  LoadReport report;
  int num_in_flight = 0;
  double ramp = 1;
};

// All replicas: their health, their load, what the router has sent them, and what prompts they know. Thread-safe.
class ReplicaTable {
 public:
  using Time = ReplicaHealth::Time;
  struct Limits {
    int max_in_flight = 0, max_in_flight_per_replica = 0;  // 0: none
    int prefix_entries = 1 << 16;
  };
  // A request's place at a replica, given back with its end.
  class Place {
   public:
    Place(Place&& other) noexcept;
    Place& operator=(Place&&) = delete;
    ~Place();
    size_t replica() const { return replica_; }

   private:
    friend class ReplicaTable;
    Place(ReplicaTable& table, size_t replica, uint64_t id) : table_(&table), replica_(replica), id_(id) {}
    ReplicaTable* table_;
    size_t replica_;
    uint64_t id_;
  };

  ReplicaTable(const std::vector<std::string>& urls, const HealthPolicy& policy, const Limits& limits);

  size_t size() const { return replicas_.size(); }
  const std::string& url(size_t replica) const { return replicas_[replica].url; }

  // Finds a place for a request; not at those that it was `sent_to` before, and at no other than `forced`, if given.
  std::expected<Place, NoPlace> admit(const RequestFacts& facts, std::span<const size_t> sent_to,
                                      std::optional<size_t> forced, std::weak_ptr<SilenceListener> listener, Time now);

  // The health question of a replica: asked, and what came of it.
  void question_asked(size_t replica);
  void heard_well(size_t replica, const std::optional<LoadReport>& report, Time now);
  void heard_ill(size_t replica, const std::string& reason);
  // `since` then nothing was to be had; but if other requests got something, it is only busy.
  void heard_nothing(size_t replica, const std::string& reason, Time since);
  void was_refused(size_t replica, const std::string& reason, Time since);
  // What became of a request.
  void request_not_taken(size_t replica, const std::string& reason, Time since);
  void request_failed(size_t replica, const std::string& reason, bool has_words, Time now);
  void request_answered(size_t replica);
  // Something of an answer came.
  void heard(size_t replica, Time now) { last_heard_[replica] = now.time_since_epoch().count(); }

  bool any_up() const;
  // Whether any that takes requests marks the ids of its responses.
  bool any_marks() const;
  // The replica whose responses have this mark; none: it is gone, or was never there.
  std::optional<size_t> holder_of(std::string_view mark) const;
  bool is_silent(size_t replica) const;
  std::vector<ReplicaStatus> status(Time now) const;

 private:
  // Requests that a report does not know of: those sent since it was asked for, less those that ended since then.
  struct Unreported {
    int num_requests = 0;
    double num_tokens = 0;
  };
  struct Visit {
    std::weak_ptr<SilenceListener> listener;
    uint64_t question = 0;  // the last one that was asked before the request was sent
    double num_tokens = 0;
  };
  struct Replica {
    Replica(std::string url, const HealthPolicy& policy) : url(std::move(url)), health(policy) {}

    std::string url;
    ReplicaHealth health;
    LoadReport report;
    std::unordered_map<uint64_t, Visit> visits;
    uint64_t last_question = 0, reported_question = 0;
    Unreported since_question, since_report;
  };

  Candidate candidate(size_t replica, size_t known_bytes, Time now) const;
  bool is_full(const Replica& replica) const;
  void leave(size_t replica, uint64_t id);
  // Changes a replica's health and logs what became of it; who waits for one that is silent now hears of it.
  template <class Change>
  void change_health(size_t replica, Change change);

  // A report of another process than the last one.
  void tell_of_start(size_t replica, const std::string& mark);
  bool was_heard(size_t replica, Time since) const { return last_heard_[replica] > since.time_since_epoch().count(); }

  const Limits limits_;
  std::vector<std::atomic<int64_t>> last_heard_;
  mutable std::mutex mutex_;  // guards what follows, but for the urls
  std::vector<Replica> replicas_;
  PrefixAffinity affinity_;
  uint64_t next_id_ = 0;
  int num_in_flight_ = 0;
};

}  // namespace cachalot::router
