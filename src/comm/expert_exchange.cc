#include "comm/expert_exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/math.h"
#include "device/device.h"

namespace cachalot {

namespace {

constexpr int64_t kHeadroom = 2;     // over evenly spread experts
constexpr int64_t kLeastPairs = 64;  // from one rank to another: decode batches take one pass
constexpr int64_t kLine = 64;

}  // namespace

ExchangeLayout::ExchangeLayout(const ExchangeShape& exchange) : shape(exchange) {
  CHECK(shape.row_bytes % 4 == 0, "rows of {} bytes", shape.row_bytes);
  if (shape.num_ranks() == 1) {
    rows_per_peer = shape.max_rows;
    pairs_per_peer = own_pairs();
    return;
  }
  const int pairs_of_row = std::min(shape.top_k, shape.placement->most_slots());
  const int64_t evenly = ceil_div(own_pairs(), shape.num_ranks());
  pairs_per_peer = std::min(std::max(kHeadroom * evenly, kLeastPairs), shape.max_rows * pairs_of_row);
  rows_per_peer = shape.max_rows;
  if (shape.max_bytes > 0) {
    const int64_t bytes_per_peer = shape.max_bytes / shape.num_ranks();
    pairs_per_peer = std::min(pairs_per_peer, bytes_per_peer / shape.result_bytes());
    const DispatchMessage one{.num_rows = 1, .row_bytes = shape.row_bytes, .top_k = shape.top_k};
    const int64_t bytes_of_row = one.bytes() - DispatchMessage::kHeaderBytes;
    rows_per_peer = (bytes_per_peer / kLine * kLine - DispatchMessage::kHeaderBytes) / bytes_of_row;
  }
  pairs_per_peer =
      std::max<int64_t>(pairs_per_peer, shape.top_k);  // a row always fits, even one that repeats an expert
  rows_per_peer = std::clamp<int64_t>(rows_per_peer, 1, std::min(shape.max_rows, pairs_per_peer));
}

int64_t ExchangeLayout::message_bytes() const {
  const DispatchMessage largest{.num_rows = rows_per_peer, .row_bytes = shape.row_bytes, .top_k = shape.top_k};
  return round_up(largest.bytes(), kLine);
}

std::string ExchangeLayout::describe() const {
  constexpr double kMiB = 1 << 20;
  return fmt::format(
      "expert exchange of {} ranks with at most {} experts each: at most {} rows and {} pairs from rank to rank in a "
      "pass, "
      "{:.1f} MiB for rows to send, {:.1f} MiB for rows that arrive, {:.1f} MiB for results",
      shape.num_ranks(), shape.placement->most_slots(), rows_per_peer, pairs_per_peer,
      static_cast<double>(sent_bytes()) / kMiB, static_cast<double>(arrived_bytes()) / kMiB,
      static_cast<double>(results_bytes()) / kMiB);
}

Result<std::unique_ptr<ExpertExchange>> ExpertExchange::create(Mesh& mesh, std::vector<int> members,
                                                               const ExchangeLayout& layout,
                                                               std::span<const int> nodes) {
  CHECK(std::ssize(members) == layout.shape.num_ranks() && (nodes.empty() || nodes.size() == members.size()));
  const auto self = std::ranges::find(members, mesh.rank());
  CHECK(self != members.end(), "rank {} is not a member of its exchange", mesh.rank());
  const auto rank = static_cast<int>(self - members.begin());
  for (int member = 0; member < std::ssize(members); member++)
    CHECK(mesh.takes_part(members[member]) || layout.shape.placement->num_slots(member) == 0,
          "rank {} takes no part, and has slots", members[member]);
  std::unique_ptr<ExpertExchange> exchange(new ExpertExchange(mesh, std::move(members), rank, layout, nodes));
  ASSIGN_OR_RETURN(exchange->sent_, Device::allocate(static_cast<size_t>(layout.sent_bytes())));
  ASSIGN_OR_RETURN(exchange->arrived_, Device::allocate(static_cast<size_t>(layout.arrived_bytes())));
  ASSIGN_OR_RETURN(exchange->results_, Device::allocate(static_cast<size_t>(layout.results_bytes())));
  return exchange;
}

ExpertExchange::ExpertExchange(Mesh& mesh, std::vector<int> members, int rank, const ExchangeLayout& layout,
                               std::span<const int> nodes)
    : mesh_(mesh),
      members_(std::move(members)),
      rank_(rank),
      nodes_(nodes.begin(), nodes.end()),
      layout_(layout),
      choice_(placement(), rank, nodes) {
  const size_t num_ranks = members_.size(), max_pairs = static_cast<size_t>(layout.max_arrived_pairs());
  const auto slots = static_cast<size_t>(placement().most_slots()), own_pairs = static_cast<size_t>(layout.own_pairs());
  peers_.resize(num_ranks);
  holders_.resize(own_pairs);
  slots_.resize(own_pairs);
  peer_rows_.resize(own_pairs);
  row_ids_.resize(own_pairs);
  pairs_.reserve(max_pairs);
  first_outgoing_.resize(num_ranks + 1);
  pair_rows_.reserve(max_pairs);
  result_rows_.reserve(max_pairs);
  offsets_.reserve(slots + 1);
  cursor_.reserve(slots + 1);
  for (int part = 0; part < 2; part++) {
    for (const int member : members_) {
      sends_.push_back({.peer = member, .data = {}, .done = true});
      receives_.push_back({.peer = member, .buffer = {}, .done = true});
    }
  }
}

ExpertExchange::~ExpertExchange() {
  if (state_ != State::kIdle) mesh_.abandon();
}

// ---- what goes where ----

Status ExpertExchange::dispatch(const DispatchRows& rows, const CollectiveSite& site) {
  const ExchangeClock::Call call(mesh_.clock(), "dispatch", site.layer);
  if (std::optional<Error> failure = mesh_.failure()) return std::unexpected(std::move(*failure));
  const int64_t num_rows = rows.rows.extent(0);
  CHECK(state_ == State::kIdle);
  CHECK(num_rows <= layout_.shape.max_rows && rows.expert_ids.extent(0) == num_rows,
        "dispatch of {} rows, {} rows of ids, at most {}", num_rows, rows.expert_ids.extent(0), layout_.shape.max_rows);
  CHECK(rows.expert_ids.extent(1) == layout_.shape.top_k);
  CHECK(rows.rows.extent(1) <= layout_.shape.row_bytes, "rows of {} bytes, at most {}", rows.rows.extent(1),
        layout_.shape.row_bytes);
  CHECK(rows.layer >= 0 && rows.layer < placement().shape().num_layers);
  site_ = site;
  own_ = rows;
  first_slot_ = placement().first_slot(rows.layer, rank_);
  num_slots_ = static_cast<int>(own_slots(rows.layer).size());
  num_combined_ = 0;
  pass_ = 0;
  counters_.rows_brought += static_cast<uint64_t>(num_rows);
  counters_.num_exchanges++;
  choose_copies();
  assign_rows();
  start_pass();
  return {};
}

void ExpertExchange::set_placement(SharedPlacement next, CopyChoice choice) {
  CHECK(state_ == State::kIdle && next->shape() == placement().shape() &&
        next->most_slots() == placement().most_slots());
  layout_.shape.placement = std::move(next);
  choice_ = std::move(choice);
}

void ExpertExchange::count_choices(std::span<uint64_t> counts) {
  const auto& [num_layers, num_experts, num_ranks] = placement().shape();
  CHECK(std::ssize(counts) == int64_t{num_layers} * num_experts);
  choices_ = counts;
}

void ExpertExchange::choose_copies() {
  const int64_t top_k = layout_.shape.top_k;
  const int num_experts = placement().shape().num_experts;
  uint64_t* const counts = choices_.empty() ? nullptr : choices_.data() + int64_t{own_.layer} * num_experts;
  for (int64_t row = 0; row < own_.rows.extent(0); row++) {
    for (int64_t slot = 0; slot < top_k; slot++) {
      const int32_t expert = own_.expert_ids(row, slot);
      CHECK(expert >= 0 && expert < num_experts, "expert {} of {}", expert, num_experts);
      const ExpertCopy copy = choice_.choose(own_.layer, expert, row);
      holders_[row * top_k + slot] = copy.rank;
      slots_[row * top_k + slot] = copy.slot;
      if (!counts) continue;
      const std::atomic_ref<uint64_t> count(counts[expert]);  // nobody else writes it
      count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
  }
}

// Own rows by destination, in order: a row goes once to each rank that computes any of its experts.
void ExpertExchange::assign_rows() {
  const int64_t num_rows = own_.rows.extent(0), top_k = layout_.shape.top_k;
  const auto for_each_destination = [&](auto body) {
    for (Peer& peer : peers_) peer.last_row = -1;
    for (int64_t row = 0; row < num_rows; row++) {
      for (int64_t slot = 0; slot < top_k; slot++) {
        Peer& peer = peers_[holders_[row * top_k + slot]];
        if (std::exchange(peer.last_row, row) != row) body(peer, row);
      }
    }
  };
  for (int peer = 0; peer < num_ranks(); peer++) {
    const bool takes_part = mesh_.takes_part(members_[peer]);
    peers_[peer] = {.more_to = takes_part, .more_from = takes_part};
  }
  for_each_destination([](Peer& peer, int64_t) { peer.end++; });
  size_t begin = 0;
  for (Peer& peer : peers_) {
    const size_t count = peer.end;
    peer.next = peer.end = begin;
    begin += count;
  }
  for_each_destination([&](Peer& peer, int64_t row) { peer_rows_[peer.end++] = static_cast<int32_t>(row); });
}

// The next rows for a destination, as many as a message takes, and places for their results.
ExpertExchange::Selection ExpertExchange::select_rows(int destination) {
  Peer& peer = peers_[destination];
  const int64_t top_k = layout_.shape.top_k;
  Selection rows{peer.next, peer.next};
  peer.first_result = num_combined_;
  while (rows.end < peer.end && static_cast<int64_t>(rows.end - rows.begin) < layout_.rows_per_peer) {
    const int64_t row = peer_rows_[rows.end];
    const uint16_t* holders = holders_.data() + row * top_k;
    const int64_t num_pairs = std::count(holders, holders + top_k, destination);
    if (num_combined_ - peer.first_result + num_pairs > layout_.pairs_per_peer) break;
    for (int64_t slot = 0; slot < top_k; slot++)
      if (holders[slot] == destination) row_ids_[row * top_k + slot] = static_cast<int32_t>(num_combined_++);
    rows.end++;
  }
  peer.num_results = num_combined_ - peer.first_result;
  peer.next = rows.end;
  peer.more_to = rows.end < peer.end;
  return rows;
}

// ---- a pass ----

void ExpertExchange::start_pass() {
  counters_.num_passes++;
  state_ = State::kStarted;
  for (int home = 0; home < num_ranks(); home++) {
    if (home == rank_ || !peers_[home].more_from) continue;
    row_receive(home).buffer = {message_from(home), static_cast<size_t>(layout_.message_bytes())};
    row_receive(home).done = false;
    mesh_.start(row_receive(home));
  }
  own_rows_ = {};
  for (int step = 0; step < num_ranks(); step++) {
    const int destination = peer_at(step);
    Peer& peer = peers_[destination];
    peer.num_results = 0;
    if (!peer.more_to) continue;
    const Selection rows = select_rows(destination);
    if (destination == rank_) {
      own_rows_ = rows;
      continue;
    }
    row_send(destination).data = write_message(destination, rows);
    row_send(destination).done = false;
    mesh_.start(row_send(destination));
    counters_.rows_sent += rows.end - rows.begin;
  }
}

std::span<const std::byte> ExpertExchange::write_message(int destination, const Selection& rows) {
  const Peer& peer = peers_[destination];
  const auto num_rows = static_cast<int64_t>(rows.end - rows.begin);
  const int64_t top_k = layout_.shape.top_k;
  const DispatchMessage message{.num_rows = num_rows, .row_bytes = own_.rows.extent(1), .top_k = top_k};
  const DispatchHeader header{.home = static_cast<uint16_t>(rank_),
                              .destination = static_cast<uint16_t>(destination),
                              .pass = pass_,
                              .num_rows = static_cast<uint32_t>(num_rows),
                              .num_pairs = static_cast<uint32_t>(peer.num_results),
                              .row_bytes = static_cast<uint32_t>(message.row_bytes),
                              .top_k = static_cast<uint16_t>(top_k),
                              .more = peer.more_to,
                              .placement_version = placement().version(),
                              .placement_hash = static_cast<uint32_t>(placement().hash()),
                              .epoch = mesh_.epoch()};
  std::byte* const begin = message_to(destination);  // its bytes between header and rows were never anything but zero
  std::memcpy(begin, &header, sizeof(header));
  std::byte* to = begin + DispatchMessage::rows_offset();
  for (size_t idx = rows.begin; idx < rows.end; idx++, to += message.row_bytes)
    std::memcpy(to, own_.rows.row(peer_rows_[idx]), static_cast<size_t>(message.row_bytes));
  auto* slots = reinterpret_cast<uint16_t*>(begin + message.slots_offset());
  for (size_t idx = rows.begin; idx < rows.end; idx++, slots += top_k)
    std::copy_n(slots_.data() + peer_rows_[idx] * top_k, top_k, slots);
  return {begin, static_cast<size_t>(message.bytes())};
}

Status ExpertExchange::progress() {
  const ExchangeClock::Call call(mesh_.clock(), "dispatch", site_.layer);
  return mesh_.progress();
}

Result<bool> ExpertExchange::next(ArrivedRows& arrived) {
  const ExchangeClock::Call call(mesh_.clock(), state_ == State::kStarted ? "dispatch" : "combine", site_.layer);
  CHECK(state_ == State::kStarted || state_ == State::kGivenOut);
  if (state_ == State::kGivenOut) {
    start_result_sends();
    if (!wants_another_pass()) {
      state_ = State::kThrough;
      return false;
    }
    pass_++;
    start_pass();
  }
  // All of it, the results of the pass before, too: their memory and the messages' is used again. A rank that computed
  // before its messages are out would hold up those who wait for them.
  RETURN_IF_ERROR(wait());
  RETURN_IF_ERROR(take_rows());
  start_result_receives();
  sort_pairs();
  counters_.expert_rows += pairs_.size();
  counters_.layer_expert_rows[std::clamp<size_t>(site_.layer, 0, counters_.layer_expert_rows.size() - 1)] +=
      pairs_.size();
  state_ = State::kGivenOut;
  arrived.rows = num_ranks() == 1 ? own_.rows
                                  : View<const std::byte, 2>(arrived_.data() + DispatchMessage::rows_offset(),
                                                             num_arrived_, own_.rows.extent(1));
  arrived.pair_rows = View<const int32_t, 1>(pair_rows_.data(), pair_rows_.size());
  arrived.result_rows = View<const int32_t, 1>(result_rows_.data(), result_rows_.size());
  arrived.offsets = offsets_;
  arrived.results = ComputeView<2>(results_.data(), layout_.shape.compute_dtype,
                                   layout_.outgoing_rows() + layout_.own_pairs(), layout_.shape.hidden_size);
  return true;
}

bool ExpertExchange::wants_another_pass() const {
  for (int peer = 0; peer < num_ranks(); peer++) {
    const Peer& state = peers_[peer];
    if (state.more_to || (peer != rank_ && state.more_from)) return true;
  }
  return false;
}

Status ExpertExchange::wait() {
  RETURN_IF_ERROR(mesh_.wait(sends_, receives_, site_));
  for (int peer = 0; peer < num_ranks(); peer++) {
    ReceiveOp& op = result_receive(peer);
    if (std::exchange(op.size, 0) != op.buffer.size()) return fail(peer, "sent results of another size");
    op.buffer = {};
  }
  return {};
}

std::unexpected<Error> ExpertExchange::fail(int peer, std::string_view what) const {
  return mesh_.fail(make_error(ErrorCode::kCorrupt, "{}: {} {}", site_.text(), mesh_.rank_name(members_[peer]), what));
}

// ---- rows that came ----

// The pairs of all rows that arrived, home by home, and the rows close behind each other, in place of the messages.
Status ExpertExchange::take_rows() {
  pairs_.clear();
  num_arrived_ = 0;
  num_outgoing_ = 0;
  for (int home = 0; home < num_ranks(); home++) {
    first_outgoing_[home] = num_outgoing_;
    if (home == rank_) {
      take_own_rows();
    } else if (!row_receive(home).buffer.empty()) {
      RETURN_IF_ERROR(take_message(home));
      row_receive(home).buffer = {};
    }
  }
  first_outgoing_.back() = num_outgoing_;
  return {};
}

void ExpertExchange::take_own_rows() {
  int64_t result_row = layout_.outgoing_rows() + peers_[rank_].first_result;
  for (size_t idx = own_rows_.begin; idx < own_rows_.end; idx++) {
    const int32_t row = peer_rows_[idx];
    add_pairs(slots_.data() + row * layout_.shape.top_k, result_row);
    if (num_ranks() > 1) std::memcpy(arrived_row(), own_.rows.row(row), static_cast<size_t>(own_.rows.extent(1)));
    num_arrived_++;
  }
}

Status ExpertExchange::take_message(int home) {
  const size_t size = std::exchange(row_receive(home).size, 0);
  DispatchHeader header;
  std::memcpy(&header, message_from(home), sizeof(header));
  const DispatchMessage message{
      .num_rows = header.num_rows, .row_bytes = own_.rows.extent(1), .top_k = layout_.shape.top_k};
  if (size < DispatchMessage::kHeaderBytes || header.magic_and_version != DispatchHeader{}.magic_and_version)
    return fail(home, "sent rows in a format of another version");
  const auto own_hash = static_cast<uint32_t>(placement().hash());
  if (header.placement_version != placement().version() || header.placement_hash != own_hash ||
      header.epoch != mesh_.epoch())
    return fail(home,
                fmt::format("sent rows by placement {} ({:08x}) of the experts in epoch {}; here are placement {} "
                            "({:08x}) and epoch {}",
                            header.placement_version, header.placement_hash, header.epoch, placement().version(),
                            own_hash, mesh_.epoch()));
  if (header.home != home || header.destination != rank_ || header.pass != pass_ ||
      header.row_bytes != message.row_bytes || header.top_k != message.top_k ||
      header.num_rows > layout_.rows_per_peer || header.num_pairs > layout_.pairs_per_peer ||
      static_cast<int64_t>(size) != message.bytes())
    return fail(home, "sent rows that do not fit this exchange");
  peers_[home].more_from = header.more != 0;
  counters_.rows_received += header.num_rows;

  const auto* slots = reinterpret_cast<const uint16_t*>(message_from(home) + message.slots_offset());
  std::byte* const place = arrived_row();
  const int64_t first_outgoing = num_outgoing_;
  for (int64_t row = 0; row < message.num_rows; row++, slots += message.top_k, num_arrived_++)
    add_pairs(slots, num_outgoing_);
  if (num_outgoing_ - first_outgoing != header.num_pairs) return fail(home, "sent rows and another number of pairs");
  std::memmove(place, message_from(home) + DispatchMessage::rows_offset(),
               static_cast<size_t>(message.num_rows * message.row_bytes));
  return {};
}

void ExpertExchange::add_pairs(const uint16_t* slots, int64_t& result_row) {
  for (int64_t idx = 0; idx < layout_.shape.top_k; idx++) {
    const int32_t slot = slots[idx] - first_slot_;
    if (slot >= 0 && slot < num_slots_)
      pairs_.push_back({slot, static_cast<int32_t>(num_arrived_), static_cast<int32_t>(result_row++)});
  }
}

// By slot; a slot's pairs stay in the order of homes, rows and each row's experts.
void ExpertExchange::sort_pairs() {
  offsets_.assign(static_cast<size_t>(num_slots_) + 1, 0);
  for (const Pair& pair : pairs_) offsets_[pair.slot + 1]++;
  for (size_t slot = 1; slot < offsets_.size(); slot++) offsets_[slot] += offsets_[slot - 1];
  cursor_ = offsets_;
  pair_rows_.resize(pairs_.size());
  result_rows_.resize(pairs_.size());
  for (const Pair& pair : pairs_) {
    const auto position = static_cast<size_t>(cursor_[pair.slot]++);
    pair_rows_[position] = pair.row;
    result_rows_[position] = pair.result_row;
  }
}

// ---- results ----

void ExpertExchange::start_result_receives() {
  for (int peer = 0; peer < num_ranks(); peer++) {
    const Peer& state = peers_[peer];
    if (peer == rank_ || state.num_results == 0) continue;
    result_receive(peer).buffer = {result(layout_.outgoing_rows() + state.first_result),
                                   static_cast<size_t>(state.num_results * layout_.shape.result_bytes())};
    result_receive(peer).done = false;
    mesh_.start(result_receive(peer));
  }
}

void ExpertExchange::start_result_sends() {
  for (int step = 1; step < num_ranks(); step++) {
    const int home = peer_at(step);
    const int64_t begin = first_outgoing_[home], count = first_outgoing_[home + 1] - begin;
    if (count == 0) continue;
    result_send(home).data = {result(begin), static_cast<size_t>(count * layout_.shape.result_bytes())};
    result_send(home).done = false;
    mesh_.start(result_send(home));
  }
}

Result<CombinedRows> ExpertExchange::combine() {
  const ExchangeClock::Call call(mesh_.clock(), "combine", site_.layer);
  CHECK(state_ == State::kThrough);
  RETURN_IF_ERROR(wait());
  state_ = State::kIdle;
  const int64_t num_rows = own_.rows.extent(0), top_k = layout_.shape.top_k;
  CHECK(num_combined_ == num_rows * top_k);
  return CombinedRows{.results = ComputeView<2>(result(layout_.outgoing_rows()), layout_.shape.compute_dtype,
                                                num_combined_, layout_.shape.hidden_size),
                      .row_ids = View<const int32_t, 2>(row_ids_.data(), num_rows, top_k)};
}

}  // namespace cachalot
