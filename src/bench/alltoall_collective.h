#pragma once

#include <memory>
#include <vector>

#include "bench/collective.h"
#include "comm/group.h"
#include "comm/mesh.h"

namespace cachalot {

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

}  // namespace cachalot
