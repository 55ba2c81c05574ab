#include "router/replica_health.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <vector>

#include "base/log.h"
#include "base/text.h"
#include "router/replica_table.h"

namespace cachalot::router {

namespace {

constexpr double kFirstShare = 0.1;  // of a replica that has just come back
constexpr int kMostDoublings = 10;
constexpr int kQuarters = 4;

}  // namespace

void ReplicaHealth::heard_well(Time now) {
  num_refused_ = 0;
  is_silent_ = false;
  if (state_ == State::kUp) return;
  if (ejected_until_ && now < *ejected_until_) return;
  // The first good answer of all tells enough; one that fell has to prove itself.
  if (state_ == State::kDown && ++num_good_ < policy_.rise) return;
  if (state_ == State::kDown) back_since_ = now;
  state_ = State::kUp;
  reason_.clear();
  ejected_until_.reset();
  num_errors_ = 0;
}

void ReplicaHealth::was_refused(const std::string& reason) {
  if (state_ != State::kUp || ++num_refused_ >= policy_.fall) go_down(reason, false);
}

void ReplicaHealth::request_failed(Time now, const std::string& reason, bool has_words) {
  num_errors_ += has_words ? 1 : kQuarters;
  if (state_ != State::kUp || num_errors_ < policy_.eject_after_errors * kQuarters) return;
  const auto time = policy_.eject_time * (1 << std::min(num_ejections_++, kMostDoublings));
  ejected_until_ = now + std::min<std::chrono::milliseconds>(time, policy_.longest_eject_time);
  go_down(reason, false);
}

void ReplicaHealth::go_down(const std::string& reason, bool is_silent) {
  num_good_ = num_refused_ = 0;
  is_silent_ = is_silent;
  reason_ = reason;
  if (state_ != State::kUp) return;  // one that never was up is still starting
  state_ = State::kDown;
  num_falls_++;
}

double ReplicaHealth::ramp(Time now) const {
  if (!back_since_ || policy_.slow_start.count() == 0) return 1;
  const std::chrono::duration<double> back = now - *back_since_;
  const double share = back / std::chrono::duration<double>(policy_.slow_start);
  return std::clamp(share, kFirstShare, 1.0);
}

namespace {

// The names in the answer of /v1/models.
std::vector<std::string> model_names(const std::string& body) {
  std::vector<std::string> names;
  boost::json::error_code error;
  const boost::json::value json = boost::json::parse(body, error);
  const auto* object = error ? nullptr : json.if_object();
  const auto* data = object ? object->if_contains("data") : nullptr;
  if (!data || !data->is_array()) return names;
  for (const boost::json::value& model : data->get_array())
    if (const auto* of = model.if_object())
      if (const auto* id = of->if_contains("id"); id && id->is_string()) names.emplace_back(id->get_string());
  return names;
}

}  // namespace

std::string HealthQuestions::ask(Time now) {
  table_.question_asked(replica_);
  asked_ = now;
  return question_;
}

HealthQuestions::Next HealthQuestions::hear(const Result<http::Response>& answer, Time now) {
  if (!answer) {
    knows_model_ = false;  // it may come back as another one
    if (answer.error().code == ErrorCode::kUnavailable)
      table_.was_refused(replica_, answer.error().message, asked_);
    else
      table_.heard_nothing(replica_, fmt::format("no answer to {} within {} ms", question_, timeout_.count()), asked_);
    return Next::kLater;
  }
  if (answer->status == 404 && question_ == "/load") {
    question_ = "/health";  // some other server
    return Next::kAtOnce;
  }
  if (answer->status != 200) {
    table_.heard_ill(replica_, fmt::format("{} answers {}", question_, answer->status));
    return Next::kLater;
  }
  const auto report = parse_load_report(answer->body);
  const bool is_odd = !report && question_ == "/load";
  if (is_odd && !std::exchange(was_odd_, is_odd))
    log::warn("{}: {}; it gets requests by what the router itself has sent there", table_.url(replica_),
              report.error().message);
  table_.heard_well(replica_, report ? std::optional(*report) : std::nullopt, now);
  return knows_model_ || model_.empty() ? Next::kLater : Next::kModels;
}

// Requests that name a model get the replica's own word on it; but whoever runs the router should know.
void HealthQuestions::hear_models(const Result<http::Response>& answer) {
  if (!answer) return;
  knows_model_ = true;
  if (answer->status != 200) return;
  const std::vector<std::string> names = model_names(answer->body);
  if (!names.empty() && std::ranges::find(names, model_) == names.end())
    log::warn("{} serves {}, not --model {}: requests that name the latter will get a 404", table_.url(replica_),
              quoted(names.front()), model_);
}

}  // namespace cachalot::router
