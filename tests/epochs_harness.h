#pragma once

#include <future>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "config/options.h"
#include "core/generation.h"
#include "core/request.h"

// A small group, and what it is asked while its epochs change.
namespace cachalot::test {

struct GroupLayout {
  int dp_size = 1, tp_size = 1;
  std::string model = "r1-awq";
  int num_redundant_experts = 0;
  Survive survive = Survive::kNone;
  bool balances = false;
  int num_ranks() const { return dp_size * tp_size; }
  ParallelOptions of_rank(int rank) const;
  EngineOptions options() const;
};

struct Answer {
  std::vector<TokenId> tokens;
  std::vector<float> logprobs, prompt_logprobs;
  FinishReason finish = FinishReason::kNone;
  std::string error;
  bool operator==(const Answer&) const = default;

  void add(const RequestOutput& output);
};

void expect_same(const Answer& answer, const Answer& expected, const std::string& what);

// Greedy and sampled, short and in chunks, with penalties, masks and logprobs of the prompt.
Request make_request(RequestId id);

}  // namespace cachalot::test
