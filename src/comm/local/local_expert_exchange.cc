#include "comm/local/local_expert_exchange.h"

#include <cstring>
#include <numeric>

namespace cachalot {

Result<std::unique_ptr<LocalExpertExchange>> LocalExpertExchange::create(LocalHub& hub, int rank,
                                                                         const ExpertExchangeLimits& limits) {
  CHECK(limits.num_experts % hub.num_ranks() == 0, "{} experts over {} ranks", limits.num_experts, hub.num_ranks());
  std::unique_ptr<LocalExpertExchange> exchange(new LocalExpertExchange(hub, rank, limits));
  const int64_t num_ranks = hub.num_ranks(),
                result_bytes = limits.hidden_size * static_cast<int64_t>(dtype_size(limits.compute_dtype));
  const int64_t own_pairs = limits.max_rows * limits.top_k, all_pairs = own_pairs * num_ranks;
  exchange->pairs_.reserve(static_cast<size_t>(all_pairs));
  exchange->sorted_.reserve(static_cast<size_t>(all_pairs));
  exchange->pair_rows_.reserve(static_cast<size_t>(all_pairs));
  exchange->offsets_.resize(static_cast<size_t>(exchange->num_local_experts()) + 1);
  exchange->cursor_.resize(exchange->offsets_.size());
  exchange->row_ids_.resize(static_cast<size_t>(own_pairs));
  ASSIGN_OR_RETURN(exchange->results_, Device::allocate(static_cast<size_t>(all_pairs * result_bytes)));
  if (num_ranks > 1) {
    ASSIGN_OR_RETURN(exchange->arrived_rows_,
                     Device::allocate(static_cast<size_t>(limits.max_rows * num_ranks * limits.row_bytes)));
    ASSIGN_OR_RETURN(exchange->combined_, Device::allocate(static_cast<size_t>(own_pairs * result_bytes)));
  }
  return exchange;
}

Status LocalExpertExchange::dispatch(const DispatchRows& rows, const CollectiveSite& site) {
  CHECK(rows.rows.extent(0) <= limits_.max_rows && rows.rows.extent(0) == rows.expert_ids.extent(0),
        "dispatch of {} rows, {} rows of ids, at most {}", rows.rows.extent(0), rows.expert_ids.extent(0),
        limits_.max_rows);
  CHECK(rows.rows.extent(1) <= limits_.row_bytes, "rows of {} bytes, at most {}", rows.rows.extent(1), limits_.row_bytes);
  site_ = site;
  own_ = rows;
  delivered_ = false;
  return hub_.meet(rank_, this, site_);
}

// Every slot of every rank that names an expert of this rank, rank by rank; a row arrives once however many it names.
void LocalExpertExchange::collect_pairs() {
  pairs_.clear();
  num_arrived_ = 0;
  const int first = first_local_expert(), last = first + num_local_experts();
  const int64_t row_bytes = own_.rows.extent(1);  // the same on every rank
  for (int home = 0; home < hub_.num_ranks(); home++) {
    const DispatchRows& theirs = home == rank_ ? own_ : hub_.published<LocalExpertExchange>(home).own_;
    for (int64_t row = 0; row < theirs.rows.extent(0); row++) {
      bool named = false;
      for (int64_t slot = 0; slot < limits_.top_k; slot++) {
        const int32_t expert = theirs.expert_ids(row, slot);
        if (expert < first || expert >= last) continue;
        named = true;
        pairs_.push_back({expert - first, static_cast<int32_t>(num_arrived_), home,
                          static_cast<int32_t>(row * limits_.top_k + slot)});
      }
      if (!named) continue;
      if (hub_.num_ranks() > 1)
        std::memcpy(arrived_rows_.data() + num_arrived_ * row_bytes, theirs.rows.row(row),
                    static_cast<size_t>(row_bytes));
      num_arrived_++;
    }
  }
}

void LocalExpertExchange::sort_pairs() {
  std::fill(offsets_.begin(), offsets_.end(), 0);
  for (const Pair& pair : pairs_) offsets_[static_cast<size_t>(pair.expert) + 1]++;
  for (size_t expert = 1; expert < offsets_.size(); expert++) offsets_[expert] += offsets_[expert - 1];
  cursor_ = offsets_;
  sorted_.resize(pairs_.size());
  pair_rows_.resize(pairs_.size());
  for (const Pair& pair : pairs_) {
    const auto position = static_cast<size_t>(cursor_[static_cast<size_t>(pair.expert)]++);
    sorted_[position] = pair;
    pair_rows_[position] = pair.row;
  }
}

Result<bool> LocalExpertExchange::next(ArrivedRows& arrived) {
  if (delivered_) return false;
  delivered_ = true;
  collect_pairs();
  sort_pairs();
  arrived.rows = hub_.num_ranks() == 1
                     ? own_.rows
                     : View<const std::byte, 2>(arrived_rows_.data(), num_arrived_, own_.rows.extent(1));
  arrived.pair_rows = View<const int32_t, 1>(pair_rows_.data(), pair_rows_.size());
  result_rows_.resize(pair_rows_.size());
  std::iota(result_rows_.begin(), result_rows_.end(), 0);
  arrived.result_rows = View<const int32_t, 1>(result_rows_.data(), result_rows_.size());
  arrived.offsets = offsets_;
  arrived.results = ComputeView<2>(results_.data(), limits_.compute_dtype, pair_rows_.size(), limits_.hidden_size);
  return true;
}

Result<CombinedRows> LocalExpertExchange::combine() {
  const int64_t num_slots = own_.rows.extent(0) * limits_.top_k;
  const View<const int32_t, 2> row_ids(row_ids_.data(), own_.rows.extent(0), limits_.top_k);
  if (hub_.num_ranks() == 1) {
    for (size_t position = 0; position < sorted_.size(); position++)
      row_ids_[static_cast<size_t>(sorted_[position].slot)] = static_cast<int32_t>(position);
    return CombinedRows{ComputeView<2>(results_.data(), limits_.compute_dtype, sorted_.size(), limits_.hidden_size),
                        row_ids};
  }
  RETURN_IF_ERROR(hub_.meet(rank_, this, site_));  // all experts are through
  const size_t row_bytes = static_cast<size_t>(limits_.hidden_size) * dtype_size(limits_.compute_dtype);
  for (int rank = 0; rank < hub_.num_ranks(); rank++) {
    const auto& theirs = hub_.published<LocalExpertExchange>(rank);
    for (size_t position = 0; position < theirs.sorted_.size(); position++) {
      const Pair& pair = theirs.sorted_[position];
      if (pair.home != rank_) continue;
      std::memcpy(combined_.data() + static_cast<size_t>(pair.slot) * row_bytes,
                  theirs.results_.data() + position * row_bytes, row_bytes);
      row_ids_[static_cast<size_t>(pair.slot)] = pair.slot;
    }
  }
  RETURN_IF_ERROR(hub_.meet(rank_, this, site_));  // all have read
  return CombinedRows{ComputeView<2>(combined_.data(), limits_.compute_dtype, num_slots, limits_.hidden_size), row_ids};
}

}  // namespace cachalot
