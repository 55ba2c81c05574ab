#include "bench/collectives.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "comm/group.h"

namespace cachalot {

namespace {

constexpr CollectiveSite kAllReduceSite{.operation = "bench allreduce"};
constexpr int kPeriod = 251;        // of the numbers; no power of two, so that parts in the wrong place show
constexpr int kLargestExact = 256;  // the integers up to here are exact in bf16, and so are sums that stay below

// What rank `rank` brings at each place, a small integer.
int value_at(int rank, int64_t idx, int num_ranks) {
  const int num_values = std::max(kLargestExact / num_ranks, 2);
  return static_cast<int>((idx + rank * 17) % kPeriod) % num_values;
}

}  // namespace

uint64_t AllReduceCollective::buffer_bytes(const Options& options) {
  const uint64_t bytes = options.max_bytes > 0 ? std::min(options.max_size, options.max_bytes) : options.max_size;
  return bytes / dtype_size(options.dtype) * dtype_size(options.dtype);
}

Result<std::unique_ptr<AllReduceCollective>> AllReduceCollective::create(Mesh& mesh, const Options& options) {
  const uint64_t bytes = buffer_bytes(options);
  if (bytes == 0) {
    return make_parameter_error(
        "--maxbytes", "all-reduce: a buffer of {} bytes holds no number of {}",
        options.max_bytes > 0 ? std::min(options.max_size, options.max_bytes) : options.max_size,
        dtype_size(options.dtype));
  }
  if (mesh.size() > kLargestExact) {
    return make_error(ErrorCode::kUnsupported, "all-reduce of {} ranks: results are checked for at most {}",
                      mesh.size(), kLargestExact);
  }
  std::vector<int> members(static_cast<size_t>(mesh.size()));
  std::iota(members.begin(), members.end(), 0);
  const uint64_t num_values = bytes / dtype_size(options.dtype);
  ASSIGN_OR_RETURN(auto group, make_group(mesh, {.members = members, .max_summed_bytes = static_cast<int64_t>(bytes)}));
  return std::unique_ptr<AllReduceCollective>(new AllReduceCollective(std::move(group), options.dtype, num_values));
}

AllReduceCollective::AllReduceCollective(std::unique_ptr<Group> group, DType dtype, uint64_t num_values)
    : group_(std::move(group)), dtype_(dtype), values_(num_values * dtype_size(dtype)), sums_(kPeriod) {
  const int num_ranks = group_->size();
  for (int idx = 0; idx < kPeriod; idx++) {
    for (int rank = 0; rank < num_ranks; rank++) sums_[static_cast<size_t>(idx)] += value_at(rank, idx, num_ranks);
  }
}

Result<CollectiveSize> AllReduceCollective::set_size(uint64_t size) {
  count_ = static_cast<int64_t>(size / dtype_size(dtype_));
  if (count_ == 0) {
    return make_parameter_error("--minbytes", "all-reduce of {} bytes: a number of type {} has {}", size, type(),
                                dtype_size(dtype_));
  }
  std::ranges::fill(values_, std::byte{0});  // sums of zeros stay what they are, however often they are taken
  return CollectiveSize{.bytes = static_cast<uint64_t>(count_) * dtype_size(dtype_),
                        .count = static_cast<uint64_t>(count_)};
}

Status AllReduceCollective::run() {
  for (int64_t begin = 0; begin < count_; begin += values_per_pass()) {
    RETURN_IF_ERROR(group_->all_reduce(values(std::min(values_per_pass(), count_ - begin)), kAllReduceSite));
  }
  return {};
}

template <class T>
void AllReduceCollective::fill(int64_t begin, int64_t count) {
  T* const filled = values(count).as<T>().data();
  for (int64_t idx = 0; idx < count; idx++)
    filled[idx] = static_cast<T>(static_cast<float>(value_at(group_->rank(), begin + idx, group_->size())));
}

template <class T>
uint64_t AllReduceCollective::count_wrong(int64_t begin, int64_t count) const {
  const auto* const summed = reinterpret_cast<const T*>(values_.data());
  uint64_t num_wrong = 0;
  for (int64_t idx = 0; idx < count; idx++) {
    const auto expected = static_cast<float>(sums_[static_cast<size_t>((begin + idx) % kPeriod)]);
    num_wrong += static_cast<float>(summed[idx]) != expected;
  }
  return num_wrong;
}

Result<uint64_t> AllReduceCollective::check() {
  return visit_compute(dtype_, [&]<class T>() -> Result<uint64_t> {
    uint64_t num_wrong = 0;
    for (int64_t begin = 0; begin < count_; begin += values_per_pass()) {
      const int64_t count = std::min(values_per_pass(), count_ - begin);
      fill<T>(begin, count);
      RETURN_IF_ERROR(group_->all_reduce(values(count), kAllReduceSite));
      num_wrong += count_wrong<T>(begin, count);
    }
    return num_wrong;
  });
}

namespace {

constexpr CollectiveSite kAllToAllSite{.operation = "bench alltoall"};

// Byte `idx` of what rank `from` sends to rank `to`. The period is no power of two, so that parts in the wrong place
// show.
class Pattern {
 public:
  Pattern(int from, int to, uint64_t begin)
      : offset_(static_cast<unsigned>(from * 37 + to * 101)), idx_(begin % kPeriod) {}
  std::byte next() {
    const auto value = static_cast<std::byte>(idx_ + offset_);
    if (++idx_ == kPeriod) idx_ = 0;
    return value;
  }

 private:
  static constexpr unsigned kPeriod = 251;
  unsigned offset_;
  unsigned idx_;
};

}  // namespace

Result<uint64_t> AllToAllCollective::buffer_bytes(int num_ranks, uint64_t max_size, uint64_t max_bytes) {
  const uint64_t bytes = max_bytes > 0 ? std::min(max_size, max_bytes) : max_size;
  if (bytes >= static_cast<uint64_t>(num_ranks)) return bytes;
  return make_parameter_error(bytes == max_size ? "--maxbytes" : "--exchange-max-bytes",
                              "all-to-all: a buffer of {} bytes (--maxbytes, --exchange-max-bytes or "
                              "ECCL_ALLTOALLV_MAXSIZE) holds not one for each of {} ranks",
                              bytes, num_ranks);
}

Result<std::unique_ptr<AllToAllCollective>> AllToAllCollective::create(Mesh& mesh, uint64_t max_size,
                                                                       uint64_t max_bytes) {
  ASSIGN_OR_RETURN(const uint64_t bytes, buffer_bytes(mesh.size(), max_size, max_bytes));
  std::vector<int> members(static_cast<size_t>(mesh.size()));
  std::iota(members.begin(), members.end(), 0);
  ASSIGN_OR_RETURN(auto group, make_group(mesh, {.members = std::move(members)}));
  return std::unique_ptr<AllToAllCollective>(new AllToAllCollective(std::move(group), bytes));
}

AllToAllCollective::AllToAllCollective(std::unique_ptr<Group> group, uint64_t buffer_bytes)
    : group_(std::move(group)),
      sent_(buffer_bytes),
      received_(buffer_bytes),
      sent_parts_(num_ranks()),
      received_parts_(num_ranks()) {}

Result<CollectiveSize> AllToAllCollective::set_size(uint64_t size) {
  bytes_per_rank_ = size / num_ranks();
  if (bytes_per_rank_ == 0) {
    return make_parameter_error("--minbytes", "all-to-all of {} bytes: {} ranks need at least {}", size, num_ranks(),
                                num_ranks());
  }
  return CollectiveSize{.bytes = bytes_per_rank_ * num_ranks(), .count = bytes_per_rank_};
}

Status AllToAllCollective::run() {
  for (uint64_t begin = 0; begin < bytes_per_rank_; begin += bytes_per_pass()) {
    RETURN_IF_ERROR(exchange(std::min(bytes_per_pass(), bytes_per_rank_ - begin)));
  }
  return {};
}

Result<uint64_t> AllToAllCollective::check() {
  uint64_t num_wrong = 0;
  for (uint64_t begin = 0; begin < bytes_per_rank_; begin += bytes_per_pass()) {
    const uint64_t bytes = std::min(bytes_per_pass(), bytes_per_rank_ - begin);
    fill(begin, bytes);
    RETURN_IF_ERROR(exchange(bytes));
    num_wrong += count_wrong(begin, bytes);
  }
  return num_wrong;
}

Status AllToAllCollective::exchange(uint64_t bytes) {
  for (size_t peer = 0; peer < num_ranks(); peer++) {
    sent_parts_[peer] = {sent_.data() + peer * bytes, bytes};
    received_parts_[peer] = {received_.data() + peer * bytes, bytes};
  }
  return group_->all_to_all(sent_parts_, received_parts_, kAllToAllSite);
}

void AllToAllCollective::fill(uint64_t begin, uint64_t bytes) {
  for (int peer = 0; peer < group_->size(); peer++) {
    Pattern pattern(group_->rank(), peer, begin);
    std::byte* const part = sent_.data() + static_cast<size_t>(peer) * bytes;
    std::generate_n(part, bytes, [&] { return pattern.next(); });
  }
  for (int peer = 0; peer < group_->size(); peer++) {
    Pattern pattern(peer, group_->rank(), begin);
    std::byte* const part = received_.data() + static_cast<size_t>(peer) * bytes;
    std::generate_n(part, bytes, [&] { return ~pattern.next(); });  // what does not arrive is wrong
  }
}

uint64_t AllToAllCollective::count_wrong(uint64_t begin, uint64_t bytes) const {
  uint64_t num_wrong = 0;
  for (int peer = 0; peer < group_->size(); peer++) {
    Pattern pattern(peer, group_->rank(), begin);
    const std::byte* const part = received_.data() + static_cast<size_t>(peer) * bytes;
    num_wrong += static_cast<uint64_t>(
        std::count_if(part, part + bytes, [&](std::byte value) { return value != pattern.next(); }));
  }
  return num_wrong;
}

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
  constexpr uint64_t kMostRows = 1 << 20;
  if (options.max_rows < 1 || options.max_rows > kMostRows) {
    return make_parameter_error("--maxbytes", "dispatch: {} rows a rank; 1 to {} can be measured", options.max_rows,
                                kMostRows);
  }
  return ExchangeShape{.placement = std::make_shared<const ExpertPlacement>(
                           even_placement({.num_layers = 1, .num_experts = kExperts, .num_ranks = num_ranks})),
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
  ASSIGN_OR_RETURN(auto exchange, ExpertExchange::create(mesh, std::move(members), ExchangeLayout(shape)));
  return std::unique_ptr<DispatchCollective>(
      new DispatchCollective(std::move(exchange), mesh.rank(), options.row_type));
}

DispatchCollective::DispatchCollective(std::unique_ptr<ExpertExchange> exchange, int rank, RowType row_type)
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
  const std::span<const int32_t> experts = exchange_->own_slots(0);
  for (size_t local = 0; local < experts.size(); local++) {
    const int32_t expert = experts[local];
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
