#pragma once

#include <chrono>
#include <expected>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/options.h"
#include "http/client.h"
#include "http/message.h"
#include "openai/api_error.h"
#include "router/replica_table.h"
#include "router/request_facts.h"
#include "router/router_metrics.h"

namespace cachalot::router {

// What all requests on their way through the router share, but for the ways to the replicas.
struct RouterState {
  explicit RouterState(const RouterOptions& options);

  const RouterOptions options;
  ReplicaTable table;
  Suspects suspects;
  RouterMetrics metrics;
};

// The course of one request through the router: which replica is asked, what of its answer counts, whether another one
// is asked, and what the client is told if none answers. A state machine: proxy.h carries the bytes and tells it what
// came of them, and when. Borrows the state and the request.
class RequestCourse {
 public:
  using Time = ReplicaTable::Time;
  static constexpr std::chrono::milliseconds kErrorPatience{1000};  // for the body of an answer that is kept

  RequestCourse(RouterState& state, http::Request& request, std::string id, Time arrival);

  // Before any replica is asked: what the client is told instead.
  std::optional<openai::ApiError> check(Time now);
  // The replica to be asked next, at which the request now has its place. Else its end: what the client is told, or
  // with nothing there what is kept of the last replica's failure.
  std::expected<size_t, std::optional<openai::ApiError>> next_replica(const std::weak_ptr<SilenceListener>& listener,
                                                                      Time now);
  void begin_try(Time now);
  void spend_body() { body_is_spent_ = true; }  // a part of it goes to a replica, and is nowhere else

  // --- What came of the try.
  // A connection broke without a word. A replica that dies may break more than one of the request: it is one loss.
  void lose_connection(Time now);
  // No answer: `error`, after so many lost connections; or that of the client's own body. What the client is told, if
  // that is the end; else the next replica is asked.
  std::optional<openai::ApiError> take_error(const Error& error, int num_lost, const std::optional<Error>& body_error,
                                             Time now);
  // Whether the answer is the client's. Else it is kept, with what comes of its body, for if no replica does better.
  bool take_head(const http::ResponseHead& head, Time now);
  bool wants_more_of_failure(Time now) const;
  void add_to_failure(const std::string& piece) { failure_->body += piece; }
  void end_failure(bool is_whole, Time now);
  http::Response take_failure();

  // The answer begins, for the client, too.
  void begin_answer() { state_.table.request_answered(replica_); }
  void pass_head() { head_is_passed_ = true; }
  void take_piece(Time now);
  // Whole events, or any bytes of another answer, that are passed on. From the first that counts no other replica may
  // take over, and the request is forgotten.
  void pass(std::string_view bytes, bool is_events);
  void forget_request();
  // May another replica be asked for an answer that broke off?
  bool may_go_elsewhere(bool is_events) const { return is_events && !has_answered_ && !body_is_spent_; }
  void break_off(const std::string& reason, Time now);
  void give_place_back() { place_.reset(); }

  // --- The replica is silent.
  // The call is to be closed at once; else it has the grace that begins.
  bool hear_silence();
  uint64_t num_pieces() const { return num_pieces_; }
  // At the end of a grace, or of a second one, which began after so many pieces: the call is to be closed. The second
  // is for a replica that answers again: where that is another process, nothing will ever come of the call.
  bool grace_is_over(uint64_t num_pieces, bool is_second);

  size_t replica() const { return replica_; }
  bool was_silent() const { return was_silent_; }  // the call was given up because its replica was
  bool head_is_passed() const { return head_is_passed_; }
  const std::string& id() const { return id_; }
  const std::string& target() const { return target_; }
  openai::ErrorForm error_form() const { return error_form_; }
  double seconds(Time now) const { return std::chrono::duration<double>(now - arrival_).count(); }
  http::Response to_response(const openai::ApiError& error) const;

 private:
  openai::ApiError what_is_gone() const;
  Result<std::optional<size_t>> forced_replica() const;
  bool was_last_try() const;

  RouterState& state_;
  http::Request& request_;
  const std::string id_, target_;
  const openai::ErrorForm error_form_;
  const Time arrival_;
  RequestFacts facts_;
  std::optional<size_t> forced_;
  std::string stored_id_;  // of what one replica alone has, and the request is about
  std::vector<size_t> sent_to_;
  // Given back before the last bytes of an answer go: who has them may ask again at once.
  std::optional<ReplicaTable::Place> place_;
  size_t replica_ = 0;
  Time try_began_, patience_ends_;
  int num_losses_ = 0, num_losses_before_ = 0;          // replicas lost without an answer; before this one
  bool loss_is_counted_ = false;                        // that of the replica that has it now
  bool body_is_spent_ = false;                          // a part of it is gone to a replica and nowhere else
  bool head_is_passed_ = false, has_answered_ = false;  // its head; something of it that counts
  bool was_silent_ = false;
  uint64_t num_pieces_ = 0;
  std::optional<http::Response> failure_;  // what the last replica said, or what is to be said for it
};

}  // namespace cachalot::router
