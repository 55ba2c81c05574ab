#include "comm/membership/hub.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/text.h"

namespace cachalot::control {

namespace {

constexpr size_t kMaxStrangers = 1024;  // connections that have not proved to be ranks

}  // namespace

Hub::Hub(Network& network, const JoinOptions& options, Hello own, GroupState& state)
    : options_(options),
      timing_{options.failure_timeout},
      own_(std::move(own)),
      state_(state),
      network_(network),
      timer_(network.make_timer([this] {
        armed_ = false;
        tick();
      })),
      clock_(timing_.slack()),
      notices_(options.notice_interval) {}

// A connection's events hold its client, and the client the connection, until it is closed.
Hub::~Hub() {
  for (const ClientPtr& client : strangers_) client->connection->close();
  for (const auto& [rank, client] : members_) client->connection->close();
  for (const ClientPtr& client : departing_) client->connection->close();
}

Status Hub::listen() {
  const auto cannot_take = [this](const std::string& why) {
    warn(strange_.add(network_.now(),
                      fmt::format("rank 0 cannot take a connection at {}:{}: {}", options_.host, options_.port, why)));
  };
  const Status listens = network_.listen(
      options_.host, options_.port, [this](ConnectionPtr connection) { greet(std::move(connection)); }, cannot_take);
  if (listens) return {};
  return make_parameter_error("--data-parallel-address",
                              "rank 0 cannot listen at {}:{} (--data-parallel-address, --data-parallel-rpc-port): {}",
                              options_.host, options_.port, listens.error().message);
}

void Hub::start() {
  const Clock::time_point now = network_.now();
  join_deadline_ = now + options_.join_timeout;
  notices_.restart(now);
  next_beat_ = now + timing_.heartbeat_interval();
  arm(next_beat_);
}

// --- Strangers.

void Hub::greet(ConnectionPtr connection) {
  if (strangers_.size() == kMaxStrangers) dismiss_stranger(strangers_.front(), "said nothing while many others came");
  auto client = std::make_shared<Client>(std::move(connection), timing_.slack());
  client->nonce = network_.random_nonce();
  client->heard = clock_.counted(network_.now());
  strangers_.push_back(client);
  client->connection->set_send_timeout(timing_.send_timeout());
  client->connection->start({
      .frame = [this, client](const Frame& frame) { on_frame(client, frame); },
      .closed = [this, client](const Error& error) { on_closed(client, error); },
  });
  send(client, Challenge{.nonce = client->nonce, .has_secret = own_.has_secret});
}

void Hub::dismiss_stranger(const ClientPtr& client, std::string_view what_it_did) {
  warn(
      strange_.add(network_.now(), fmt::format("rank 0 at {}:{} turns away a client from {}, which is no rank: {}",
                                               options_.host, options_.port, client->connection->peer(), what_it_did)));
  client->connection->close();
  strangers_.remove(ClientPtr(client));
}

void Hub::on_frame(const ClientPtr& client, const Frame& frame) {
  client->heard = clock_.counted(network_.now());
  client->joined ? on_message(client, frame) : on_hello(client, frame);
}

void Hub::on_hello(const ClientPtr& client, const Frame& frame) {
  if (frame.header.type != MessageType::kHello) return dismiss_stranger(client, "its first message is no greeting");
  const Result<Introduction> introduction = decode_introduction(frame.payload);
  if (!introduction) return dismiss_stranger(client, introduction.error().message);
  if (frame.header.protocol != kProtocolVersion) {
    client->hello = Hello{.introduction = *introduction};
    return refuse(client, protocol_error(own_.introduction, *introduction, frame.header.protocol));
  }
  Result<Hello> hello = decode<Hello>(frame.payload);
  if (!hello) return dismiss_stranger(client, hello.error().message);
  client->hello = std::move(*hello);
  if (frame.header.epoch != options_.epoch) {
    return refuse(client, {.code = ErrorCode::kUnavailable,
                           .message = fmt::format("{} wants to join epoch {} of the group, which is in epoch {}",
                                                  client->name(), frame.header.epoch, options_.epoch)});
  }
  admit(client);
}

// A rank of the group that differs ends the start for all, who could only wait for it in vain. Who has not proved to be
// one (another version of the protocol, no or another secret) is told, and nobody else is concerned. Without a secret
// there is nothing to prove: then whoever speaks the protocol can keep a group from forming, or join it.
void Hub::admit(const ClientPtr& client) {
  std::optional<Error> error = find_wrong_secret(options_.secret, client->nonce, own_, *client->hello);
  if (error) return refuse(client, *error);
  client->proved = true;
  error = verdict_;
  if (!error && formed_) {
    error = make_error(
                ErrorCode::kUnavailable,
                "{} comes too late: the group of {} ranks formed without it, in epoch {}, and takes nobody in; start "
                "all ranks anew",
                client->name(), own_.introduction.size, options_.epoch)
                .error();
  }
  if (!error) error = find_difference(own_, *client->hello);
  if (const ClientPtr first = member(client->rank()); !error && first)
    error = doubled_rank_error(*first->hello, *client->hello);
  if (error) {
    if (forming()) end_start(*error);
    return refuse(client, *error);
  }

  client->joined = true;
  members_[client->rank()] = client;
  strangers_.remove(ClientPtr(client));
  client->connection->set_max_receive_bytes(kMaxMessageBytes);
  Accepted accepted{.failure_timeout_ms = static_cast<uint32_t>(options_.failure_timeout.count())};
  if (own_.has_secret) accepted.proof = proof_of_rank0(options_.secret, client->nonce, client->hello->nonce);
  send(client, accepted);
  log::debug("{} has joined", client->name());
  if (missing_ranks().empty()) form();
}

void Hub::refuse(const ClientPtr& client, const Error& error) {
  if (!verdict_) {
    warn(refused_.add(network_.now(), fmt::format("rank 0 refuses a rank: {}", error.message)));
    if (!formed_) last_refused_ = error.message;
  }
  send(client, Refused{.code = error.code, .message = error.message, .parameter = error.parameter});
  let_go(client);
}

void Hub::end_start(Error error) {
  if (!forming()) return;
  verdict_ = std::move(error);
  linger_until_ = network_.now() + options_.linger;
  for (const auto& [rank, client] : std::map(members_)) refuse(client, *verdict_);
  finish_failed_start_if_told();
}

void Hub::finish_failed_start_if_told() {
  if (!verdict_ || state_.start_is_decided()) return;
  const bool all_told = static_cast<int>(told_.size()) == own_.introduction.size - 1;
  if (all_told || network_.now() >= linger_until_) state_.set_start_failed(*verdict_);
}

void Hub::form() {
  Formed formed{.isa_level = own_.isa_level, .isa_name = own_.isa_name};
  formed.members.push_back(member_of(own_, options_.host));
  for (const auto& [rank, client] : members_) {
    formed.members.push_back(member_of(*client->hello, client->connection->peer_address()));
    if (client->hello->isa_level >= formed.isa_level) continue;
    formed.isa_level = client->hello->isa_level;
    formed.isa_name = client->hello->isa_name;
  }
  formed_ = true;
  notices_.restart(network_.now());
  send_to_all(formed);
  state_.set_formed(std::move(formed));
}

// --- Ranks.

void Hub::on_message(const ClientPtr& client, const Frame& frame) {
  if (frame.header.epoch != options_.epoch)
    return log::warn("rank 0 passes over a control message of epoch {} from {}, the {}. of another epoch than {}",
                     frame.header.epoch, client->name(), ++num_foreign_, options_.epoch);
  const auto take = [&]<class Message>(const Message&, auto&& handle) {
    const Result<Message> message = decode<Message>(frame.payload);
    message ? handle(*message) : drop(client, message.error().message);
  };
  switch (frame.header.type) {
    case MessageType::kHeartbeat:
      return take(Heartbeat{}, [&](const Heartbeat& heartbeat) {
        client->activity = heartbeat.activity;
        client->activity.percent = std::clamp(client->activity.percent, 0, 100);
        if (client->asked) client->lateness.came(clock_.counted(network_.now()) - *client->asked);
        client->asked.reset();
        if (formed_ && !all_ready_) state_.report_progress(client->rank(), client->activity);
      });
    case MessageType::kReady:
      client->ready = true;
      client->activity.phase = Phase::kReady;  // from now on it has as long to answer as a rank that serves
      return tell_all_if_ready();
    case MessageType::kFailure:
      return take(Failure{}, [&](const Failure& failure) { on_failure(client, failure); });
    case MessageType::kLeft:
      if (!formed_) return drop(client, "it left");
      state_.set_left(client->rank());
      send_to_all(Left{.rank = client->rank()});  // to itself as the acknowledgement
      return let_go(client);
    default:
      return log::warn("rank 0 passes over a control message of type {} from {}", static_cast<int>(frame.header.type),
                       client->name());
  }
}

void Hub::on_failure(const ClientPtr& client, const Failure& failure) {
  if (!formed_ || failure.rank < 0 || failure.rank >= own_.introduction.size) return;
  if (failure.rank == 0) return step_down(fmt::format("{} says: {}", client->name(), escaped(failure.cause)));
  if (state_.is_present(failure.rank)) return lose(failure.rank, escaped(failure.cause));
  // The news of a loss is on its way to the one who asks; that of a goodbye may have been sent before it asked.
  if (!member(failure.rank)) send(client, Left{.rank = failure.rank});
}

void Hub::on_closed(const ClientPtr& client, const Error& error) {
  if (departing_.erase(client) > 0) {
    if (verdict_ && client->proved && client->rank() > 0 && client->rank() < own_.introduction.size)
      told_.insert(client->rank());
    finish_failed_start_if_told();
    return finish_leaving_if_through();
  }
  if (!client->joined) {
    if (error.code == ErrorCode::kCorrupt) return dismiss_stranger(client, error.message);
    strangers_.remove(ClientPtr(client));
    return;
  }
  drop(client, error.message.empty() ? std::string(kConnectionClosed)
                                     : fmt::format("its control connection broke: {}", error.message));
}

void Hub::drop(const ClientPtr& client, std::string cause) {
  if (member(client->rank()) != client) return;
  if (formed_) return lose(client->rank(), std::move(cause));
  client->connection->close();
  members_.erase(client->rank());
  log::warn("{} has gone again while the group was forming, and is waited for anew: {}", client->name(), cause);
}

// Every loss comes by here: reported on this rank, told to all others and, if it still listens, to the lost rank
// itself.
void Hub::lose(int rank, std::string cause) {
  const ClientPtr client = member(rank);
  if (!client) return;
  const Failure failure{.rank = rank, .cause = cause, .activity_known = true, .activity = client->activity};
  send_to_all(failure);
  let_go(client);
  state_.report_lost(rank, std::move(cause), failure.activity);
}

// A rank has given up this one, and with it the group, though others may still hear it: they are told the same.
void Hub::step_down(std::string cause) {
  const Failure failure{.rank = 0, .cause = cause, .activity_known = true, .activity = state_.activity()};
  send_to_all(failure);
  let_all_go();
  state_.report_lost(0, std::move(cause), failure.activity);
}

void Hub::let_go(const ClientPtr& client) {
  if (member(client->rank()) == client) members_.erase(client->rank());
  strangers_.remove(ClientPtr(client));
  if (client->connection->ended()) return;
  departing_.insert(client);
  client->connection->finish();
}

void Hub::let_all_go() {
  for (const auto& [rank, client] : std::map(members_)) let_go(client);
}

void Hub::set_ready() {
  own_ready_ = true;
  tell_all_if_ready();
}

void Hub::tell_all_if_ready() {
  if (!formed_ || all_ready_ || !own_ready_ || !missing_ranks().empty()) return;
  if (!std::ranges::all_of(members_, [](const auto& entry) { return entry.second->ready; })) return;
  all_ready_ = true;
  // How late heartbeats came while all loaded says little of what comes.
  for (const auto& [rank, client] : members_) client->lateness = Lateness(timing_.slack());
  send_to_all(Ready{});
  state_.set_all_ready();
}

void Hub::process_ended(int rank) {
  lose(rank, std::string(kProcessDied));
}

void Hub::resume() {
  if (!armed_) arm(network_.now() + timing_.slack());
}

void Hub::give_up(std::string why) {
  send_to_all(Failure{
      .rank = 0, .cause = fmt::format("it gave up: {}", why), .activity_known = true, .activity = state_.activity()});
  leave();
}

void Hub::stop_joining() {
  end_start({.code = ErrorCode::kCancelled,
             .message = fmt::format("{} was stopped while the group was forming", own_.introduction.name())});
}

void Hub::leave() {
  leaving_ = true;
  state_.set_left(0);
  send_to_all(Left{.rank = 0});
  let_all_go();
  finish_leaving_if_through();
}

void Hub::finish_leaving_if_through() {
  if (leaving_ && departing_.empty()) state_.set_gone();
}

// --- Time.

void Hub::arm(Clock::time_point next) {
  planned_ = next;
  armed_ = false;
  timer_->set(next);
  armed_ = true;
}

void Hub::tick() {
  const Clock::time_point now = network_.now();
  Clock::time_point next = now + timing_.heartbeat_interval();
  if (clock_.woke(planned_, now)) next = std::min(next, judge(now));
  if (now >= next_beat_) {
    next_beat_ = now + timing_.heartbeat_interval();
    beat(now);
  }
  if (forming() && now >= join_deadline_) {
    end_start({.code = ErrorCode::kDeadlineExceeded,
               .message = fmt::format("{} did not come to rank 0 at {}:{} within {} s{}{}", rank_list(missing_ranks()),
                                      options_.host, options_.port, options_.join_timeout.count() / 1000.0,
                                      last_refused_.empty() ? "" : "; refused was: ", last_refused_)});
  }
  finish_failed_start_if_told();
  if (notices_.due(now)) log_what_is_missing();
  warn(strange_.due(now));
  warn(refused_.due(now));
  arm(std::min(next, next_beat_));
}

Hub::Clock::time_point Hub::judge(Clock::time_point now) {
  const Clock::time_point counted = clock_.counted(now);
  for (const ClientPtr& client : std::list(strangers_)) {
    if (counted - client->heard >= options_.greeting_timeout) {
      dismiss_stranger(client,
                       fmt::format("no whole greeting came within {} s", options_.greeting_timeout.count() / 1000.0));
    }
  }
  Clock::duration shortest = timing_.heartbeat_interval();
  for (const auto& [rank, client] : std::map(members_)) {
    const Clock::duration silence = counted - client->heard,
                          limit = timing_.silence_limit(client->lateness, client->is_loading());
    if (silence < limit)
      shortest = std::min(shortest, limit - silence);
    else
      drop(client, Timing::silence_text(silence));
  }
  return now + shortest;
}

void Hub::beat(Clock::time_point now) {
  const Heartbeat heartbeat{.activity = state_.activity()};
  if (formed_ && !all_ready_) state_.report_progress(0, heartbeat.activity);
  for (const auto& [rank, client] : members_) {
    if (client->connection->has_unsent()) continue;
    send(client, heartbeat);
    if (!client->asked) client->asked = clock_.counted(now);
  }
}

void Hub::log_what_is_missing() {
  if (forming()) {
    log::info("rank 0 at {}:{} waits for {}; {} of {} are here", options_.host, options_.port,
              rank_list(missing_ranks()), members_.size() + 1, own_.introduction.size);
  }
  if (!formed_ || all_ready_ || leaving_) return;
  std::string loading;
  size_t num_loading = 0;
  constexpr size_t kMaxShown = 8;
  const auto add = [&](int rank, const Activity& activity) {
    if (++num_loading <= kMaxShown)
      loading += fmt::format("{}rank {} is {}", num_loading == 1 ? "" : ", ", rank, activity.text());
  };
  if (!own_ready_) add(0, state_.activity());
  for (const auto& [rank, client] : members_)
    if (!client->ready) add(rank, client->activity);
  log::info("{} of {} ranks have loaded: {}{}", own_.introduction.size - num_loading, own_.introduction.size, loading,
            num_loading > kMaxShown ? ", ..." : "");
}

void Hub::warn(const std::optional<std::string>& line) {
  if (line) log::warn("{}", *line);
}

Hub::ClientPtr Hub::member(int rank) const {
  const auto found = members_.find(rank);
  return found == members_.end() ? nullptr : found->second;
}

std::vector<int> Hub::missing_ranks() const {
  std::vector<int> missing;
  for (int rank = 1; rank < own_.introduction.size; ++rank)
    if (!members_.contains(rank)) missing.push_back(rank);
  return missing;
}

}  // namespace cachalot::control
