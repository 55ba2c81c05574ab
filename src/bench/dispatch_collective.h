#pragma once

#include <memory>
#include <vector>

#include "bench/collectives.h"
#include "comm/mesh_expert_exchange.h"

namespace cachalot {

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
  // Borrows the mesh. Errors: the experts cannot be divided among its ranks; memory.
  static Result<std::unique_ptr<DispatchCollective>> create(Mesh& mesh, const Options& options);
  // Of the exchange and of the rows, on each of num_ranks ranks.
  static Result<uint64_t> buffer_bytes(int num_ranks, const Options& options);

  std::string_view type() const override { return row_type_ == RowType::kInt8 ? "int8" : "bfloat16"; }
  Result<CollectiveSize> set_size(uint64_t num_rows) override;
  Status run() override;
  Result<uint64_t> check() override;

 private:
  DispatchCollective(std::unique_ptr<MeshExpertExchange> exchange, int rank, RowType row_type);
  void compute_results(const ArrivedRows& arrived, uint64_t& num_wrong) const;
  uint64_t count_wrong(const CombinedRows& combined) const;
  DispatchRows own_rows() const;

  std::unique_ptr<MeshExpertExchange> exchange_;
  int rank_;
  RowType row_type_;
  int64_t num_rows_ = 0;
  std::vector<uint64_t> rows_;  // words
  std::vector<int32_t> expert_ids_;
  uint64_t num_checks_ = 0;  // so that results of an earlier check are wrong
};

}  // namespace cachalot
