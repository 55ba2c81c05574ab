#include "engine/lockstep.h"

#include <algorithm>
#include <utility>

namespace cachalot {

LeaderWord Agreements::begin(const Wish& wish) {
  const LeaderWord own{num_made_, wish.num_rows, wish.num_steps,
                       (wish.leaving ? LeaderWord::kLeaving : 0) | (wish.ends_epoch ? LeaderWord::kEndsEpoch : 0),
                       epoch_};
  agreement_ = {.num_rows = 0, .num_steps = 0, .all_leave = true};
  count(own);
  return own;
}

void Agreements::count(const LeaderWord& word) {
  agreement_.num_rows += word.num_rows;
  agreement_.all_leave &= (word.flags & LeaderWord::kLeaving) != 0;
  agreement_.epoch_ends |= (word.flags & LeaderWord::kEndsEpoch) != 0;
  if (word.num_rows == 0) return;
  agreement_.num_steps = agreement_.num_steps == 0 ? word.num_steps : std::min(agreement_.num_steps, word.num_steps);
}

Result<bool> Agreements::hear(const LeaderWord& word, size_t size, const std::string& leader) {
  if (size == sizeof word && word.epoch != epoch_) {
    num_foreign_++;
    return false;
  }
  if (size != sizeof word || word.agreement != num_made_)
    return make_error(ErrorCode::kInternal, "{} is at agreement {} (a message of {} bytes), this rank at {}", leader,
                      word.agreement, size, num_made_);
  if (word.num_rows < 0 || word.num_rows > limits_.max_rows || word.num_steps < 1 || word.num_steps > limits_.max_steps)
    return make_error(ErrorCode::kCorrupt, "{} wishes {} steps of {} rows; at most {} of {} are possible", leader,
                      word.num_steps, word.num_rows, limits_.max_steps, limits_.max_rows);
  count(word);
  return true;
}

Agreement Agreements::end() {
  num_made_++;
  return agreement_;
}

Result<bool> Agreements::take_announced(std::span<const std::byte> bytes, Round& round) {
  RETURN_IF_ERROR(decode_round(bytes, round));
  if (round.epoch != epoch_) {
    num_foreign_++;
    return false;
  }
  num_made_++;
  RETURN_IF_ERROR(check_round(round, limits_));
  return true;
}

void Agreements::begin_epoch(uint32_t epoch, const RoundLimits& limits) {
  limits_ = limits;
  epoch_ = epoch;
  num_made_before_ += std::exchange(num_made_, 0);
}

Lockstep::Lockstep(Mesh& mesh, const EpochRoles& roles, const RoundLimits& limits)
    : mesh_(mesh), limits_(limits), agreements_(limits, mesh.epoch()) {
  round_bytes_.reserve(limits.max_round_bytes());
  round_.sequences.reserve(static_cast<size_t>(limits.max_num_seqs));
  take_roles(roles);
}

void Lockstep::begin_epoch(const EpochRoles& roles, const RoundLimits& limits) {
  limits_ = limits;
  agreements_.begin_epoch(mesh_.epoch(), limits);
  take_roles(roles);
}

void Lockstep::take_roles(const EpochRoles& roles) {
  const int own_rank = mesh_.rank();
  listening_ = false;
  receives_.clear();
  word_sends_.clear();
  round_sends_.clear();
  words_.clear();
  is_speaker_ = std::ranges::find(roles.speakers, own_rank) != roles.speakers.end();
  if (!is_speaker_) {
    round_bytes_.resize(limits_.max_round_bytes());
    receives_.push_back({.peer = roles.tensor_group[0]});
    return;
  }
  for (const int speaker : roles.speakers) {
    if (speaker == own_rank) continue;
    receives_.push_back({.peer = speaker});
    word_sends_.push_back({.peer = speaker});
  }
  words_.resize(receives_.size());
  for (const int rank : roles.tensor_group)
    if (rank != own_rank) round_sends_.push_back({.peer = rank});
}

// Between two rounds nothing else is awaited from these peers, so that the next message of each is the one meant here.
void Lockstep::listen() {
  if (listening_) return;
  listening_ = true;
  for (size_t idx = 0; idx < receives_.size(); idx++) listen(idx);
}

void Lockstep::listen(size_t idx) {
  const std::span<std::byte> buffer =
      !is_speaker_ ? std::span(round_bytes_) : std::as_writable_bytes(std::span(&words_[idx], 1));
  receives_[idx] = {.peer = receives_[idx].peer, .buffer = buffer};
  mesh_.start(receives_[idx]);
}

Result<bool> Lockstep::wait_for_others() {
  listen();
  return mesh_.wait_for_any(receives_);
}

void Lockstep::end_epoch(uint32_t epoch) {
  epoch_to_end_.store(epoch);
  wake();
}

Result<Agreement> Lockstep::agree(Wish wish) {
  const CollectiveSite site{.operation = "agreement on the next round", .step = num_agreements()};
  const ExchangeClock::Call call(mesh_.clock(), site);
  listen();
  wish.ends_epoch |= wants_to_end_epoch();
  own_ = agreements_.begin(wish);
  for (SendOp& send : word_sends_) {
    send = {.peer = send.peer, .data = std::as_bytes(std::span(&own_, 1))};
    mesh_.start(send);
  }
  RETURN_IF_ERROR(mesh_.wait(word_sends_, receives_, site));
  listening_ = false;
  for (size_t idx = 0; idx < words_.size(); idx++) {
    for (;;) {
      ASSIGN_OR_RETURN(const bool heard,
                       agreements_.hear(words_[idx], receives_[idx].size, mesh_.rank_name(receives_[idx].peer)));
      if (heard) break;
      listen(idx);
      RETURN_IF_ERROR(mesh_.wait({}, std::span(&receives_[idx], 1), site));
    }
  }
  const Agreement agreement = agreements_.end();
  if (!agreement.epoch_ends) return agreement;
  // This rank's connections close with the next call, which tells the replica's other ranks.
  return mesh_.fail(make_error(ErrorCode::kUnavailable, "epoch {} ends: the group changes", mesh_.epoch()));
}

Status Lockstep::announce(const Round& round) {
  if (round_sends_.empty()) return {};
  const CollectiveSite site{.operation = "announcement of a round", .step = round.number};
  const ExchangeClock::Call call(mesh_.clock(), site);
  encode_round(round, round_bytes_);
  for (SendOp& send : round_sends_) {
    send = {.peer = send.peer, .data = round_bytes_};
    mesh_.start(send);
  }
  return mesh_.wait(round_sends_, {}, site);
}

// Not counted as waiting: between rounds there may be nothing to do.
Result<Round*> Lockstep::next_round() {
  const TraceScope span(mesh_.clock().trace(), "waiting for a round", -1, TraceSpan::Kind::kWaiting);
  for (;;) {
    listen();
    ASSIGN_OR_RETURN(const bool arrived, mesh_.wait_for_any(receives_));
    if (!arrived) continue;  // woken for nothing
    listening_ = false;
    ASSIGN_OR_RETURN(const bool taken,
                     agreements_.take_announced(std::span(round_bytes_).first(receives_[0].size), round_));
    if (taken) return &round_;
  }
}

}  // namespace cachalot
