#include "router/replica_choice.h"

#include <algorithm>
#include <boost/json/parse.hpp>
#include <type_traits>

#include "base/text.h"

namespace cachalot::router {

namespace {

// What is beyond these is no load, whoever says so.
constexpr double kMostSequences = 1e6, kMostTokens = 1e12;

}  // namespace

Result<LoadReport> parse_load_report(std::string_view text) {
  boost::json::error_code error;
  const boost::json::value json = boost::json::parse(boost::json::string_view(text.data(), text.size()), error);
  const auto* object = error ? nullptr : json.if_object();
  if (!object) return make_error(ErrorCode::kCorrupt, "a load report is no JSON object");
  LoadReport report;
  std::string odd;
  const auto read = [&](const char* name, auto& into, double most) {
    const boost::json::value* value = object->if_contains(name);
    if (!value) return;
    const double number = value->is_number() ? value->to_number<double>() : -1;
    if (number >= 0 && number <= most)
      into = static_cast<std::remove_reference_t<decltype(into)>>(number);
    else
      odd = name;
  };
  read("running", report.num_running, kMostSequences);
  read("waiting", report.num_waiting, kMostSequences);
  read("pending_tokens", report.num_pending_tokens, kMostTokens);
  read("kv_usage", report.kv_usage, 1);
  if (!odd.empty())
    return make_error(ErrorCode::kCorrupt, "the load report's {} is no number, or none that can be: {}", odd,
                      quoted(text));
  return report;
}

namespace {

// What a sequence costs its neighbours, beside its prompt, in tokens of prefill: it brings one row to each of the next
// steps. Answers have some hundred tokens, and a decode row costs about as much as a prefill row or, on wide machines,
// less.
constexpr double kTokensPerSequence = 64;
// A full KV cache makes newcomers wait and others be computed again.
constexpr double kLeastFreeKv = 0.05;

}  // namespace

double predicted_work(const Candidate& candidate, double num_prompt_tokens) {
  const LoadReport& report = candidate.report;
  const double num_sequences = std::max(0, report.num_running + report.num_waiting + candidate.num_unreported);
  const double pending = std::max(0.0, report.num_pending_tokens + candidate.unreported_tokens);
  const double queued = (pending + num_sequences * kTokensPerSequence) / std::max(kLeastFreeKv, 1 - report.kv_usage);
  const double own = std::max(1.0, num_prompt_tokens - candidate.known_tokens);
  return (queued + own) / candidate.ramp;
}

std::optional<size_t> choose_replica(std::span<const Candidate> candidates, double num_prompt_tokens, size_t start) {
  std::optional<size_t> best;
  double least_work = 0;
  for (size_t step = 0; step < candidates.size(); step++) {
    const size_t idx = (start + step) % candidates.size();
    if (!candidates[idx].is_open) continue;
    const double work = predicted_work(candidates[idx], num_prompt_tokens);
    if (best && work >= least_work) continue;
    best = idx;
    least_work = work;
  }
  return best;
}

}  // namespace cachalot::router
