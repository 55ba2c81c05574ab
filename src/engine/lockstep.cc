#include "engine/lockstep.h"

#include <algorithm>

namespace cachalot {

LeaderWord Agreements::begin(const Wish& wish) {
  const LeaderWord own{num_made_, wish.num_rows, wish.num_steps, wish.leaving, 0};
  agreement_ = {.num_rows = 0, .num_steps = 0, .all_leave = true};
  count(own);
  return own;
}

void Agreements::count(const LeaderWord& word) {
  agreement_.num_rows += word.num_rows;
  agreement_.all_leave &= word.leaving != 0;
  if (word.num_rows == 0) return;
  agreement_.num_steps = agreement_.num_steps == 0 ? word.num_steps : std::min(agreement_.num_steps, word.num_steps);
}

Status Agreements::hear(const LeaderWord& word, size_t size, const std::string& leader) {
  if (size != sizeof word || word.agreement != num_made_)
    return make_error(ErrorCode::kInternal, "{} is at agreement {} (a message of {} bytes), this rank at {}", leader,
                      word.agreement, size, num_made_);
  if (word.num_rows < 0 || word.num_rows > limits_.max_rows || word.num_steps < 1 || word.num_steps > limits_.max_steps)
    return make_error(ErrorCode::kCorrupt, "{} wishes {} steps of {} rows; at most {} of {} are possible", leader,
                      word.num_steps, word.num_rows, limits_.max_steps, limits_.max_rows);
  count(word);
  return {};
}

Agreement Agreements::end() {
  num_made_++;
  return agreement_;
}

Status Agreements::take_announced(std::span<const std::byte> bytes, Round& round) {
  num_made_++;
  RETURN_IF_ERROR(decode_round(bytes, round));
  return check_round(round, limits_);
}

Lockstep::Lockstep(Mesh& mesh, const ParallelOptions& parallel, const RoundLimits& limits)
    : mesh_(mesh), agreements_(limits) {
  const int tp_size = parallel.tensor_parallel_size, own_rank = parallel.group_rank();
  const int first_of_replica = own_rank - parallel.tensor_parallel_rank;
  round_bytes_.reserve(limits.max_round_bytes());
  round_.sequences.reserve(static_cast<size_t>(limits.max_num_seqs));
  if (!parallel.is_leader()) {
    round_bytes_.resize(limits.max_round_bytes());
    receives_.push_back({.peer = first_of_replica});
    return;
  }
  words_.resize(static_cast<size_t>(parallel.group_size() / tp_size - 1));
  for (int leader = 0; leader < parallel.group_size(); leader += tp_size) {
    if (leader == own_rank) continue;
    receives_.push_back({.peer = leader});
    word_sends_.push_back({.peer = leader});
  }
  for (int rank = first_of_replica + 1; rank < first_of_replica + tp_size; rank++)
    round_sends_.push_back({.peer = rank});
}

// Between two rounds nothing else is awaited from these peers, so that the next message of each is the one meant here.
void Lockstep::listen() {
  if (listening_) return;
  listening_ = true;
  for (size_t idx = 0; idx < receives_.size(); idx++) {
    const std::span<std::byte> buffer =
        words_.empty() ? std::span(round_bytes_) : std::as_writable_bytes(std::span(&words_[idx], 1));
    receives_[idx] = {.peer = receives_[idx].peer, .buffer = buffer};
    mesh_.start(receives_[idx]);
  }
}

Result<bool> Lockstep::wait_for_others() {
  listen();
  return mesh_.wait_for_any(receives_);
}

Result<Agreement> Lockstep::agree(const Wish& wish) {
  const CollectiveSite site{.operation = "agreement on the next round", .step = num_agreements()};
  const ExchangeClock::Call call(mesh_.clock(), site);
  listen();
  own_ = agreements_.begin(wish);
  for (SendOp& send : word_sends_) {
    send = {.peer = send.peer, .data = std::as_bytes(std::span(&own_, 1))};
    mesh_.start(send);
  }
  RETURN_IF_ERROR(mesh_.wait(word_sends_, receives_, site));
  listening_ = false;
  for (size_t idx = 0; idx < words_.size(); idx++)
    RETURN_IF_ERROR(agreements_.hear(words_[idx], receives_[idx].size, mesh_.rank_name(receives_[idx].peer)));
  return agreements_.end();
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
  listen();
  for (;;) {
    ASSIGN_OR_RETURN(const bool arrived, mesh_.wait_for_any(receives_));
    if (arrived) break;  // else woken for nothing
  }
  listening_ = false;
  RETURN_IF_ERROR(agreements_.take_announced(std::span(round_bytes_).first(receives_[0].size), round_));
  return &round_;
}

}  // namespace cachalot
