#include "router/request_course.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "openai/responses/response_store.h"
#include "router/forwarding.h"

namespace cachalot::router {

using openai::ApiError;

namespace {

// Of an answer that is kept while another replica is asked.
constexpr size_t kMaxErrorBytes = 1 << 20;
constexpr std::string_view kForcedReplica = "X-data-parallel-rank";
constexpr std::string_view kResponses = "/v1/responses";
constexpr int kMostLosses = AnswerKeeper::kMostDeaths;  // replicas that one request may take with it
constexpr const char* kSilent = " because its server is silent";
constexpr const char* kRenewed = " because its server was started anew";

// Another replica may do better; unless this one says that it would not (a field that OpenAI's clients know, too).
bool is_worth_another_try(const http::ResponseHead& head) {
  const int status = head.status;
  const bool is_own_fault = status == 429 || status == 500 || status == 502 || status == 503 || status == 504;
  return is_own_fault && head.headers.find("X-Should-Retry") != "false";
}

ApiError describe(NoPlace why) {
  switch (why) {
    case NoPlace::kNoneUp:
      return {503, "no replica takes requests at the moment", "service_unavailable"};
    case NoPlace::kForcedIsDown:
      return {503, fmt::format("the replica that {} names takes no requests at the moment", kForcedReplica),
              "service_unavailable"};
    case NoPlace::kAllFull:
      return {429, "every replica has as many requests as it may have", "rate_limit_exceeded"};
    case NoPlace::kRouterFull:
      return {429, "the router has as many requests as it may have", "rate_limit_exceeded"};
  }
  return {500, "unknown", "server_error"};
}

// What a request to /v1/responses refers to, or whose path it is; empty: nothing that a server of ours has.
std::string stored_id_of(std::string_view path, const RequestFacts& facts) {
  if (!path.starts_with(kResponses)) return {};
  std::string_view id = facts.stored_id;
  if (id.empty() && path.size() > kResponses.size()) {
    id = path.substr(kResponses.size() + 1);
    id = id.substr(0, id.find('/'));
  }
  return openai::response_ids::mark_of(id) ? std::string(id) : std::string();
}

}  // namespace

RouterState::RouterState(const RouterOptions& given)
    : options(given),
      table(given.server_urls,
            {.fall = given.health_fall,
             .rise = given.health_rise,
             .eject_after_errors = given.eject_after_errors,
             .eject_time = given.eject_time,
             .slow_start = given.slow_start},
            {.max_in_flight = given.max_in_flight,
             .max_in_flight_per_replica = given.max_in_flight_per_replica,
             .prefix_entries = given.prefix_entries}),
      metrics(given.server_urls, given.model),
      takeover_memory(given.takeover_memory) {}

RequestCourse::RequestCourse(RouterState& state, http::Request& request, std::string id, Time arrival)
    : state_(state),
      request_(request),
      id_(std::move(id)),
      target_(request.target),
      error_form_(openai::error_form(request)),
      arrival_(arrival),
      keeper_(state.takeover_memory) {}

std::optional<ApiError> RequestCourse::check(Time now) {
  auto forced = forced_replica();
  if (!forced) return ApiError(400, forced.error().message, "invalid_request_error");
  forced_ = *forced;
  if (!state_.suspects.empty()) {
    if (const auto seconds = state_.suspects.refused_for(hash_of(target_, request_.body), now))
      return ApiError(503,
                      fmt::format("replicas were lost each time they had this very request; it is not sent on for {} s",
                                  seconds->count()),
                      "server_error");
  }
  const std::string_view path = request_.path;
  facts_ = read_request_facts(request_.body, path.starts_with(kResponses));
  stored_id_ = stored_id_of(path, facts_);
  if (forced_ || !state_.table.any_marks()) stored_id_.clear();
  if (stored_id_.empty()) return std::nullopt;
  forced_ = state_.table.holder_of(*openai::response_ids::mark_of(stored_id_));
  return forced_ ? std::nullopt : std::optional(what_is_gone());
}

Result<std::optional<size_t>> RequestCourse::forced_replica() const {
  const auto text = request_.headers.find(kForcedReplica);
  if (!text) return std::nullopt;
  const auto number = parse_number<size_t>(*text);
  if (number && *number < state_.table.size()) return number;
  return make_error(ErrorCode::kInvalidArgument, "{} is {}; the replicas are 0 to {}", kForcedReplica, quoted(*text),
                    state_.table.size() - 1);
}

// In the words of OpenAI, at which a client sends the whole conversation again.
ApiError RequestCourse::what_is_gone() const {
  const bool is_path = target_.contains(stored_id_);
  return {404,
          fmt::format("{}esponse with id {} not found: the replica that had it is gone.", is_path ? "R" : "Previous r",
                      quoted(stored_id_)),
          "invalid_request_error", is_path ? "response_id" : "previous_response_id",
          is_path ? "response_not_found" : "previous_response_not_found"};
}

http::Response RequestCourse::to_response(const ApiError& error) const {
  http::Response response = error.to_response({{"X-Request-Id", id_}}, error_form_);
  if (error.status == 429) response.headers.set("Retry-After", "1");
  return response;
}

bool RequestCourse::was_last_try() const {
  return static_cast<int>(sent_to_.size()) >= state_.options.max_tries || forced_ || body_is_spent_ ||
         num_losses_ >= kMostLosses;
}

AnswerKeeper::Duration RequestCourse::pause() {
  return goes_on() ? keeper_.next_pause() : AnswerKeeper::Duration();
}

// Whoever has the same bits may go on with an answer, also where its last replica was.
std::expected<size_t, std::optional<ApiError>> RequestCourse::next_heir(const std::weak_ptr<SilenceListener>& listener,
                                                                        Time now) {
  place_.reset();
  is_waiting_ = false;
  if (is_refused_) return std::unexpected(std::nullopt);
  if (keeper_.is_blamed()) {
    state_.metrics.blamed();
    for (int death = 0; death < kMostLosses; death++) state_.suspects.add(hash_of(target_, request_.body), now);
    return std::unexpected(ApiError(
        502,
        fmt::format("{} servers died at the same token of this answer, which is given up", AnswerKeeper::kMostDeaths),
        "server_error"));
  }
  if (keeper_.is_too_late(now, state_.options.takeover_timeout))
    return std::unexpected(
        ApiError(504,
                 fmt::format("the replica that was answering is gone, and none went on with the answer within {} s "
                             "(--takeover-timeout)",
                             state_.options.takeover_timeout.count()),
                 "server_error"));
  facts_.fingerprint = keeper_.fingerprint();
  auto place = state_.table.admit(facts_, {}, std::nullopt, listener, now);
  if (!place) {
    is_waiting_ = true;
    return std::unexpected(std::nullopt);
  }
  replica_ = place->replica();
  place_.emplace(std::move(*place));
  log::info("request {}: {} goes on with the answer", id_, state_.table.url(replica_));
  return replica_;
}

bool RequestCourse::wants_log() {
  return request_.method == "POST" && !body_is_spent_ &&
         (keeper_.is_kept() || (!is_logged() && keeper_.take_request(request_.body.size())));
}

std::expected<size_t, std::optional<ApiError>> RequestCourse::next_replica(
    const std::weak_ptr<SilenceListener>& listener, Time now) {
  if (goes_on()) return next_heir(listener, now);
  if (failure_) {  // one was asked, and did not answer
    place_.reset();
    if (!was_renewed_) sent_to_.push_back(replica_);
    if (was_last_try()) return std::unexpected(std::nullopt);
    state_.metrics.retried(replica_);
  }
  auto place = state_.table.admit(facts_, sent_to_, forced_, listener, now);
  if (!place && failure_) return std::unexpected(std::nullopt);
  if (!place) {
    const bool is_gone = place.error() == NoPlace::kForcedIsDown && !stored_id_.empty();
    return std::unexpected(is_gone ? what_is_gone() : describe(place.error()));
  }
  replica_ = place->replica();
  place_.emplace(std::move(*place));
  return replica_;
}

void RequestCourse::begin_try(Time now) {
  loss_is_counted_ = was_renewed_ = has_mark_ = false;
  closed_because_ = nullptr;
  try_began_ = now;
}

void RequestCourse::lose_connection(Time now) {
  if (std::exchange(loss_is_counted_, true)) return;
  if (goes_on()) return keeper_.lose(true, now);
  num_losses_++;
  state_.suspects.add(hash_of(target_, request_.body), now);
}

std::optional<ApiError> RequestCourse::take_error(const Error& error, int num_lost,
                                                  const std::optional<Error>& body_error, Time now) {
  log::warn("request {}: {}{}", id_, error.message, reason_of_close());
  if (body_error) {
    const bool is_late = body_error->code == ErrorCode::kDeadlineExceeded;
    return is_late ? ApiError(408, body_error->message, "invalid_request_error") : ApiError(*body_error);
  }
  if (error.code == ErrorCode::kDeadlineExceeded && !goes_on()) return ApiError(504, error.message, "server_error");
  // Nobody listens, or the connection broke: that is plain. Whom it only took long to reach may be busy.
  const bool took_long = num_lost == 0 && now - try_began_ >= state_.options.connect_timeout;
  if (!was_closed()) state_.table.request_not_taken(replica_, error.message, took_long ? try_began_ : now);
  failure_ = !stored_id_.empty() ? to_response(what_is_gone())
             : num_losses_ >= kMostLosses
                 ? to_response(ApiError(502,
                                        "the replicas that had this request were lost without an answer; it is not "
                                        "sent to another one",
                                        "server_error"))
                 : to_response(ApiError(503, "no replica could answer", "service_unavailable"));
  return std::nullopt;
}

bool RequestCourse::take_head(const http::ResponseHead& head, Time now) {
  state_.table.heard(replica_, now);
  const bool has_log = has_mark_ = keeper_.is_kept() && keeper_.begin(head);
  if (goes_on() ? has_log : !is_worth_another_try(head)) return true;
  // What is wrong with the request itself, which a server has taken before, no other one will forgive.
  is_refused_ = goes_on() && head.status >= 400 && head.status < 500 && head.status != 409 && head.status != 429;
  failure_ = http::Response{head.status, response_fields(head.headers, id_), {}};
  failure_->headers.erase("Content-Length");
  patience_ends_ = now + kErrorPatience;
  return false;
}

// Whatever its end, the request is not held up by it.
bool RequestCourse::wants_more_of_failure(Time now) const {
  return failure_->body.size() < kMaxErrorBytes && now < patience_ends_;
}

void RequestCourse::end_failure(bool is_whole, Time now) {
  const int status = failure_->status;
  log::warn("request {}: {} answers with {}", id_, state_.table.url(replica_), status);
  if (status == 503 || status == 429 || status == 409) return;
  // An error that it puts into words is the work of a server that lives.
  const bool has_words = is_whole && status == 500 && failure_->body.starts_with("{\"error\"");
  state_.table.request_failed(replica_, fmt::format("it answers with {}", status), has_words, now);
}

http::Response RequestCourse::take_failure() {
  state_.metrics.refused(failure_->status);
  if (!failure_->headers.contains("X-Request-Id")) failure_->headers.add("X-Request-Id", id_);
  return std::move(*failure_);
}

void RequestCourse::take_piece(Time now) {
  num_pieces_++;
  state_.table.heard(replica_, now);
}

void RequestCourse::pass(std::string_view bytes, bool is_events) {
  if (has_answered_ || (is_events && EventBoundary::are_comments(bytes))) return;
  has_answered_ = true;
  if (!keeper_.is_kept() || !is_logged()) return forget_request();
  if (num_losses_ > 0) state_.suspects.acquit(hash_of(target_, request_.body));
  request_.body_share.reset();  // its memory counts as the answer's
}

// It is answered: no other replica will get it.
void RequestCourse::forget_request() {
  keeper_.forget();
  if (num_losses_ > 0) state_.suspects.acquit(hash_of(target_, request_.body));
  request_.body = {};
  request_.headers = {};
  request_.body_share.reset();
}

void RequestCourse::take_step(const LogReader::Step& step, Time now) {
  const bool had_no_room = keeper_.is_logged() && !keeper_.is_kept();
  keeper_.add(step);
  if (!keeper_.is_kept() && !had_no_room)
    log::warn("request {}: no room is left to keep its answer for another replica (--takeover-memory)", id_);
  if (!step.has_news && !step.is_whole) return;
  if (const auto wait = keeper_.take_wait(now)) {
    state_.metrics.waited(std::chrono::duration<double>(*wait).count());
    failure_.reset();
  }
}

// Nobody is taken out for it: a replica that has died with many answers is soon back, and the next connection tells.
void RequestCourse::lose_stream(const std::string& reason, bool has_died, Time now) {
  log::warn("request {}: {}: {}{}; another replica is to go on with its answer", id_, state_.table.url(replica_),
            reason, reason_of_close());
  if (has_died && !std::exchange(loss_is_counted_, true))
    keeper_.lose(true, now);
  else
    keeper_.lose(false, now);
  state_.metrics.taken_over(replica_);
}

void RequestCourse::break_off(const std::string& reason, Time now) {
  log::warn("request {}: {}{}; its answer had begun", id_, reason, reason_of_close());
  if (!was_closed()) state_.table.request_failed(replica_, reason, false, now);
}

// Nothing of an answer yet: another replica is asked. Else the silence may pass, for a while.
bool RequestCourse::hear_silence() {
  if (has_answered_ && !may_go_on()) return false;
  closed_because_ = kSilent;
  return true;
}

RequestCourse::StartMeans RequestCourse::hear_start(const std::string& mark, bool was_older) {
  const bool is_older = has_mark_ ? keeper_.mark() != mark : was_older;
  // Which of the two has it is not known: where nothing of an answer has come, nobody loses by asking again.
  const bool may_be_older = !has_mark_ && !has_answered_ && !body_is_spent_;
  if (!is_older && !may_be_older) return has_mark_ ? StartMeans::kNothing : StartMeans::kGrace;
  closed_because_ = kRenewed;
  was_renewed_ = true;
  return StartMeans::kEnd;
}

bool RequestCourse::grace_is_over(uint64_t num_pieces, bool is_second) {
  if (num_pieces_ != num_pieces || !(is_second || state_.table.is_silent(replica_))) return false;
  closed_because_ = kSilent;
  return true;
}

}  // namespace cachalot::router
