#include "bench/dispatch_collective.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

namespace cachalot {
namespace {

constexpr CollectiveSite kDispatchSite{.operation = "bench dispatch"};

// DeepSeek-R1: a row's experts are the best of the best 4 of 8 groups of 32.
constexpr int64_t kHidden = 7168;
constexpr int kExperts = 256, kTopK = 8, kGroups = 8, kTopGroups = 4, kExpertsOfGroup = kExperts / kGroups;
constexpr int64_t kScaleBlock = 128;  // int8 values with one float scale

constexpr int64_t row_bytes(DispatchCollective::RowType type) {
  return type == DispatchCollective::RowType::kInt8 ? kHidden + kHidden / kScaleBlock * int64_t{sizeof(float)}
                                                    : kHidden * int64_t{sizeof(bf16)};
}

// Numbers as if by chance that everybody can work out (splitmix64).
class Chance {
 public:
  explicit Chance(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t word = state_ += 0x9e3779b97f4a7c15;
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
    word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
    return word ^ (word >> 31);
  }

 private:
  uint64_t state_;
};

// The first `count` of `all`, a random choice without repetition, in random order.
template <size_t N>
void choose(Chance& chance, std::array<int32_t, N>& all, size_t count) {
  for (size_t idx = 0; idx < count; idx++) std::swap(all[idx], all[idx + chance.next() % (N - idx)]);
}

// Which row it is, for its numbers and its experts; its first word.
uint64_t row_key(int home, int64_t row) {
  return static_cast<uint64_t>(home) << 32 | static_cast<uint64_t>(row);
}

std::array<int32_t, kTopK> experts_of(uint64_t key) {
  Chance chance(key);
  std::array<int32_t, kGroups> groups;
  std::iota(groups.begin(), groups.end(), 0);
  choose(chance, groups, kTopGroups);
  std::array<int32_t, kTopGroups * kExpertsOfGroup> experts;
  for (int idx = 0; idx < std::ssize(experts); idx++)
    experts[idx] = groups[idx / kExpertsOfGroup] * kExpertsOfGroup + idx % kExpertsOfGroup;
  choose(chance, experts, kTopK);
  std::array<int32_t, kTopK> chosen;
  std::copy_n(experts.begin(), kTopK, chosen.begin());
  return chosen;
}

// Word `idx` of a row, but for the first.
uint64_t row_word(uint64_t key, int64_t idx) {
  return (key + static_cast<uint64_t>(idx)) * 0x9e3779b97f4a7c15;
}

// Column `column` of an expert's result for a row, in the given check.
bf16 result_number(uint64_t key, int32_t expert, int64_t column, uint64_t check) {
  constexpr uint64_t kPeriod = 251;
  return bf16(static_cast<float>(
      (key * 7 + (key >> 32) * 31 + static_cast<uint64_t>(expert) * 13 + static_cast<uint64_t>(column) + check * 101) %
      kPeriod));
}

Result<ExchangeShape> shape_of(int num_ranks, const DispatchCollective::Options& options) {
  if (num_ranks > kExperts || kExperts % num_ranks != 0) {
    return make_parameter_error("--ranks", "dispatch: {} experts cannot be divided among {} ranks", kExperts,
                                num_ranks);
  }
  constexpr uint64_t kMostRows = 1 << 20;
  if (options.max_rows < 1 || options.max_rows > kMostRows) {
    return make_parameter_error("--maxbytes", "dispatch: {} rows a rank; 1 to {} can be measured", options.max_rows,
                                kMostRows);
  }
  return ExchangeShape{.num_ranks = num_ranks,
                       .num_experts = kExperts,
                       .top_k = kTopK,
                       .hidden_size = kHidden,
                       .compute_dtype = DType::kBF16,
                       .row_bytes = row_bytes(options.row_type),
                       .max_rows = static_cast<int64_t>(options.max_rows),
                       .max_bytes = static_cast<int64_t>(options.max_bytes)};
}

}  // namespace

Result<uint64_t> DispatchCollective::buffer_bytes(int num_ranks, const Options& options) {
  ASSIGN_OR_RETURN(const ExchangeShape shape, shape_of(num_ranks, options));
  return static_cast<uint64_t>(ExchangeLayout(shape).bytes() + shape.max_rows * shape.row_bytes);
}

Result<std::unique_ptr<DispatchCollective>> DispatchCollective::create(Mesh& mesh, const Options& options) {
  ASSIGN_OR_RETURN(const ExchangeShape shape, shape_of(mesh.size(), options));
  std::vector<int> members(static_cast<size_t>(mesh.size()));
  std::iota(members.begin(), members.end(), 0);
  ASSIGN_OR_RETURN(auto exchange, MeshExpertExchange::create(mesh, std::move(members), ExchangeLayout(shape)));
  return std::unique_ptr<DispatchCollective>(
      new DispatchCollective(std::move(exchange), mesh.rank(), options.row_type));
}

DispatchCollective::DispatchCollective(std::unique_ptr<MeshExpertExchange> exchange, int rank, RowType row_type)
    : exchange_(std::move(exchange)), rank_(rank), row_type_(row_type) {}

Result<CollectiveSize> DispatchCollective::set_size(uint64_t num_rows) {
  num_rows_ = static_cast<int64_t>(num_rows);
  const int64_t num_words = row_bytes(row_type_) / int64_t{sizeof(uint64_t)};
  rows_.clear();
  expert_ids_.clear();
  for (int64_t row = 0; row < num_rows_; row++) {
    const uint64_t key = row_key(rank_, row);
    rows_.push_back(key);
    for (int64_t idx = 1; idx < num_words; idx++) rows_.push_back(row_word(key, idx));
    std::ranges::copy(experts_of(key), std::back_inserter(expert_ids_));
  }
  return CollectiveSize{.bytes = rows_.size() * sizeof(uint64_t), .count = num_rows};
}

DispatchRows DispatchCollective::own_rows() const {
  return {View<const std::byte, 2>(reinterpret_cast<const std::byte*>(rows_.data()), num_rows_, row_bytes(row_type_)),
          View<const int32_t, 2>(expert_ids_.data(), num_rows_, kTopK)};
}

Status DispatchCollective::run() {
  RETURN_IF_ERROR(exchange_->dispatch(own_rows(), kDispatchSite));
  for (ArrivedRows arrived;;) {
    ASSIGN_OR_RETURN(const bool more, exchange_->next(arrived));
    if (!more) break;
  }
  RETURN_IF_ERROR(exchange_->combine());
  return {};
}

Result<uint64_t> DispatchCollective::check() {
  num_checks_++;
  uint64_t num_wrong = 0;
  RETURN_IF_ERROR(exchange_->dispatch(own_rows(), kDispatchSite));
  for (ArrivedRows arrived;;) {
    ASSIGN_OR_RETURN(const bool more, exchange_->next(arrived));
    if (!more) break;
    compute_results(arrived, num_wrong);
  }
  ASSIGN_OR_RETURN(const CombinedRows combined, exchange_->combine());
  return num_wrong + count_wrong(combined);
}

// A row that does not tell which it is, or came to an expert that it does not have, counts as wrong as a whole. One
// that did not come is missed where its results are.
void DispatchCollective::compute_results(const ArrivedRows& arrived, uint64_t& num_wrong) const {
  const int64_t num_words = arrived.rows.extent(1) / int64_t{sizeof(uint64_t)};
  const View<bf16, 2> results = arrived.results.as<bf16>();
  for (int local = 0; local < exchange_->num_local_experts(); local++) {
    const int32_t expert = exchange_->first_local_expert() + local;
    for (int32_t pair = arrived.offsets[local]; pair < arrived.offsets[local + 1]; pair++) {
      const auto* const words = reinterpret_cast<const uint64_t*>(arrived.rows.row(arrived.pair_rows(pair)));
      const uint64_t key = words[0];
      if (std::ranges::count(experts_of(key), expert) != 1) num_wrong += static_cast<uint64_t>(num_words);
      for (int64_t idx = 1; idx < num_words; idx++) num_wrong += words[idx] != row_word(key, idx);
      bf16* const result = results.row(arrived.result_rows(pair));
      for (int64_t column = 0; column < kHidden; column++)
        result[column] = result_number(key, expert, column, num_checks_);
    }
  }
}

uint64_t DispatchCollective::count_wrong(const CombinedRows& combined) const {
  uint64_t num_wrong = 0;
  const View<bf16, 2> results = combined.results.as<bf16>();
  for (int64_t row = 0; row < num_rows_; row++) {
    for (int slot = 0; slot < kTopK; slot++) {
      const bf16* const result = results.row(combined.row_ids(row, slot));
      const int32_t expert = expert_ids_[static_cast<size_t>(row * kTopK + slot)];
      for (int64_t column = 0; column < kHidden; column++)
        num_wrong += result[column].bits != result_number(row_key(rank_, row), expert, column, num_checks_).bits;
    }
  }
  return num_wrong;
}

}  // namespace cachalot
