#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "comm/expert_exchange.h"
#include "comm/group.h"
#include "comm/mesh.h"

namespace cachalot {

// What a size of the sweep is in the end: `bytes` a rank, `count` elements in the table's sense.
struct CollectiveSize {
  uint64_t bytes = 0, count = 0;
};

// A collective as it is measured: this rank's data, and one call on it. Every rank makes the same calls.
class Collective {
 public:
  virtual ~Collective() = default;
  virtual std::string_view type() const = 0;  // of its elements, by nccl-tests' name
  // The size of the calls that follow. Errors: it is too small for so many ranks.
  virtual Result<CollectiveSize> set_size(uint64_t size) = 0;
  virtual Status run() = 0;
  // Runs once on numbers that tell ranks and places apart; gives how many came to this rank wrong.
  virtual Result<uint64_t> check() = 0;
};

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

// Every rank sends every rank, itself too, the same number of bytes. A size is what a rank sends in all; its count is
// what goes to one rank, as in nccl-tests.
class AllToAllCollective : public Collective {
 public:
  // max_bytes bounds each of the two buffers: a larger size goes in several passes. 0: no bound.
  static Result<std::unique_ptr<AllToAllCollective>> create(Mesh& mesh, uint64_t max_size, uint64_t max_bytes);
  // Of each of the two. The error: it holds not one byte for every rank.
  static Result<uint64_t> buffer_bytes(int num_ranks, uint64_t max_size, uint64_t max_bytes);

  std::string_view type() const override { return "uint8"; }
  Result<CollectiveSize> set_size(uint64_t size) override;
  Status run() override;
  Result<uint64_t> check() override;

 private:
  AllToAllCollective(std::unique_ptr<Group> group, uint64_t buffer_bytes);
  uint64_t num_ranks() const { return static_cast<uint64_t>(group_->size()); }
  uint64_t bytes_per_pass() const { return sent_.size() / num_ranks(); }  // to one rank, at most
  Status exchange(uint64_t bytes);                                        // a pass of so many bytes to each rank
  // For bytes [begin, begin + bytes) of what goes to each rank.
  void fill(uint64_t begin, uint64_t bytes);
  uint64_t count_wrong(uint64_t begin, uint64_t bytes) const;

  std::unique_ptr<Group> group_;
  std::vector<std::byte> sent_, received_;  // a part a rank
  std::vector<std::span<const std::byte>> sent_parts_;
  std::vector<std::span<std::byte>> received_parts_;
  uint64_t bytes_per_rank_ = 0;
};

// A layer's expert exchange with DeepSeek-R1's numbers: every rank's rows go to the ranks that hold one of their eight
// experts, and come back as a result for each; experts cost no time. A size is the rows that a rank brings, its bytes
// are those rows'.
class DispatchCollective : public Collective {
 public:
  enum class RowType { kInt8, kBF16 };  // of rows on their way to experts; results are bf16
  struct Options {
    RowType row_type = RowType::kInt8;
    uint64_t max_rows = 0;
    uint64_t max_bytes = 0;  // of each buffer between ranks: what needs more goes in several passes; 0: no bound
  };
  // Borrows the mesh. The error: memory.
  static Result<std::unique_ptr<DispatchCollective>> create(Mesh& mesh, const Options& options);
  // Of the exchange and of the rows, on each of num_ranks ranks.
  static Result<uint64_t> buffer_bytes(int num_ranks, const Options& options);

  std::string_view type() const override { return row_type_ == RowType::kInt8 ? "int8" : "bfloat16"; }
  Result<CollectiveSize> set_size(uint64_t num_rows) override;
  Status run() override;
  Result<uint64_t> check() override;

 private:
  DispatchCollective(std::unique_ptr<ExpertExchange> exchange, int rank, RowType row_type);
  void compute_results(const ArrivedRows& arrived, uint64_t& num_wrong) const;
  uint64_t count_wrong(const CombinedRows& combined) const;
  DispatchRows own_rows() const;

  std::unique_ptr<ExpertExchange> exchange_;
  int rank_;
  RowType row_type_;
  int64_t num_rows_ = 0;
  std::vector<uint64_t> rows_;  // words
  std::vector<int32_t> expert_ids_;
  uint64_t num_checks_ = 0;  // so that results of an earlier check are wrong
};

}  // namespace cachalot
