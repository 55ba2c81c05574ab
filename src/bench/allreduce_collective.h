#pragma once

#include <memory>
#include <vector>

#include "bench/collective.h"
#include "comm/group.h"
#include "comm/mesh.h"

namespace cachalot {

// The sum of every rank's numbers, on every rank, in place. A size is the bytes of one rank's numbers.
class AllReduceCollective : public Collective {
 public:
  struct Options {
    DType dtype = DType::kBF16;  // a compute dtype
    uint64_t max_size = 0;
    uint64_t max_bytes = 0;  // of each of the two buffers: a larger size goes in several passes; 0: no bound
  };
  static Result<std::unique_ptr<AllReduceCollective>> create(Mesh& mesh, const Options& options);
  static uint64_t buffer_bytes(const Options& options);

  std::string_view type() const override { return dtype_ == DType::kBF16 ? "bfloat16" : "float"; }
  Result<CollectiveSize> set_size(uint64_t size) override;
  Status run() override;
  Result<uint64_t> check() override;

 private:
  AllReduceCollective(std::unique_ptr<Group> group, DType dtype, uint64_t num_values);
  int64_t values_per_pass() const { return static_cast<int64_t>(values_.size() / dtype_size(dtype_)); }
  ComputeView<1> values(int64_t count) { return {values_.data(), dtype_, count}; }
  template <class T>
  void fill(int64_t begin, int64_t count);
  template <class T>
  uint64_t count_wrong(int64_t begin, int64_t count) const;

  std::unique_ptr<Group> group_;
  DType dtype_;
  std::vector<std::byte> values_;
  std::vector<int> sums_;  // [kPeriod] what check() expects
  int64_t count_ = 0;
};

}  // namespace cachalot
