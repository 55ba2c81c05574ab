#include "bench/collectives.h"

#include <algorithm>
#include <numeric>

#include "comm/board_group.h"

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

}  // namespace cachalot
