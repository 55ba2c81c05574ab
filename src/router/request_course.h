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
#include "router/answer_keeper.h"
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
  TakeoverMemory takeover_memory;
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
  // For how long to wait before that: an answer that lost its replica has nobody yet.
  AnswerKeeper::Duration pause();
  // The replica to be asked next, at which the request now has its place. Else its end, unless it is_waiting(): what
  // the client is told, or with nothing there what is kept of the last replica's failure.
  std::expected<size_t, std::optional<openai::ApiError>> next_replica(const std::weak_ptr<SilenceListener>& listener,
                                                                      Time now);
  bool is_waiting() const { return is_waiting_; }
  void begin_try(Time now);
  // Before a try: whether a log is wanted of the answer, and what there is of it goes with the request.
  bool wants_log();
  const std::string& log() const { return keeper_.log(); }
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
  // Of an answer with a log: what came of it. A server that gives it up, or is gone, is followed by another one, where
  // that may be.
  bool is_logged() const { return keeper_.is_logged(); }
  bool is_whole() const { return keeper_.is_whole(); }
  const std::string& whole_text() const { return keeper_.text(); }
  const std::string& last_words() const { return keeper_.last_words(); }
  void take_step(const LogReader::Step& step, Time now);
  bool may_go_on() const { return keeper_.is_kept() && !keeper_.log().empty(); }
  void lose_stream(const std::string& reason, bool has_died, Time now);
  bool goes_on() const { return keeper_.is_lost(); }
  // May another replica be asked for an answer that broke off?
  bool may_go_elsewhere(bool is_events) const { return is_events && !has_answered_ && !body_is_spent_; }
  void break_off(const std::string& reason, Time now);
  void give_place_back() { place_.reset(); }

  // --- The replica is silent.
  // The call is to be closed at once; else it has the grace that begins.
  bool hear_silence();
  double num_prompt_tokens() const { return facts_.num_prompt_tokens; }  // an estimate
  uint64_t num_pieces() const { return num_pieces_; }
  // Another process is there: if it is not the one that has the call, that is to be closed; where it may be, the call
  // has the second grace.
  enum class StartMeans { kNothing, kGrace, kEnd };
  StartMeans hear_start(const std::string& mark, bool was_older);
  // At the end of a grace, or of a second one, which began after so many pieces: the call is to be closed. The second
  // is for a replica that answers again: where that is another process, nothing will ever come of the call.
  bool grace_is_over(uint64_t num_pieces, bool is_second);

  size_t replica() const { return replica_; }
  bool was_closed() const { return closed_because_; }  // the call, by the router
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
  std::expected<size_t, std::optional<openai::ApiError>> next_heir(const std::weak_ptr<SilenceListener>& listener,
                                                                   Time now);
  const char* reason_of_close() const { return closed_because_ ? closed_because_ : ""; }

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
  int num_losses_ = 0;                                  // replicas lost without an answer
  bool loss_is_counted_ = false;                        // that of the replica that has it now
  bool body_is_spent_ = false;                          // a part of it is gone to a replica and nowhere else
  bool head_is_passed_ = false, has_answered_ = false;  // its head; something of it that counts
  const char* closed_because_ = nullptr;                // the call: its server is silent, or gone
  bool was_renewed_ = false;                            // another process is there now, which was not asked
  bool has_mark_ = false;                               // the process that was asked has said which it is
  AnswerKeeper keeper_;
  bool is_waiting_ = false;  // for a replica that goes on
  bool is_refused_ = false;  // by one that should have gone on: the answer's end
  uint64_t num_pieces_ = 0;
  std::optional<http::Response> failure_;  // what the last replica said, or what is to be said for it
};

}  // namespace cachalot::router
