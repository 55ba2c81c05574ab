#include "agents/epoch_log.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/log.h"
#include "comm/membership/wire.h"

namespace cachalot::agents {

namespace {

using std::chrono::nanoseconds;

// As many entries stay for voters that lag; who lags further gets the base.
constexpr int64_t kMostEntries = 8;

// The library's messages between two voters: a byte for the kind, and the fields. `sent` is the leader's clock, which
// the answer brings back.
enum LogWordKind : uint8_t { kVote = 1, kVoteAnswer, kAppend, kAppendAnswer, kBase, kBaseAnswer };

struct Vote {
  static constexpr int kType = kVote;
  bool is_trial = false;  // asks whether others would vote, before a term is spent
  int64_t term = 0, last_index = 0, last_term = 0;
  static auto fields(auto& self) { return std::tie(self.is_trial, self.term, self.last_index, self.last_term); }
};
struct VoteAnswer {
  static constexpr int kType = kVoteAnswer;
  bool is_trial = false, is_granted = false;
  int64_t request_term = 0, term = 0;
  static auto fields(auto& self) { return std::tie(self.is_trial, self.is_granted, self.request_term, self.term); }
};
struct Append {
  static constexpr int kType = kAppend;
  uint64_t id = 0;
  int64_t sent = 0, term = 0, previous_index = 0, previous_term = 0, committed = 0;
  std::vector<LogEntry> entries;
  static auto fields(auto& self) {
    return std::tie(self.id, self.sent, self.term, self.previous_index, self.previous_term, self.committed,
                    self.entries);
  }
};
struct AppendAnswer {
  static constexpr int kType = kAppendAnswer;
  uint64_t id = 0;
  int64_t sent = 0, request_term = 0, term = 0, last_index = 0;
  bool is_accepted = false;
  static auto fields(auto& self) {
    return std::tie(self.id, self.sent, self.request_term, self.term, self.last_index, self.is_accepted);
  }
};
struct Base {
  static constexpr int kType = kBase;
  uint64_t id = 0;
  int64_t sent = 0, term = 0, index = 0, base_term = 0;
  std::string base;
  static auto fields(auto& self) {
    return std::tie(self.id, self.sent, self.term, self.index, self.base_term, self.base);
  }
};
struct BaseAnswer {
  static constexpr int kType = kBaseAnswer;
  uint64_t id = 0, offset = 0;
  int64_t sent = 0, request_term = 0, term = 0, index = 0;
  bool is_accepted = false, is_last = false;
  static auto fields(auto& self) {
    return std::tie(self.id, self.offset, self.sent, self.request_term, self.term, self.index, self.is_accepted,
                    self.is_last);
  }
};

RaftEntry make_entry(const LogEntry& entry) {
  RaftEntry made(raft_entry_new(entry.data.size()));
  made->term = entry.term;
  made->type = entry.type;
  made->id = entry.id;
  std::memcpy(made->data, entry.data.data(), entry.data.size());
  return made;
}

LogEntry read_entry(const raft_entry_t& entry) {
  return {.term = entry.term, .type = entry.type, .id = entry.id, .data = std::string(entry.data, entry.data_len)};
}

}  // namespace

// --- What the library asks for.

struct EpochLog::Callbacks {
  static EpochLog& self(void* log) { return *static_cast<EpochLog*>(log); }

  static int send_vote(raft_server_t*, void* log, raft_node_t* node, raft_requestvote_req_t* request) {
    self(log).send(raft_node_get_id(node), Vote{.is_trial = request->prevote != 0,
                                                .term = request->term,
                                                .last_index = request->last_log_idx,
                                                .last_term = request->last_log_term});
    return 0;
  }
  static int send_append(raft_server_t*, void* log, raft_node_t* node, raft_appendentries_req_t* request) {
    Append append{.id = request->msg_id,
                  .sent = self(log).now_.time_since_epoch().count(),
                  .term = request->term,
                  .previous_index = request->prev_log_idx,
                  .previous_term = request->prev_log_term,
                  .committed = request->leader_commit,
                  .entries = {}};
    for (int64_t idx = 0; idx < request->n_entries; idx++) append.entries.push_back(read_entry(*request->entries[idx]));
    self(log).send(raft_node_get_id(node), append);
    return 0;
  }
  static int send_base(raft_server_t*, void* log, raft_node_t* node, raft_snapshot_req_t* request) {
    self(log).send(raft_node_get_id(node), Base{.id = request->msg_id,
                                                .sent = self(log).now_.time_since_epoch().count(),
                                                .term = request->term,
                                                .index = request->snapshot_index,
                                                .base_term = request->snapshot_term,
                                                .base = self(log).sent_base_});
    return 0;
  }
  static int read_base(raft_server_t*, void* log, raft_node_t*, raft_size_t offset, raft_snapshot_chunk_t* chunk) {
    std::string& base = self(log).sent_base_;
    base = control::encode(self(log).base_);
    if (offset > 0) return RAFT_ERR_DONE;
    *chunk = {.offset = 0, .data = base.data(), .len = base.size(), .last_chunk = 1};
    return 0;
  }
  static int store_base(raft_server_t*, void* log, raft_index_t, raft_size_t, raft_snapshot_chunk_t* chunk) {
    auto base = control::decode<LogBase>({static_cast<const char*>(chunk->data), chunk->len});
    if (!base) return RAFT_ERR_MISUSE;
    self(log).installed_ = std::move(*base);
    return 0;
  }
  static int load_base(raft_server_t*, void*, raft_term_t, raft_index_t) { return 0; }  // receive() does, behind it
  static int clear_base(raft_server_t*, void* log) {
    self(log).installed_.reset();
    return 0;
  }
  static int decide(raft_server_t*, void* log, raft_entry_t* entry, raft_index_t index) {
    EpochLog& own = self(log);
    if (entry->type == RAFT_LOGTYPE_REMOVE_NODE && voter_of(nullptr, log, entry, index) == own.voter_) {
      own.is_removed_ = true;
      return RAFT_ERR_SHUTDOWN;
    }
    if (entry->type != RAFT_LOGTYPE_NORMAL) return 0;
    control::Reader reader({entry->data, entry->data_len});
    Epoch epoch;
    reader(epoch);
    CHECK(reader.complete(), "an epoch in the log cannot be read");
    // What was proposed behind another epoch than the last one holds for nobody.
    if (epoch.number == own.decided_.number + 1) own.tell_decided(epoch);
    return 0;
  }
  static raft_node_id_t voter_of(raft_server_t*, void* log, raft_entry_t* entry, raft_index_t) {
    control::Reader reader({entry->data, entry->data_len});
    Voter voter;
    reader(voter);
    CHECK(reader.complete(), "a voter in the log cannot be read");
    self(log).servers_[voter.id] = voter.server;
    return voter.id;
  }
  static int promote(raft_server_t* core, void* log, raft_node_t* node) {
    const int id = raft_node_get_id(node);
    control::Writer writer;
    writer(Voter{.id = id, .server = self(log).servers_[id]});
    const RaftEntry entry = make_entry({.type = RAFT_LOGTYPE_ADD_NODE, .id = id, .data = writer.take()});
    return raft_recv_entry(core, entry.get(), nullptr);
  }
  static raft_time_t time(raft_server_t*, void* log) {
    // The library takes 0 for a clock that has not begun.
    return std::chrono::duration_cast<std::chrono::microseconds>(self(log).now_ - self(log).begin_).count() + 1000;
  }
};

// --- Its life.

EpochLog::EpochLog(LogState state, const LogTiming& timing, Disk& disk, Events events, Time now)
    : timing_(timing),
      disk_(disk),
      events_(std::move(events)),
      begin_(now),
      name_(state.name),
      voter_(state.voter),
      server_(state.server),
      made_for_(state.made_for),
      now_(now),
      heard_leader_(now) {
  CHECK(!state.is_blank() && state.base.index > 0);
  const RaftChance chance(events_.random);
  build(state);
  num_changes_ = 1;
  stamp_ = stamp();
  write();
}

EpochLog::~EpochLog() = default;

void EpochLog::build(const LogState& state) {
  base_ = state.base;
  decided_ = base_.epoch;
  servers_[voter_] = server_;
  core_.reset(raft_new());
  raft_cbs_t callbacks{};
  callbacks.send_requestvote = Callbacks::send_vote;
  callbacks.send_appendentries = Callbacks::send_append;
  callbacks.send_snapshot = Callbacks::send_base;
  callbacks.get_snapshot_chunk = Callbacks::read_base;
  callbacks.store_snapshot_chunk = Callbacks::store_base;
  callbacks.load_snapshot = Callbacks::load_base;
  callbacks.clear_snapshot = Callbacks::clear_base;
  callbacks.applylog = Callbacks::decide;
  callbacks.get_node_id = Callbacks::voter_of;
  callbacks.node_has_sufficient_logs = Callbacks::promote;
  callbacks.timestamp = Callbacks::time;
  raft_server_t* core = core_.get();
  raft_set_callbacks(core, &callbacks, this);
  raft_config(core, 1, RAFT_CONFIG_ELECTION_TIMEOUT, static_cast<int>(timing_.election.count()));
  raft_config(core, 1, RAFT_CONFIG_REQUEST_TIMEOUT, static_cast<int>(timing_.heartbeat.count()));
  bool is_own_there = false;
  for (const Voter& voter : base_.voters) {
    servers_[voter.id] = voter.server;
    const bool is_own = voter.id == voter_;
    is_own_there = is_own_there || is_own;
    voter.votes ? raft_add_node(core, nullptr, voter.id, is_own)
                : raft_add_non_voting_node(core, nullptr, voter.id, is_own);
  }
  if (!is_own_there) raft_add_non_voting_node(core, nullptr, voter_, 1);
  raft_restore_snapshot(core, base_.term, base_.index);
  raft_log_internal_impl.reset(raft_get_log(core), base_.index + 1, base_.term);
  for (const LogEntry& entry : state.entries)
    raft_log_internal_impl.append(raft_get_log(core), make_entry(entry).get());
  raft_restore_log(core);
  raft_restore_metadata(core, state.term, state.vote);
}

LogState EpochLog::state() const {
  LogState state{.name = name_,
                 .voter = voter_,
                 .server = server_,
                 .made_for = made_for_,
                 .term = raft_get_current_term(core_.get()),
                 .vote = raft_get_voted_for(core_.get()),
                 .base = base_,
                 .entries = {}};
  for (int64_t index = base_.index + 1; index <= raft_get_current_idx(core_.get()); index++)
    state.entries.push_back(read_entry(*RaftEntry(raft_get_entry_from_idx(core_.get(), index))));
  return state;
}

EpochLog::Stamp EpochLog::stamp() const {
  return {.term = raft_get_current_term(core_.get()),
          .vote = raft_get_voted_for(core_.get()),
          .last_index = raft_get_current_idx(core_.get()),
          .last_term = raft_get_last_log_term(core_.get()),
          .base_index = base_.index};
}

// --- Calls into the core, and what leaves it.

template <class Call>
int EpochLog::call(Time now, Call call) {
  if (is_removed_) return RAFT_ERR_SHUTDOWN;
  now_ = std::max(now, now_);
  const RaftChance chance(events_.random);
  int error = call(core_.get());
  if (installed_ && installed_->index > raft_get_current_idx(core_.get())) {
    LogState state = this->state();
    state.base = std::move(*installed_);
    state.entries.clear();
    build(state);
    tell_decided(state.base.epoch);
  }
  installed_.reset();
  if (error == 0) error = raft_exec_operations(core_.get());
  CHECK(error != RAFT_ERR_SHUTDOWN || is_removed_, "the log of epochs contradicts the leader's");
  if (!is_removed_) compact();
  settle();
  return error;
}

void EpochLog::compact() {
  if (raft_get_last_applied_idx(core_.get()) - base_.index <= kMostEntries) return;
  if (raft_begin_snapshot(core_.get()) != 0) return;
  base_ = {.index = raft_get_last_applied_idx(core_.get()),
           .term = raft_get_last_applied_term(core_.get()),
           .voters = voters(),
           .epoch = decided_};
  raft_end_snapshot(core_.get());
}

void EpochLog::settle() {
  const bool leads_now = raft_is_leader(core_.get());
  if (leads_now && !led_) leads_since_ = now_, acknowledged_.clear();
  led_ = leads_now;
  if (const Stamp now = stamp(); now != stamp_) {
    stamp_ = now;
    num_changes_++;
  }
  for (auto& leave : std::exchange(fresh_, {})) held_.push_back({num_changes_, std::move(leave)});
  write();
  release();
}

void EpochLog::write() {
  if (writing_ || num_written_ == num_changes_) return;
  writing_ = true;
  disk_.write(encode_state(state()), [this, weak = std::weak_ptr(alive_), change = num_changes_](Status status) {
    if (weak.expired()) return;
    writing_ = false;
    if (!status) return log::error("{}; this agent is silent until it can", status.error().message);
    num_written_ = change;
    release();
    write();
  });
}

void EpochLog::release() {
  const std::weak_ptr alive = alive_;
  while (!held_.empty() && held_.front().change <= num_written_) {
    const auto leave = std::move(held_.front().leave);
    held_.pop_front();
    leave();
    if (alive.expired()) return;
  }
}

template <class Message>
void EpochLog::send(int voter, const Message& message) {
  const auto server = servers_.find(voter);
  if (server == servers_.end()) return;
  fresh_.push_back(
      [this, voter, server = server->second, bytes = static_cast<char>(Message::kType) + control::encode(message)] {
        events_.send(voter, server, bytes);
      });
}

void EpochLog::tell_decided(const Epoch& epoch) {
  decided_ = epoch;
  fresh_.push_back([this, epoch] { events_.decided(epoch); });
}

// --- Events.

void EpochLog::tick(Time now) {
  write();  // again, where it has failed
  call(now, [](raft_server_t* core) {
    // Who does not vote seeks no votes either.
    return raft_node_is_voting(raft_get_my_node(core)) ? raft_periodic(core) : 0;
  });
}

void EpochLog::receive(Time now, int from, int from_server, std::string_view message) {
  if (message.empty() || is_removed_) return;
  servers_[from] = from_server;
  const std::string_view fields = message.substr(1);
  const auto take = [&](auto read, auto handle) {
    if (!read) return log::warn("server {} sent a word about the log that cannot be read", from_server);
    call(now, [&](raft_server_t* core) { return handle(core, raft_get_node(core, from), *read); });
  };
  switch (message[0]) {
    case kVote:
      // A leader's lease rests on this: for so long nobody who has heard it helps another to its place, nor does who
      // may have forgotten, nor the leader itself.
      if (now < heard_leader_ + timing_.election || now < lease_until(now)) return;
      return take(control::decode<Vote>(fields), [&](raft_server_t* core, raft_node_t* node, const Vote& vote) {
        raft_requestvote_req_t request{.prevote = vote.is_trial,
                                       .term = vote.term,
                                       .candidate_id = from,
                                       .last_log_idx = vote.last_index,
                                       .last_log_term = vote.last_term};
        raft_requestvote_resp_t answer{};
        core->leader_id = RAFT_NODE_ID_NONE;  // the library's own clock stands still in who does not vote yet
        const int error = raft_recv_requestvote(core, node, &request, &answer);
        send(from, VoteAnswer{.is_trial = answer.prevote != 0,
                              .is_granted = answer.vote_granted != 0,
                              .request_term = answer.request_term,
                              .term = answer.term});
        return error;
      });
    case kVoteAnswer:
      return take(control::decode<VoteAnswer>(fields),
                  [&](raft_server_t* core, raft_node_t* node, const VoteAnswer& vote) {
                    raft_requestvote_resp_t answer{.prevote = vote.is_trial,
                                                   .request_term = vote.request_term,
                                                   .term = vote.term,
                                                   .vote_granted = vote.is_granted};
                    return raft_recv_requestvote_response(core, node, &answer);
                  });
    case kAppend:
      return take(control::decode<Append>(fields), [&](raft_server_t* core, raft_node_t* node, const Append& append) {
        std::vector<RaftEntry> owned;
        std::vector<raft_entry_t*> entries;
        for (const LogEntry& entry : append.entries) entries.push_back(owned.emplace_back(make_entry(entry)).get());
        raft_appendentries_req_t request{.leader_id = from,
                                         .msg_id = append.id,
                                         .term = append.term,
                                         .prev_log_idx = append.previous_index,
                                         .prev_log_term = append.previous_term,
                                         .leader_commit = append.committed,
                                         .n_entries = static_cast<raft_index_t>(entries.size()),
                                         .entries = entries.data()};
        raft_appendentries_resp_t answer{};
        const int error = raft_recv_appendentries(core, node, &request, &answer);
        if (append.term == answer.term) heard_leader_ = now;
        send(from, AppendAnswer{.id = answer.msg_id,
                                .sent = append.sent,
                                .request_term = append.term,
                                .term = answer.term,
                                .last_index = answer.current_idx,
                                .is_accepted = answer.success != 0});
        return error;
      });
    case kAppendAnswer:
      return take(control::decode<AppendAnswer>(fields), [&](raft_server_t* core, raft_node_t* node,
                                                             const AppendAnswer& append) {
        hear(from, Time(nanoseconds(append.sent)), append.request_term, append.term);
        raft_appendentries_resp_t answer{
            .msg_id = append.id, .term = append.term, .success = append.is_accepted, .current_idx = append.last_index};
        return raft_recv_appendentries_response(core, node, &answer);
      });
    case kBase:
      return take(control::decode<Base>(fields), [&](raft_server_t* core, raft_node_t* node, const Base& base) {
        std::string bytes = base.base;
        raft_snapshot_req_t request{.term = base.term,
                                    .leader_id = from,
                                    .msg_id = base.id,
                                    .snapshot_index = base.index,
                                    .snapshot_term = base.base_term,
                                    .chunk = {.offset = 0, .data = bytes.data(), .len = bytes.size(), .last_chunk = 1}};
        raft_snapshot_resp_t answer{};
        const int error = raft_recv_snapshot(core, node, &request, &answer);
        if (base.term == answer.term) heard_leader_ = now;
        send(from, BaseAnswer{.id = answer.msg_id,
                              .offset = answer.offset,
                              .sent = base.sent,
                              .request_term = base.term,
                              .term = answer.term,
                              .index = answer.snapshot_index,
                              .is_accepted = answer.success != 0,
                              .is_last = answer.last_chunk != 0});
        return error;
      });
    case kBaseAnswer:
      return take(control::decode<BaseAnswer>(fields),
                  [&](raft_server_t* core, raft_node_t* node, const BaseAnswer& base) {
                    hear(from, Time(nanoseconds(base.sent)), base.request_term, base.term);
                    raft_snapshot_resp_t answer{.msg_id = base.id,
                                                .snapshot_index = base.index,
                                                .term = base.term,
                                                .offset = base.offset,
                                                .success = base.is_accepted,
                                                .last_chunk = base.is_last};
                    return raft_recv_snapshot_response(core, node, &answer);
                  });
    default:
      log::warn("server {} sent a word about the log of an unknown kind", from_server);
  }
}

// An answer to what this one sent as the leader that it still is, by a voter that knows of no other.
void EpochLog::hear(int from, Time sent, int64_t request_term, int64_t term) {
  if (!raft_is_leader(core_.get()) || request_term != raft_get_current_term(core_.get()) || term != request_term)
    return;
  Time& newest = acknowledged_.try_emplace(from, Time::min()).first->second;
  newest = std::max(newest, sent);
}

// --- Of a leader.

bool EpochLog::leads() const {
  return !is_removed_ && raft_is_leader(core_.get()) &&
         raft_get_last_applied_term(core_.get()) == raft_get_current_term(core_.get());
}

EpochLog::Time EpochLog::lease_until(Time now) const {
  if (!leads()) return Time::min();
  std::vector<Time> heard;
  for (int idx = 0; idx < raft_get_num_nodes(core_.get()); idx++) {
    raft_node_t* const node = raft_get_node_from_idx(core_.get(), idx);
    if (!raft_node_is_voting(node)) continue;
    const auto found = acknowledged_.find(raft_node_get_id(node));
    heard.push_back(node == raft_get_my_node(core_.get()) ? now
                    : found == acknowledged_.end()        ? Time::min()
                                                          : found->second);
  }
  if (heard.empty()) return Time::min();
  std::ranges::sort(heard, std::greater());
  const Time by_most = heard[heard.size() / 2];
  // A fifth is for clocks that do not run alike.
  return by_most == Time::min() ? by_most : by_most + timing_.election * 4 / 5;
}

std::optional<int> EpochLog::leader_server() const {
  if (is_removed_) return std::nullopt;
  const auto found = servers_.find(raft_get_leader_id(core_.get()));
  if (raft_is_leader(core_.get())) return server_;
  return found == servers_.end() ? std::nullopt : std::optional(found->second);
}

bool EpochLog::is_undecided() const {
  return raft_get_current_idx(core_.get()) > raft_get_last_applied_idx(core_.get());
}

bool EpochLog::append(Time now, int type, const std::string& data) {
  if (!leads() || is_undecided()) return false;
  return call(now, [&](raft_server_t* core) {
           const RaftEntry entry =
               make_entry({.type = type, .id = static_cast<int>(events_.random() >> 33), .data = data});
           return raft_recv_entry(core, entry.get(), nullptr);
         }) == 0;
}

bool EpochLog::propose(Time now, const Epoch& next) {
  return append(now, RAFT_LOGTYPE_NORMAL, control::encode(next));
}

bool EpochLog::admit(Time now, int voter, int server) {
  if (raft_get_node(core_.get(), voter)) return false;
  control::Writer writer;
  writer(Voter{.id = voter, .server = server, .votes = false});
  return append(now, RAFT_LOGTYPE_ADD_NONVOTING_NODE, writer.take());
}

bool EpochLog::retire(Time now, int voter) {
  if (voter == voter_ || !raft_get_node(core_.get(), voter)) return false;
  control::Writer writer;
  writer(Voter{.id = voter, .server = servers_[voter]});
  return append(now, RAFT_LOGTYPE_REMOVE_NODE, writer.take());
}

std::vector<Voter> EpochLog::voters() const {
  std::vector<Voter> voters;
  for (int idx = 0; idx < raft_get_num_nodes(core_.get()); idx++) {
    raft_node_t* const node = raft_get_node_from_idx(core_.get(), idx);
    if (!raft_node_is_addition_committed(node)) continue;
    const int id = raft_node_get_id(node);
    voters.push_back({.id = id, .server = servers_.at(id), .votes = raft_node_is_voting_committed(node) != 0});
  }
  return voters;
}

}  // namespace cachalot::agents
