#include "simulation/agents.h"

#include <fmt/format.h>

#include <algorithm>

#include "agents/agent.h"
#include "comm/membership/wire.h"

namespace cachalot::simulation {

namespace {

using agents::Agent;
using agents::AgentOptions;
using agents::Epoch;
using agents::Order;
using agents::RankPhase;
using agents::RankReport;

constexpr Duration kMostUntilWhole = 60s;      // after the last fault
constexpr Duration kMeshTimeout = 2s;          // of a rank that waits for the others of its epoch
constexpr char kLogWord = 5, kVoteAnswer = 2;  // kinds of messages, in agent.cc and epoch_log.cc

class Group;

// What is left of a server when its processes have ended.
struct Folder {
  std::string state;
  Duration slowness{};
  Duration restart{};  // above 0: the next write is the last of its agent, which starts again so much later
};

// A toy of a rank: it loads, enters what it is told to, and serves while all others of the epoch do.
struct SimulatedRank {
  ProcessPtr process;
  int server = 0, rank = 0;
  uint64_t id = 0;
  RankPhase phase = RankPhase::kLoading;
  Epoch told;
  uint32_t entered = 0;
  uint32_t through = 0;  // the newest epoch that it is through with, or could not come into
  int card = 0;
  Time serve_until = Time::min();

  std::string card_text() const { return fmt::format("card {} of {}", card, id); }
  bool is_in(uint32_t epoch, Time now) const {
    return process->is_alive && !process->is_stopped && entered == epoch && now < serve_until;
  }
};
using RankPtr = std::shared_ptr<SimulatedRank>;

class Server : public agents::AgentHost {
 public:
  Server(Group& group, int number) : group_(group), number_(number) {}

  void start();
  void end();  // as by kill -9; its ranks go with it

  void send(int server, std::string message) override;
  void start_rank(int rank, uint64_t process) override;
  void kill_rank(int rank, uint64_t process) override;
  void tell_rank(int rank, uint64_t process, const Order& order) override;
  uint64_t random() override;
  void write(std::string state, std::function<void(Status)> done) override;

  Agent* agent() { return is_up() ? agent_.get() : nullptr; }
  bool is_up() const { return process_ && process_->is_alive; }
  const ProcessPtr& process() const { return process_; }
  void receive(int from, const std::string& message);
  void tick();
  void end_rank(const RankPtr& rank, const std::string& why);
  void rank_speaks(const RankPtr& rank);
  RankPtr find_rank(int number) const;

  Folder folder;
  std::map<uint64_t, RankPtr> ranks;

 private:
  void enter(const RankPtr& rank, Time deadline);
  void rank_beats(const RankPtr& rank);
  void write_next();

  Group& group_;
  const int number_;
  ProcessPtr process_;
  std::unique_ptr<Agent> agent_;
  struct Write {
    std::string state;
    std::function<void(Status)> done;
  };
  std::deque<Write> writes_;
  bool writing_ = false;
};

class Group {
 public:
  Group(uint64_t seed, int num_servers, int ranks_per_server, bool has_witness, bool keep_history)
      : world(seed),
        options{.num_servers = num_servers,
                .ranks_per_server = ranks_per_server,
                .has_witness = has_witness,
                .longest_wait = std::chrono::seconds(2)} {
    if (keep_history) world.keep_history();
    for (int server = 0; server < options.num_agents(); server++)
      servers.push_back(std::make_unique<Server>(*this, server));
    for (const auto& server : servers) server->start();
  }
  ~Group() { world.forget_all(); }

  void run_for(Duration length) { world.run_until(world.now() + length); }
  void run_until(Time end) { world.run_until(end); }

  // --- What must never be.
  void see_epoch(int server, const Epoch& epoch) {
    if (epoch.number == 0) return;
    const auto [found, is_new] = decided.try_emplace(epoch.number, epoch);
    if (is_new) {
      world.note("server {} knows of epoch {:x}: {}", server, epoch.number, members_text(epoch));
      tally.epochs++;
      check_who_is_left_out(epoch);
    }
    if (!(found->second == epoch))
      throw Violation(fmt::format("epoch {:x} was decided twice, otherwise: {} and {}", epoch.number,
                                  members_text(found->second), members_text(epoch)));
  }
  // Who is decided without has ended, or its last lease has.
  void check_who_is_left_out(const Epoch& epoch) const {
    const auto before = decided.find(epoch.number - 1);
    if (before == decided.end()) return;
    for (const agents::EpochMember& member : before->second.members) {
      const RankPtr rank = find(member.process);
      if (!epoch.member(member.process) && rank && rank->process->is_alive && world.now() < rank->serve_until)
        throw Violation(
            fmt::format("epoch {:x} was decided without rank {}, which may still serve", epoch.number, member.rank));
    }
  }
  // Of one log at most one leads with the promise of a majority.
  void check_leader(int server) {
    const auto holds = [&](const Agent* agent) {
      return agent && agent->leads() && agent->log()->lease_until(world.now()) > world.now();
    };
    const Agent* const own = this->server(server).agent();
    if (!holds(own)) return;
    for (const auto& other : servers) {
      if (const Agent* const agent = other->agent();
          agent != own && holds(agent) && agent->log()->name() == own->log()->name())
        throw Violation(
            fmt::format("{} and server {} have a majority's promise at the same time", other->process()->name, server));
    }
  }
  // A vote that has left its server is one that the server's disk holds.
  void see_word(std::string_view message) {
    if (!message.starts_with(kLogWord)) return;
    agents::LogName name;
    int from = 0, to = 0;
    std::string word;
    control::Reader reader(message.substr(1));
    reader(name.generation, name.group, from, to, word);
    if (!reader.complete() || !word.starts_with(kVoteAnswer)) return;
    bool is_trial = false, is_granted = false;
    int64_t request_term = 0;
    control::Reader fields(std::string_view(word).substr(1));
    fields(is_trial, is_granted, request_term);
    if (is_granted && !is_trial) votes[{name.group, from}] = {request_term, to};
  }
  void check_memory(const agents::LogState& state) const {
    const auto vote = votes.find({state.name.group, state.voter});
    if (vote == votes.end()) return;
    const auto& [term, whom] = vote->second;
    if (state.term < term || (state.term == term && state.vote != whom))
      throw Violation(fmt::format("server {} forgot over a restart whom it had given its vote", state.server));
  }
  bool serves(const Epoch& epoch) const {
    return !epoch.members.empty() && std::ranges::all_of(epoch.members, [&](const agents::EpochMember& member) {
      const RankPtr rank = find(member.process);
      return rank && rank->is_in(epoch.number, world.now());
    });
  }
  // To be called whenever an epoch may have begun to serve.
  void check_serving(uint32_t number) {
    const auto begun = decided.find(number);
    if (begun == decided.end() || !serves(begun->second)) return;
    if (number < newest_served)
      throw Violation(fmt::format("epoch {:x} serves again after epoch {:x}", number, newest_served));
    if (number > newest_served) world.note("epoch {:x} serves", number);
    newest_served = std::max(newest_served, number);
    for (const auto& [other, epoch] : decided)
      if (other != number && serves(epoch))
        throw Violation(fmt::format("epochs {:x} and {:x} serve at the same time", other, number));
  }
  // All ranks in the newest epoch.
  bool is_whole() const {
    const auto num_ranks = static_cast<size_t>(options.num_servers * options.ranks_per_server);
    return !decided.empty() && decided.rbegin()->second.members.size() == num_ranks && serves(decided.rbegin()->second);
  }
  bool is_whole_within(Duration patience) {
    const Time end = world.now() + patience;
    while (!is_whole() && world.now() < end) run_for(20ms);
    return is_whole();
  }
  // Each agent votes, and remembers what it voted.
  bool all_remember() const {
    return std::ranges::all_of(servers, [&](const auto& server) {
      const Agent* const agent = server->agent();
      if (!agent || !agent->log() || !agent->has_majority(world.now()) || agent->log()->is_undecided()) return false;
      const auto voters = agent->log()->voters();
      return std::ssize(voters) == options.num_agents() && std::ranges::all_of(servers, [&](const auto& other) {
               return other->agent() && other->agent()->log() &&
                      std::ranges::any_of(voters, [&](const agents::Voter& voter) {
                        return voter.votes && voter.id == other->agent()->log()->voter();
                      });
             });
    });
  }
  bool anything_serves() const {
    return std::ranges::any_of(decided, [&](const auto& epoch) { return serves(epoch.second); });
  }

  void post(int from, int to, const std::string& message) {
    see_word(message);
    if (world.is_cut(1 + from, 1 + to)) return;
    Random& random = world.random();
    const int num_copies = random.one_in(is_bad ? 8 : 400) ? 0 : random.one_in(is_bad ? 8 : 400) ? 2 : 1;
    for (int copy = 0; copy < num_copies; copy++) {
      Duration delay = random.between(50us, 500us);
      if (random.one_in(is_bad ? 4 : 300)) delay += random.between(1ms, is_bad ? 400ms : 60ms);
      if (is_late[to] > 0) delay += random.between(0ms, 1500ms);
      if (is_bad && random.one_in(12)) delay += random.between(0ms, 1500ms);
      world.after(delay, nullptr, [this, from, to, message] {
        if (world.is_cut(1 + from, 1 + to)) return;
        Server& server = *servers[static_cast<size_t>(to)];
        if (server.is_up())
          world.after(0s, server.process(), [&server, from, message] { server.receive(from, message); });
      });
    }
  }

  RankPtr find(uint64_t process) const {
    const auto found = all_ranks.find(process);
    return found == all_ranks.end() ? nullptr : found->second.lock();
  }
  std::string members_text(const Epoch& epoch) const {
    std::string text;
    for (const auto& member : epoch.members) text += fmt::format(" {}:{:04x}", member.rank, member.process & 0xffff);
    for (const int server : epoch.given_up) text += fmt::format(" without server {}", server);
    return text.empty() ? " nobody" : text;
  }
  void cut(int from, int to) { world.cut(1 + from, 1 + to); }
  void mend(int from, int to) { world.mend(1 + from, 1 + to); }
  void cut_off(int server, bool is_cut) {
    for (int other = 0; other < options.num_agents(); other++) {
      if (other == server) continue;
      is_cut ? (cut(server, other), cut(other, server)) : (mend(server, other), mend(other, server));
    }
  }
  void mute(int server, bool is_mute) {
    for (int other = 0; other < options.num_agents(); other++)
      if (other != server) is_mute ? cut(server, other) : mend(server, other);
  }
  Server& server(int number) { return *servers[static_cast<size_t>(number)]; }

  void note_agents() {
    for (const auto& server : servers) {
      const Agent* const agent = server->agent();
      const agents::EpochLog* const log = agent ? agent->log() : nullptr;
      if (!log) {
        world.note("{} {}", server->process()->name, agent ? "belongs to no group" : "is down");
        continue;
      }
      std::string voters;
      for (const auto& voter : log->voters())
        voters += fmt::format(" {:04x} of {}{}", voter.id & 0xffff, voter.server, voter.votes ? "" : " (no vote)");
      const agents::LogState state = log->state();
      world.note("{}{}: {:04x}, epoch {:x}, term {}, {} entries behind {}, voters{}{}", server->process()->name,
                 log->leads() ? ", which leads" : "", log->voter() & 0xffff, agent->epoch().number, state.term,
                 state.entries.size(), state.base.index, voters, log->is_undecided() ? ", undecided" : "");
    }
  }

  World world;
  const AgentOptions options;
  std::vector<std::unique_ptr<Server>> servers;
  std::map<uint64_t, std::weak_ptr<SimulatedRank>> all_ranks;
  std::map<uint32_t, Epoch> decided;
  std::map<std::pair<uint64_t, int>, std::pair<int64_t, int>> votes;  // by log and voter: the last one's term, for whom
  uint32_t newest_served = 0;
  bool is_bad = false;
  std::map<int, int> is_late;  // what is sent to a server, by how many faults
  AgentTally tally;
};

// --- A server.

void Server::start() {
  process_ = group_.world.start_process(1 + number_, fmt::format("agent {}", number_));
  std::optional<agents::LogState> state;
  if (!folder.state.empty()) {
    auto read = agents::decode_state(folder.state);
    if (!read) {
      group_.world.note("the state of server {} cannot be read: {}; a person removes it", number_,
                        read.error().message);
      folder.state.clear();
    } else {
      group_.check_memory(*read);
      state = std::move(*read);
    }
  }
  group_.world.note("agent {} starts{}", number_, state ? "" : ", with an empty folder");
  AgentOptions options = group_.options;
  options.server = number_;
  agent_ = std::make_unique<Agent>(options, std::move(state), *this, group_.world.now());
  group_.world.after(0s, process_, [this] { tick(); });
}

void Server::tick() {
  agent_->tick(group_.world.now());
  group_.see_epoch(number_, agent_->epoch());
  group_.check_leader(number_);
  group_.world.after(agent_->tick_interval(), process_, [this] { tick(); });
}

void Server::end() {
  if (!is_up()) return;
  for (const auto& [id, rank] : ranks) group_.world.kill(rank->process);
  ranks.clear();
  group_.world.kill(process_);
  agent_.reset();
  // What was being written is there whole, or not at all.
  if (writing_ && !writes_.empty() && group_.world.random().one_in(2)) folder.state = writes_.front().state;
  writes_.clear();
  writing_ = false;
}

void Server::send(int server, std::string message) {
  group_.post(number_, server, message);
}
uint64_t Server::random() {
  return group_.world.random().next();
}

void Server::receive(int from, const std::string& message) {
  agent_->receive(group_.world.now(), from, message);
  group_.see_epoch(number_, agent_->epoch());
}

void Server::write(std::string state, std::function<void(Status)> done) {
  writes_.push_back({std::move(state), std::move(done)});
  if (!writing_) write_next();
}

void Server::write_next() {
  if (writes_.empty()) return;
  writing_ = true;
  if (const Duration later = std::exchange(folder.restart, 0s); later > 0s) {
    group_.world.after(group_.world.random().between(0us, 200us), nullptr, [this, later] {
      end();
      group_.world.after(later, nullptr, [this] {
        if (!is_up()) start();
      });
    });
  }
  Duration length = group_.world.random().between(200us, 4ms);
  if (folder.slowness > 0s) length += group_.world.random().between(Duration(0), folder.slowness);
  group_.world.after(length, process_, [this] {
    Write write = std::move(writes_.front());
    writes_.pop_front();
    if (write.state.size() > 64 << 10) throw Violation("an agent's state has outgrown its bounds");
    if (group_.world.random().one_in(400)) {
      write.done(make_error(ErrorCode::kIo, "no space"));
    } else {
      folder.state = std::move(write.state);
      write.done({});
    }
    group_.see_epoch(number_, agent_->epoch());
    writing_ = false;
    write_next();
  });
}

RankPtr Server::find_rank(int number) const {
  for (const auto& [id, rank] : ranks)
    if (rank->rank == number) return rank;
  return nullptr;
}

void Server::start_rank(int number, uint64_t id) {
  const auto rank = std::make_shared<SimulatedRank>();
  rank->process = group_.world.start_process(1 + number_, fmt::format("rank {}", number));
  rank->server = number_;
  rank->rank = number;
  rank->id = id;
  ranks[id] = rank;
  group_.all_ranks[id] = rank;
  group_.world.after(group_.world.random().between(100ms, 1500ms), rank->process, [this, rank] {
    rank->phase = RankPhase::kReady;
    rank_speaks(rank);
  });
  rank_beats(rank);
}

void Server::rank_beats(const RankPtr& rank) {
  rank_speaks(rank);
  group_.world.after(100ms, rank->process, [this, rank] { rank_beats(rank); });
}

void Server::rank_speaks(const RankPtr& rank) {
  const RankReport report{.process = rank->id,
                          .rank = rank->rank,
                          .phase = rank->phase,
                          .epoch = std::max(rank->entered, rank->through),
                          .card = rank->card_text()};
  group_.world.after(group_.world.random().between(10us, 200us), process_,
                     [this, report] { agent_->rank_said(group_.world.now(), report); });
}

void Server::end_rank(const RankPtr& rank, const std::string& why) {
  if (!rank->process->is_alive) return;
  group_.world.kill(rank->process);
  ranks.erase(rank->id);
  group_.world.after(group_.world.random().between(100us, 3ms), process_,
                     [this, rank, why] { agent_->rank_ended(group_.world.now(), rank->rank, rank->id, why); });
}

void Server::kill_rank(int, uint64_t process) {
  const auto found = ranks.find(process);
  if (found == ranks.end()) return;
  const RankPtr rank = found->second;
  group_.world.after(1ms, process_, [this, rank] { end_rank(rank, "killed"); });
}

void Server::tell_rank(int, uint64_t process, const Order& order) {
  const auto found = ranks.find(process);
  if (found == ranks.end()) return;
  const RankPtr rank = found->second;
  group_.world.after(group_.world.random().between(10us, 300us), rank->process, [this, rank, order] {
    if (order.epoch.number < rank->told.number) return;
    if (order.epoch.number > rank->told.number) {
      rank->told = order.epoch;
      rank->entered = 0;
      if (rank->phase == RankPhase::kMember) rank->phase = RankPhase::kReady;
      if (const agents::EpochMember* const own = order.epoch.member(rank->id)) {
        if (own->card == rank->card_text()) {
          rank->card++;
          enter(rank, group_.world.now() + kMeshTimeout);
        } else {
          rank->through = order.epoch.number;
        }
      }
      rank->serve_until = order.serve_until;
      return;
    }
    rank->serve_until = std::max(rank->serve_until, order.serve_until);
    group_.check_serving(rank->entered);
  });
}

// A mesh of all members, once all are about to; some time without one of them, and nothing comes of it.
void Server::enter(const RankPtr& rank, Time deadline) {
  group_.world.after(
      group_.world.random().between(2ms, 20ms), rank->process, [this, rank, deadline, number = rank->told.number] {
        if (rank->told.number != number || rank->entered == number) return;
        const bool all_come = std::ranges::all_of(rank->told.members, [&](const agents::EpochMember& member) {
          const RankPtr other = group_.find(member.process);
          return other && other->process->is_alive && !other->process->is_stopped && other->told.number == number &&
                 other->through != number && !group_.world.is_cut(1 + number_, 1 + other->server) &&
                 !group_.world.is_cut(1 + other->server, 1 + number_);
        });
        if (!all_come && group_.world.now() < deadline) return enter(rank, deadline);
        if (!all_come) {
          rank->through = number;
          return;
        }
        rank->entered = number;
        rank->phase = RankPhase::kMember;
        rank_speaks(rank);
        group_.check_serving(number);
      });
}

// --- Faults.

void apply(Group& group, const AgentFault& fault) {
  using Kind = AgentFault::Kind;
  World& world = group.world;
  Server& server = group.server(fault.server);
  world.note("FAULT {}", fault.text());
  const auto later = [&world, length = fault.length](auto what) { world.after(length, nullptr, what); };
  const auto stop = [&](const ProcessPtr& process) {
    if (!process || !process->is_alive || process->is_stopped) return;
    world.stop(process);
    later([&world, process] {
      if (process->is_alive) world.wake(process);
    });
  };
  const auto restart = [&] {
    server.end();
    later([&server] {
      if (!server.is_up()) server.start();
    });
  };
  const RankPtr rank = server.find_rank(fault.rank);
  switch (fault.kind) {
    case Kind::kRankEnds:
      if (rank && server.is_up()) server.end_rank(rank, "killed by a fault");
      return;
    case Kind::kRankStops:
      if (rank) stop(rank->process);
      return;
    case Kind::kFolderIsLost:
    case Kind::kFolderDamaged: {
      // Only what the rest survives: there is no majority without a memory.
      if (group.options.num_agents() < 3 || !group.is_whole() || !group.all_remember()) return;
      restart();
      if (fault.kind == Kind::kFolderIsLost)
        server.folder.state.clear();
      else if (!server.folder.state.empty())
        server.folder.state.resize(static_cast<size_t>(world.random().below(int(server.folder.state.size()))));
      return;
    }
    case Kind::kAgentEnds:
      return restart();
    case Kind::kAgentEndsWriting:
      server.folder.restart = std::max<Duration>(fault.length, 1ms);
      return;
    case Kind::kAgentStops:
      return stop(server.process());
    case Kind::kServerStops:
      stop(server.process());
      for (const auto& [id, one] : server.ranks) stop(one->process);
      return;
    case Kind::kServerIsCut:
      group.cut_off(fault.server, true);
      return later([&group, server = fault.server] { group.cut_off(server, false); });
    case Kind::kOneWayIsCut:
      if (fault.server == fault.other) return;
      group.cut(fault.server, fault.other);
      return later([&group, fault] { group.mend(fault.server, fault.other); });
    case Kind::kPairIsCut:
      if (fault.server == fault.other) return;
      group.cut(fault.server, fault.other), group.cut(fault.other, fault.server);
      return later([&group, fault] { group.mend(fault.server, fault.other), group.mend(fault.other, fault.server); });
    case Kind::kServerIsMute:
      // It hears the others late, and after a second nobody hears it.
      group.is_late[fault.server]++;
      world.after(std::min<Duration>(fault.length, 1s), nullptr,
                  [&group, server = fault.server] { group.mute(server, true); });
      return later([&group, server = fault.server] {
        group.world.after(0s, nullptr, [&group, server] {
          group.mute(server, false);
          group.is_late[server]--;
        });
      });
    case Kind::kDiskIsSlow:
      server.folder.slowness = 800ms;
      return later([&server] { server.folder.slowness = 0s; });
    case Kind::kNetworkIsBad:
      group.is_bad = true;
      return later([&group] { group.is_bad = false; });
  }
}

AgentOutcome finish(Group& group, std::optional<std::string> violation) {
  AgentOutcome outcome{.violation = std::move(violation), .tally = group.tally, .history = group.world.history()};
  outcome.tally.events = group.world.num_events();
  outcome.tally.seconds = std::chrono::duration<double>(group.world.now().time_since_epoch()).count() - 1000;
  return outcome;
}

template <class Life>
AgentOutcome live(Group& group, Life life) {
  try {
    life();
    return finish(group, std::nullopt);
  } catch (const Violation& violation) {
    group.note_agents();
    group.world.note("VIOLATION: {}", violation.what());
    return finish(group, violation.what());
  }
}

void expect(bool holds, std::string_view what) {
  if (!holds) throw Violation(std::string(what));
}

// --- Histories by name.

// One member is stopped while all others are replaced, one after the other, by agents that remember nothing.
AgentOutcome all_others_are_replaced(uint64_t seed, bool keep_history) {
  Group group(seed, 3, 2, false, keep_history);
  return live(group, [&] {
    expect(group.is_whole_within(30s), "the group did not begin");
    const AgentFault stop{AgentFault::Kind::kServerStops, {}, 60s, 0, 0, 0};
    apply(group, stop);
    group.run_for(3s);
    expect(group.anything_serves(), "two of three did not go on");
    for (const int server : {1, 2}) {
      // With one stopped and one replaced nobody is a majority until the new one has its place.
      group.server(server).end();
      group.run_for(2s);
      group.server(server).start();
      group.run_for(10s);
    }
    group.run_for(60s);
    expect(group.is_whole_within(kMostUntilWhole), "the group is not whole after the stopped member woke");
  });
}

AgentOutcome two_servers(uint64_t seed, bool keep_history, bool has_witness) {
  Group group(seed, 2, 2, has_witness, keep_history);
  return live(group, [&] {
    expect(group.is_whole_within(30s), "the group did not begin");
    group.server(1).end();
    group.run_for(5s);
    const bool goes_on = group.anything_serves();
    expect(goes_on == has_witness, has_witness ? "with a witness one of two servers did not go on"
                                               : "without a witness one of two servers went on");
    if (!has_witness) {
      group.run_for(20s);
      expect(!group.anything_serves(), "without a witness one of two servers went on");
      Agent& agent = *group.server(0).agent();
      expect(!agent.confirm_lost(group.world.now(), {0}).has_value(), "an agent gave itself up");
      expect(agent.confirm_lost(group.world.now(), {1}).has_value(), "confirm-lost was refused");
      group.run_for(10s);
      expect(group.anything_serves(), "a server did not go on when the loss was confirmed");
    }
    group.server(1).start();
    expect(group.is_whole_within(kMostUntilWhole), "the group is not whole after the lost server came back");
    expect(!group.server(0).agent()->confirm_lost(group.world.now(), {1}).has_value(),
           "confirm-lost of a server that is there was not refused");
  });
}
AgentOutcome two_servers_with_a_witness(uint64_t seed, bool keep_history) {
  return two_servers(seed, keep_history, true);
}
AgentOutcome two_servers_without_a_witness(uint64_t seed, bool keep_history) {
  return two_servers(seed, keep_history, false);
}

// Cut off, a single member that has an epoch of its own ends it before the others go on without it.
AgentOutcome the_last_member_is_cut_off(uint64_t seed, bool keep_history) {
  Group group(seed, 2, 1, true, keep_history);
  return live(group, [&] {
    expect(group.is_whole_within(30s), "the group did not begin");
    group.server(1).end();
    group.run_for(4s);
    expect(group.anything_serves(), "one server with a witness did not go on");
    const bool from_one_side = seed % 2 == 0;
    if (from_one_side)
      group.cut(0, 1), group.cut(0, 2);
    else
      group.cut_off(0, true);
    group.run_for(Duration(group.world.random().between(0ms, 1500ms)));
    group.server(1).start();
    group.run_for(15s);
    if (from_one_side)
      group.mend(0, 1), group.mend(0, 2);
    else
      group.cut_off(0, false);
    expect(group.is_whole_within(kMostUntilWhole), "the group is not whole after the cut");
  });
}

// A whole group ends, and begins anew with what its folders hold.
AgentOutcome all_begin_anew(uint64_t seed, bool keep_history) {
  Group group(seed, 4, 2, false, keep_history);
  return live(group, [&] {
    for (int round = 0; round < 3; round++) {
      expect(group.is_whole_within(30s), "the group did not begin");
      const uint32_t before = group.newest_served;
      for (const auto& server : group.servers) server->end();
      group.run_for(1s);
      for (const auto& server : group.servers) server->start();
      expect(group.is_whole_within(30s), "the group did not begin anew");
      expect(group.newest_served > before, "an epoch came twice");
    }
  });
}

}  // namespace

const std::vector<NamedHistory>& named_histories() {
  static const std::vector<NamedHistory> histories = {
      {"a member is stopped, all others are replaced one by one, it wakes", all_others_are_replaced},
      {"two servers and a witness lose a server", two_servers_with_a_witness},
      {"two servers without a witness lose a server, and a person says so", two_servers_without_a_witness},
      {"the only member is cut off while another one comes", the_last_member_is_cut_off},
      {"all end and begin anew", all_begin_anew},
  };
  return histories;
}

// --- Scenarios.

std::string AgentFault::text() const {
  static constexpr std::string_view kNames[] = {"a rank ends",
                                                "a rank stops",
                                                "an agent ends",
                                                "an agent ends, its folder is lost",
                                                "an agent ends, its folder is damaged",
                                                "an agent ends in the middle of a write",
                                                "an agent stops",
                                                "a server stops",
                                                "a server is cut off",
                                                "one way is cut",
                                                "two servers are cut from each other",
                                                "a server is heard by nobody",
                                                "a disk is slow",
                                                "the network is bad"};
  return fmt::format("{} (server {}, other {}, rank {}) for {} ms", kNames[static_cast<size_t>(kind)], server, other,
                     rank, length / 1ms);
}

std::string AgentScenario::text() const {
  std::string text =
      fmt::format("{} servers of {} ranks{}\n", num_servers, ranks_per_server, has_witness ? ", a witness" : "");
  for (const AgentFault& fault : faults) text += fmt::format("  {:8.3f} s: {}\n", fault.at / 1ms / 1e3, fault.text());
  return text;
}

AgentScenario make_agent_scenario(uint64_t seed, Duration length, int num_faults) {
  Random random(seed ^ 0xa6e27);
  AgentScenario scenario{.seed = seed, .length = length};
  scenario.num_servers = random.one_in(8) ? random.between(5, 8) : random.between(1, 4);
  scenario.ranks_per_server = random.between(1, 3);
  scenario.has_witness = scenario.num_servers == 2 ? !random.one_in(4) : scenario.num_servers > 2 && random.one_in(6);
  const int num_agents = scenario.num_servers + (scenario.has_witness ? 1 : 0);
  for (int idx = 0; idx < num_faults; idx++) {
    AgentFault fault;
    fault.kind = static_cast<AgentFault::Kind>(random.below(14));
    fault.at = random.between(Duration(0), length);
    fault.length = random.one_in(3)   ? random.between(1ms, 300ms)
                   : random.one_in(8) ? random.between(8s, 20s)
                                      : random.between(300ms, 8s);
    fault.server = random.below(num_agents);
    fault.other = random.below(num_agents);
    fault.rank = fault.server * scenario.ranks_per_server + random.below(scenario.ranks_per_server);
    scenario.faults.push_back(fault);
  }
  std::ranges::sort(scenario.faults, {}, &AgentFault::at);
  return scenario;
}

AgentOutcome simulate_agents(const AgentScenario& scenario, bool keep_history) {
  Group group(scenario.seed, scenario.num_servers, scenario.ranks_per_server, scenario.has_witness, keep_history);
  return live(group, [&] {
    const Time begin = group.world.now();
    Time over = begin + scenario.length;
    for (const AgentFault& fault : scenario.faults) {
      group.world.at(begin + fault.at, nullptr, [&group, fault] { apply(group, fault); });
      over = std::max(over, begin + fault.at + fault.length);
    }
    uint64_t num_looks = 0, num_serving = 0;
    while (group.world.now() < over) {
      group.run_for(50ms);
      num_looks++;
      num_serving += group.anything_serves();
    }
    for (const auto& server : group.servers) server->folder.restart = 0s;
    group.world.note("all faults are over");
    expect(group.is_whole_within(kMostUntilWhole), "not whole again a minute after the last fault");
    for (int tries = 0; tries < 30 && !group.all_remember(); tries++) group.run_for(1s);
    expect(group.all_remember(), "not every agent votes again");
    group.run_for(3s);
    expect(group.is_whole_within(1s), "what was whole fell apart without a fault");
    group.tally.serving = static_cast<double>(num_serving) / static_cast<double>(std::max<uint64_t>(num_looks, 1));
  });
}

AgentScenario shortest(AgentScenario scenario) {
  for (bool smaller = true; smaller;) {
    smaller = false;
    for (size_t idx = 0; idx < scenario.faults.size(); idx++) {
      AgentScenario without = scenario;
      without.faults.erase(without.faults.begin() + static_cast<std::ptrdiff_t>(idx));
      if (!simulate_agents(without, false).violation) continue;
      scenario = std::move(without);
      smaller = true;
      break;
    }
  }
  return scenario;
}

void AgentTally::operator+=(const AgentTally& other) {
  epochs += other.epochs;
  events += other.events;
  seconds += other.seconds;
  serving += other.serving;
}

std::string AgentTally::text() const {
  return fmt::format("{} epochs, {:.0f} simulated seconds, {} events", epochs, seconds, events);
}

}  // namespace cachalot::simulation
