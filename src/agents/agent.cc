#include "agents/agent.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "comm/membership/member.h"
#include "comm/membership/wire.h"

namespace cachalot::agents {

namespace {

// Who served for so long before it ended starts again at once.
constexpr std::chrono::seconds kLongLife{10};
constexpr std::chrono::seconds kFirstWait{1};
// A voter that is silent for so many failure timeouts counts no more, where enough others are left.
constexpr int kTimeoutsUntilRetired = 10;
constexpr size_t kFewestVoters = 3;
constexpr std::string_view kGoneOnWithout = "the others have gone on without this agent";

enum AgentWord : uint8_t { kReport = 1, kGrant, kInvitation, kForget, kLogWord };

// "server 2", "the witness"
std::string server_name(const AgentOptions& options, int server) {
  return server < options.num_servers ? fmt::format("server {}", server) : "the witness";
}

}  // namespace

// A message is a byte for its kind and these fields.
struct Agent::Report {
  static constexpr int kType = kReport;
  LogName name;
  uint64_t agent = 0;
  int voter = 0;
  uint64_t made_for = 0;  // as in LogState
  int64_t sent = 0;
  std::vector<RankReport> ranks;
  static auto fields(auto& self) {
    return std::tie(self.name, self.agent, self.voter, self.made_for, self.sent, self.ranks);
  }
};
// The leader's answer to a report of that moment: its ranks may serve in that epoch, for the lease's time from then.
struct Agent::Grant {
  static constexpr int kType = kGrant;
  LogName name;
  uint64_t agent = 0;
  int64_t sent = 0;
  uint32_t epoch = 0;
  static auto fields(auto& self) { return std::tie(self.name, self.agent, self.sent, self.epoch); }
};
// To one that is blank: it takes part from here on. The term is one in which it was admitted already, so that it takes
// nothing from a leader of before.
struct Agent::Invitation {
  static constexpr int kType = kInvitation;
  LogName name;
  int voter = 0;
  int64_t term = 0;
  LogBase base;
  static auto fields(auto& self) { return std::tie(self.name, self.voter, self.term, self.base); }
};
struct Agent::LogWord {
  static constexpr int kType = kLogWord;
  LogName name;
  int from = 0, to = 0;
  std::string word;
  static auto fields(auto& self) { return std::tie(self.name, self.from, self.to, self.word); }
};
namespace {
// To a voter that the others do without.
struct Forget {
  static constexpr int kType = kForget;
  LogName name;
  int voter = 0;
  static auto fields(auto& self) { return std::tie(self.name, self.voter); }
};
}  // namespace

Agent::Agent(const AgentOptions& options, std::optional<LogState> state, AgentHost& host, Time now)
    : options_(options),
      host_(host),
      timing_{.election = options.failure_timeout / 2, .heartbeat = options.failure_timeout / 10},
      agent_(random_id()),
      clock_(options.failure_timeout / 10),
      planned_(now),
      next_report_(now) {
  if (!options_.is_witness()) {
    for (int idx = 0; idx < options_.ranks_per_server; idx++)
      ranks_.push_back({.rank = options_.server * options_.ranks_per_server + idx, .report = {}, .next_start = now});
  }
  if (!state) return;
  voter_ = state->voter;
  made_for_ = state->made_for;
  if (!state->is_blank()) begin_log(std::move(*state), now);
}

uint64_t Agent::random_id() {
  return std::max<uint64_t>(host_.random(), uint64_t{1} << 40);  // never 0, nor is its upper half
}

bool Agent::is_heard(int server, Time now) const {
  const auto found = peers_.find(server);
  return found != peers_.end() && clock_.counted(now) - found->second.heard < silence_limit();
}

template <class Message>
void Agent::send(int server, const Message& message) {
  host_.send(server, static_cast<char>(Message::kType) + control::encode(message));
}

// --- Events.

void Agent::tick(Time now) {
  clock_.woke(planned_, now);
  planned_ = now + tick_interval();
  tend_ranks(now);
  if (log_) log_->tick(now);
  if (log_ && log_->is_removed()) forget(kGoneOnWithout);
  if (voter_ == 0 && !is_naming_) begin_blank();
  if (is_news_ || now >= next_report_) report(now);
  if (!log_) found(now);
  if (leads()) lead(now);
}

void Agent::receive(Time now, int server, std::string_view message) {
  if (message.empty() || server < 0 || server >= options_.num_agents() || server == options_.server) return;
  const std::string_view fields = message.substr(1);
  const auto take = [&](auto read, auto handle) {
    if (!read) return log::warn("{}: {}", server_name(options_, server), read.error().message);
    handle(*read);
  };
  switch (message[0]) {
    case kReport:
      return take(control::decode<Report>(fields), [&](const Report& report) { on_report(now, server, report); });
    case kGrant:
      return take(control::decode<Grant>(fields), [&](const Grant& grant) {
        if (!log_ || grant.name != log_->name() || grant.agent != agent_ || grant.epoch != epoch_.number) return;
        lease_until_ = std::max(lease_until_, Time(Duration(grant.sent)) + lease());
        order_ranks();
      });
    case kInvitation:
      return take(control::decode<Invitation>(fields), [&](const Invitation& invitation) {
        if (log_ || invitation.voter != voter_) return;
        begin_log({.name = invitation.name,
                   .voter = voter_,
                   .server = options_.server,
                   .made_for = made_for_,
                   .term = invitation.term,
                   .base = invitation.base,
                   .entries = {}},
                  now);
      });
    case kForget:
      return take(control::decode<Forget>(fields), [&](const Forget& word) {
        if (word.voter != voter_ || voter_ == 0 || (log_ && word.name != log_->name())) return;
        forget(kGoneOnWithout);
        made_for_ = word.name.group;
      });
    case kLogWord:
      return take(control::decode<LogWord>(fields), [&](const LogWord& word) {
        if (!is_of_this_log(word.name, server) || !log_ || word.to != voter_) return;
        log_->receive(now, word.from, server, word.word);
      });
    default:
      log::warn("{} sent a word of an unknown kind", server_name(options_, server));
  }
}

void Agent::rank_said(Time now, const RankReport& report) {
  for (Rank& rank : ranks_) {
    if (rank.rank != report.rank || rank.process != report.process || rank.process == 0) continue;
    rank.heard = clock_.counted(now);
    if (rank.report.phase != report.phase || rank.report.epoch != report.epoch || rank.report.card != report.card)
      is_news_ = true;
    rank.report = report;
  }
  if (is_news_) tick(now);
}

void Agent::rank_ended(Time now, int number, uint64_t process, const std::string& why) {
  for (Rank& rank : ranks_) {
    if (rank.rank != number || rank.process != process) continue;
    rank.num_short_lives = now - rank.started >= kLongLife ? 0 : rank.num_short_lives + 1;
    const Duration wait =
        rank.num_short_lives == 0
            ? Duration{}
            : std::min<Duration>(options_.longest_wait, kFirstWait * (1 << std::min(rank.num_short_lives - 1, 10)));
    rank.next_start = now + wait;
    rank.process = 0;
    is_news_ = true;
    if (!starts_ranks_) continue;
    log::warn("rank {} ended: {}; it is started again{}", number, why,
              wait > Duration{}
                  ? fmt::format(" in {} s", std::chrono::duration_cast<std::chrono::seconds>(wait).count())
                  : "");
  }
  tick(now);
}

// --- Its ranks.

void Agent::tend_ranks(Time now) {
  for (Rank& rank : ranks_) {
    if (rank.process == 0) {
      if (now < rank.next_start || !starts_ranks_) continue;
      rank.process = random_id();
      rank.is_killed = false;
      rank.report = {.process = rank.process, .rank = rank.rank, .card = {}};
      rank.started = now;
      rank.heard = clock_.counted(now);
      is_news_ = true;
      host_.start_rank(rank.rank, rank.process);
      continue;
    }
    // Who loads takes cores and disks, and no request waits for it.
    const Duration limit = silence_limit() * (rank.report.phase == RankPhase::kLoading ? 3 : 1);
    const Duration silence = clock_.counted(now) - rank.heard;
    if (rank.is_killed || silence < limit) continue;
    log::warn("rank {} is killed: {}", rank.rank, control::Timing::silence_text(silence));
    rank.is_killed = true;
    host_.kill_rank(rank.rank, rank.process);
  }
}

void Agent::order_ranks() {
  for (const Rank& rank : ranks_)
    if (rank.process != 0 && !rank.is_killed)
      host_.tell_rank(rank.rank, rank.process, {.epoch = epoch_, .serve_until = lease_until_});
}

void Agent::report(Time now) {
  is_news_ = false;
  next_report_ = now + options_.failure_timeout / 6;  // two may be lost before a lease is over
  Report report{.name = log_ ? log_->name() : LogName{},
                .agent = agent_,
                .voter = voter_,
                .made_for = made_for_,
                .sent = now.time_since_epoch().count(),
                .ranks = {}};
  for (const Rank& rank : ranks_)
    if (rank.process != 0) report.ranks.push_back(rank.report);
  for (int server = 0; server < options_.num_agents(); server++)
    if (server != options_.server) send(server, report);
  on_report(now, options_.server, report);
}

void Agent::on_report(Time now, int server, const Report& report) {
  const bool is_blank = report.name.group == 0;
  Peer& peer = peers_[server];
  // Letters of one process come in order or are old.
  if (peer.agent == report.agent && report.sent < peer.sent.time_since_epoch().count()) return;
  if (!is_blank && !is_of_this_log(report.name, server)) return;
  const bool is_news = peer.ranks != report.ranks || peer.agent != report.agent;
  peer = {.agent = report.agent,
          .voter = report.voter,
          .made_for = report.made_for,
          .is_blank = is_blank,
          .ranks = report.ranks,
          .sent = Time(Duration(report.sent)),
          .heard = clock_.counted(now)};
  for (const RankReport& rank : report.ranks) sighted_[rank.process] = {report.agent, clock_.counted(now)};
  if (!log_ || server == options_.server) return;
  if (is_blank && log_->is_written()) {
    const std::vector<Voter> voters = log_->leads() ? log_->voters() : log_->base().voters;
    if (std::ranges::any_of(voters, [&](const Voter& voter) { return voter.id == report.voter; }))
      send(server,
           Invitation{.name = log_->name(), .voter = report.voter, .term = log_->state().term, .base = log_->base()});
  }
  if (!leads()) return;
  if (is_news) lead(now);
  grant(now, server, report);
}

// --- The log.

void Agent::begin_log(LogState state, Time now) {
  voter_ = state.voter;
  epoch_ = state.base.epoch;
  lease_until_ = Time::min();
  log_ = std::make_unique<EpochLog>(std::move(state), timing_, host_,
                                    EpochLog::Events{.send =
                                                         [this](int voter, int server, std::string word) {
                                                           if (server == options_.server) return;
                                                           send(server,
                                                                LogWord{log_->name(), voter_, voter, std::move(word)});
                                                         },
                                                     .decided = [this](const Epoch& epoch) { on_decided(epoch); },
                                                     .random = [this] { return host_.random(); }},
                                    now);
  is_news_ = true;
}

// Of an agent that knows of no log only its name must not be forgotten: once it is told, the others may count on it.
void Agent::begin_blank() {
  const int voter = static_cast<int>(random_id() >> 33);
  is_naming_ = true;
  host_.write(
      encode_state({.voter = voter, .server = options_.server, .made_for = made_for_, .base = {}, .entries = {}}),
      [this, voter, weak = std::weak_ptr(alive_)](const Status& status) {
        if (weak.expired()) return;
        is_naming_ = false;
        if (!status) return log::error("{}; this agent belongs to no group until it can", status.error().message);
        voter_ = voter;
        is_news_ = true;
      });
}

// The agents of a group that has never been agree on who they are when all are there for the first time.
void Agent::found(Time now) {
  if (options_.server != 0) return;
  LogBase base{.index = 1, .term = 1, .voters = {}, .epoch = {}};
  for (int server = 0; server < options_.num_agents(); server++) {
    if (!is_heard(server, now) || !peers_.at(server).is_blank || peers_.at(server).voter == 0) return;
    base.voters.push_back({.id = peers_.at(server).voter, .server = server});
  }
  log::info("{} begin a group", counted(options_.num_agents(), "agent"));
  begin_log({.name = {.group = random_id()},
             .voter = voter_,
             .server = options_.server,
             .term = base.term,
             .base = base,
             .entries = {}},
            now);
}

void Agent::forget(std::string_view why) {
  if (log_) log::warn("{}; it comes back as a new one", why);
  log_.reset();
  epoch_ = {};
  lease_until_ = Time::min();
  voter_ = 0;
  is_news_ = true;
}

bool Agent::is_of_this_log(const LogName& name, int server) {
  if (!log_ || name == log_->name()) return true;
  if (name > log_->name()) {
    forget(fmt::format("{} belongs to a group that went on without this agent, by a person's word",
                       server_name(options_, server)));
    return true;
  }
  return false;
}

void Agent::on_decided(const Epoch& epoch) {
  if (epoch.number <= epoch_.number) return;
  const auto ranks_without = [](const Epoch& all, const Epoch& others) {
    std::vector<int> ranks;
    for (const EpochMember& member : all.members)
      if (!others.member(member.process)) ranks.push_back(member.rank);
    return ranks;
  };
  const std::vector<int> lost = ranks_without(epoch_, epoch), come = ranks_without(epoch, epoch_);
  log::info("epoch {} of {}{}{}", epoch.number & ((1u << Epoch::kGenerationShift) - 1),
            counted(static_cast<int64_t>(epoch.members.size()), "rank"),
            lost.empty() ? "" : ", without " + rank_list(lost), come.empty() ? "" : ", with " + rank_list(come));
  epoch_ = epoch;
  lease_until_ = Time::min();  // the old one's
  // Who is ready to come was seen, too.
  const auto is_listed = [&](uint64_t process) {
    return std::ranges::any_of(peers_, [&](const auto& peer) {
      return std::ranges::find(peer.second.ranks, process, &RankReport::process) != peer.second.ranks.end();
    });
  };
  std::erase_if(sighted_,
                [&](const auto& sighting) { return !epoch.member(sighting.first) && !is_listed(sighting.first); });
  is_news_ = true;  // whoever leads gives a lease for it; with that the ranks hear of it
}

// --- Of the one that leads.

void Agent::grant(Time now, int server, const Report& report) {
  // While something is undecided a lease could outlast what is decided.
  if (log_->lease_until(now) <= now || log_->is_undecided() || log_->decided().number != epoch_.number) return;
  send(server, Grant{log_->name(), report.agent, report.sent, epoch_.number});
}

// The next leader comes when the majority's promise is over, and gives a lease's time more to whom it has not heard.
void Agent::renew_own_lease(Time now) {
  const Time promised = log_->lease_until(now);
  if (promised <= now || log_->is_undecided() || log_->decided().number != epoch_.number) return;
  lease_until_ = std::max(lease_until_, promised + lease() * 4 / 5);
  order_ranks();
}

void Agent::lead(Time now) {
  renew_own_lease(now);
  if (log_->lease_until(now) <= now || log_->is_undecided() || log_->decided().number != epoch_.number) return;
  if (!tend_voters(now)) propose(now);
}

// Whether something was begun: agents that come are admitted, their predecessors retired, who has been silent for long
// too.
bool Agent::tend_voters(Time now) {
  const std::vector<Voter> voters = log_->voters();
  const auto num_voting = static_cast<size_t>(std::ranges::count_if(voters, &Voter::votes));
  const auto find = [&](int id) { return std::ranges::find(voters, id, &Voter::id); };
  size_t num_heard = 0;
  for (const Voter& voter : voters) {
    const auto peer = peers_.find(voter.server);
    num_heard += voter.votes && is_heard(voter.server, now) && peer->second.voter == voter.id;
  }
  for (const auto& [server, peer] : peers_) {
    if (!is_heard(server, now) || peer.voter == 0) continue;
    const auto own = find(peer.voter);
    if (own == voters.end()) {
      // An id that was there once does not come back: whoever bears it takes another.
      if (!peer.is_blank || peer.made_for != log_->name().group)
        send(server, Forget{log_->name(), peer.voter});
      else if (log_->admit(now, peer.voter, server))
        return true;
      continue;
    }
    for (const Voter& other : voters) {
      if (other.server == server && other.id != peer.voter && (own->votes || !other.votes) &&
          log_->retire(now, other.id))
        return true;
    }
  }
  for (const Voter& voter : voters) {
    const auto peer = peers_.find(voter.server);
    const Time heard =
        std::max(peer == peers_.end() ? Time::min() : peer->second.heard, clock_.counted(*log_->leads_since()));
    if (!voter.votes || num_voting <= kFewestVoters || num_heard < num_voting / 2 + 1 ||
        clock_.counted(now) - heard < options_.failure_timeout * kTimeoutsUntilRetired)
      continue;
    log::warn("{} is silent and counts no more in what the agents decide, until it is back",
              server_name(options_, voter.server));
    if (log_->retire(now, voter.id)) return true;
  }
  return false;
}

// Its process has ended, or every lease that it may have had is over.
bool Agent::is_lost(const EpochMember& member, Time now) const {
  const Time since = clock_.counted(*log_->leads_since());
  const auto sighting = sighted_.find(member.process);
  const auto peer = peers_.find(member.server);
  if (sighting != sighted_.end() && peer != peers_.end() && peer->second.agent == sighting->second.agent &&
      is_heard(member.server, now)) {
    return std::ranges::none_of(peer->second.ranks,
                                [&](const RankReport& rank) { return rank.process == member.process; });
  }
  const Time last = sighting == sighted_.end() ? since : sighting->second.last;
  return clock_.counted(now) >= std::max(last + silence_limit(), since + lease());
}

const RankReport* Agent::last_word_of(const EpochMember& member) const {
  const auto peer = peers_.find(member.server);
  if (peer == peers_.end()) return nullptr;
  const auto said = std::ranges::find(peer->second.ranks, member.process, &RankReport::process);
  return said == peer->second.ranks.end() ? nullptr : &*said;
}

void Agent::propose(Time now) {
  Epoch next = epoch_;
  next.number++;
  const auto num_lost = std::erase_if(next.members, [&](const EpochMember& member) { return is_lost(member, now); });
  const bool has_survivors = !next.members.empty();
  // Members: all have entered the epoch; one is through with it, or cannot come in; all can be found anew.
  bool is_settled = true, is_over = false, is_found = true, is_found_anew = true;
  std::set<int> taken, given_up(next.given_up.begin(), next.given_up.end());
  given_up.insert(confirmed_.begin(), confirmed_.end());
  for (EpochMember& member : next.members) {
    taken.insert(member.rank);
    const RankReport* const said = last_word_of(member);
    if (!said) continue;
    const bool is_in = said->phase == RankPhase::kMember;
    is_settled = is_settled && is_in && said->epoch == epoch_.number;
    is_over = is_over || (!is_in && said->epoch == epoch_.number);
    is_found = is_found && !said->card.empty();
    is_found_anew = is_found_anew && said->card != member.card;
    member.card = said->card;
  }
  size_t num_joining = 0;
  for (const auto& [server, peer] : peers_) {
    if (!is_heard(server, now)) continue;
    given_up.erase(server);
    for (const RankReport& rank : peer.ranks) {
      const bool can_come = rank.phase != RankPhase::kLoading && !rank.card.empty() && !epoch_.member(rank.process);
      if (!can_come || !taken.insert(rank.rank).second) continue;
      next.members.push_back({.process = rank.process, .rank = rank.rank, .server = server, .card = rank.card});
      num_joining++;
    }
  }
  // Its ranks may have seen a loss before the agents, who then hear of it, too: else they try once more.
  if (is_over && over_epoch_ != epoch_.number) over_since_ = clock_.counted(now);
  over_epoch_ = is_over ? epoch_.number : 0;
  is_over = is_over && clock_.counted(now) - over_since_ >= silence_limit();
  if (num_lost == 0 && num_joining == 0 && !is_over) return;
  if (has_survivors) {
    // Who has taken a place in an epoch can be found in another as soon as its next card is known. But who is held up
    // by the lost in the epoch before has not taken it, and is found as it was.
    const auto counted = clock_.counted(now);
    if (is_found_anew || num_lost == 0 || held_up_in_ != epoch_.number) held_up_since_ = counted;
    held_up_in_ = epoch_.number;
    if (!is_found || (!is_found_anew && (num_lost == 0 || counted - held_up_since_ < 2 * tick_interval()))) return;
    // Who comes waits until the others are through with the last change.
    if (num_lost == 0 && !is_over && !is_settled) return;
  } else {
    // A group that begins, or begins anew, waits for all.
    const int num_expected =
        (options_.num_servers - static_cast<int>(std::ranges::count_if(
                                    next.given_up, [&](int server) { return server < options_.num_servers; }))) *
        options_.ranks_per_server;
    if (static_cast<int>(next.members.size()) < num_expected) return;
  }
  std::ranges::sort(next.members, {}, &EpochMember::rank);
  log_->propose(now, next);
}

// --- A person's word.

Status Agent::confirm_lost(Time now, const std::vector<int>& servers) {
  if (!log_) return make_error(ErrorCode::kUnavailable, "this agent does not belong to a group yet");
  for (const int server : servers) {
    if (server < 0 || server >= options_.num_agents() || server == options_.server)
      return make_error(ErrorCode::kInvalidArgument, "{} is no other server of this group", server);
    if (is_heard(server, now)) {
      return make_error(ErrorCode::kInvalidArgument, "{} is not lost: it was heard just now",
                        server_name(options_, server));
    }
  }
  // Whoever is silent and not named may be a majority that goes on.
  for (const Voter& voter : log_->voters()) {
    if (voter.server != options_.server && !is_heard(voter.server, now) &&
        std::ranges::find(servers, voter.server) == servers.end()) {
      return make_error(ErrorCode::kInvalidArgument, "{} is silent, too: it must be named if it is lost",
                        server_name(options_, voter.server));
    }
  }
  if (has_majority(now)) {
    if (!leads()) {
      return make_error(ErrorCode::kUnavailable, "the agents that are left are a majority; {} leads them: ask that one",
                        server_name(options_, log_->leader_server().value_or(0)));
    }
    confirmed_.insert(servers.begin(), servers.end());  // a group that begins anew does not wait for them
    return {};
  }
  LogState state = log_->state();
  Epoch epoch = log_->decided();
  epoch.number = (epoch.generation() + 1) << Epoch::kGenerationShift;
  epoch.given_up = servers;
  std::ranges::sort(epoch.given_up);
  state.name = {.generation = state.name.generation + 1, .group = random_id()};
  state.term++;
  state.vote = -1;
  state.base = {.index = state.base.index + static_cast<int64_t>(state.entries.size()) + 1,
                .term = state.term,
                .voters = {{.id = voter_, .server = options_.server}},
                .epoch = std::move(epoch)};
  state.entries.clear();
  log::warn("this agent goes on alone, by a person's word; who else is left joins it");
  log_.reset();
  begin_log(std::move(state), now);
  return {};
}

}  // namespace cachalot::agents
