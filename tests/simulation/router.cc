#include "simulation/router.h"

#include <utility>

#include "base/text.h"
#include "openai/answer/answer_log.h"
#include "router/forwarding.h"

namespace cachalot::simulation {

using router::EventBoundary;
using router::HealthQuestions;
using router::RequestCourse;

namespace {

constexpr Duration kHeadPatience = 500ms;

// "H200 json" as a head; "H200 events 17 toy" as one whose answer has a log.
http::ResponseHead to_head(const std::string& message) {
  http::ResponseHead head{.status = parse_number<int>(message.substr(1, 3)).value_or(0), .headers = {}};
  const std::string kind = message.substr(5);
  head.headers.set("Content-Type", kind == "json" ? "application/json" : "text/event-stream");
  if (kind.contains(' ')) head.headers.set(std::string(openai::answer_log::kField), kind);
  return head;
}

}  // namespace

// What proxy.cc does with coroutines: carries the bytes of a course.
class RoutedCall : public Router::Call,
                   public router::SilenceListener,
                   public std::enable_shared_from_this<RoutedCall> {
 public:
  RoutedCall(Router& router, Client& client, int id, std::string body)
      : router_(router),
        client_(client),
        id_(id),
        request_{.method = "POST",
                 .path = "/v1/completions",
                 .target = "/v1/completions",
                 .headers = {},
                 .body = std::move(body),
                 .body_share = {},
                 .peer = "10.0.0.1:1"},
        course_(router.state_, request_, fmt::format("{}", id), router.world_.now()) {}

  void start() {
    if (const auto refusal = course_.check(now())) return refuse(*refusal);
    ask_next();
  }
  void leave() override {
    if (stream_) stream_->close();
    end();
  }
  void replica_is_silent(size_t replica) override {
    router_.world_.after(0ms, router_.process_, [self = shared_from_this(), replica] {
      if (self->is_asking_ && self->course_.replica() == replica) self->hear_silence();
    });
  }
  void replica_is_new(size_t replica, const std::string& mark, bool was_older) override {
    router_.world_.after(0ms, router_.process_, [self = shared_from_this(), replica, mark, was_older] {
      if (self->is_asking_ && self->course_.replica() == replica) self->hear_start(mark, was_older);
    });
  }

 private:
  Time now() const { return router_.world_.now(); }
  void after(Duration delay, std::function<void(RoutedCall&)> what) {
    router_.world_.after(delay, router_.process_, [self = shared_from_this(), number = num_tries_, what] {
      if (!self->is_over_ && number == self->num_tries_) what(*self);
    });
  }

  void ask_next() {
    is_asking_ = false;
    num_tries_++;
    after(course_.pause(), [](RoutedCall& call) { call.ask_now(); });
  }
  void ask_now() {
    const auto replica = course_.next_replica(weak_from_this(), now());
    if (!replica && course_.is_waiting()) return ask_next();
    if (!replica && replica.error()) return refuse(*replica.error());
    if (!replica) return answer(course_.take_failure());
    is_asking_ = true;
    stream_.reset();
    has_head_ = is_failure_ = has_begun_ = false;
    boundary_ = {};
    reader_ = {};
    course_.begin_try(now());
    const Router::Place place = router_.replicas_[*replica];
    router_.world_.note("request {} goes to replica {}", id_, *replica);
    router_.world_.connect(router_.process_, place.host, place.port, router_.state_.options.connect_timeout,
                           [self = shared_from_this(), number = num_tries_](Result<StreamPtr> stream) {
                             if (self->is_over_ || number != self->num_tries_) {
                               if (stream) (*stream)->close();
                               return;
                             }
                             stream ? self->send(*stream) : self->take_error(stream.error(), 0);
                           });
  }

  void send(StreamPtr stream) {
    stream_ = std::move(stream);
    const auto guarded = [this](auto body) {
      return [self = shared_from_this(), number = num_tries_, body](const std::string& text) {
        if (!self->is_over_ && number == self->num_tries_) body(*self, text);
      };
    };
    stream_->on_message = guarded([](RoutedCall& call, const std::string& message) { call.take(message); });
    stream_->on_closed = guarded([](RoutedCall& call, const std::string& why) {
      call.lose(Error{ErrorCode::kUnavailable, why.empty() ? "the connection was closed" : why, {}});
    });
    stream_->send(fmt::format("POST {}{}", id_, course_.wants_log() ? "@" + course_.log() : ""));
    await_message();
  }

  void await_message() {
    after(router_.state_.options.answer_timeout, [number = ++num_messages_](RoutedCall& call) {
      if (number != call.num_messages_) return;
      call.stream_->close();
      call.lose(Error{ErrorCode::kDeadlineExceeded, "no answer in time", {}});
    });
  }

  void take(const std::string& message) {
    await_message();
    if (message[0] == 'H') {
      has_head_ = true;
      head_ = to_head(message);
      is_events_ = message.ends_with("events");
      is_failure_ = !course_.take_head(head_, now());
      if (is_failure_) return after(1s, [](RoutedCall& call) { call.end_failure(false); });
      if (course_.is_logged()) return course_.begin_answer();
      return after(kHeadPatience, [](RoutedCall& call) {
        if (!call.has_begun_) call.begin();
      });
    }
    if (is_failure_) {
      if (message[0] == 'E') return end_failure(true);
      return course_.add_to_failure(message.substr(1));
    }
    if (course_.is_logged()) return take_logged(message);
    if (!has_begun_ && !begin()) return;
    if (message[0] == 'E') return finish();
    course_.take_piece(now());
    const std::string bytes = is_events_ ? boundary_.pass(message.substr(1)) : message.substr(1);
    course_.pass(bytes, is_events_);
    if (!bytes.empty()) client_.hear(bytes);
  }

  static Error given_up(const router::LogReader::Step& step) {
    return {step.has_failed ? ErrorCode::kUnavailable : ErrorCode::kInternal, "the server gives the answer up", {}};
  }
  void take_logged(const std::string& message) {
    if (message[0] == 'E') return lose(Error{ErrorCode::kUnavailable, "the answer broke off", {}});
    course_.take_piece(now());
    const router::LogReader::Step step = reader_.pass(std::string_view(message).substr(1));
    course_.take_step(step, now());
    if (course_.is_whole()) {
      if (!step.is_whole) return step.is_given_up ? lose(given_up(step)) : void();
      const auto response = openai::parse_whole(course_.whole_text());
      if (!response) throw Violation("a whole answer is none: " + response.error().message);
      course_.forget_request();
      stream_->close();
      end();
      client_.hear_head(response->status);
      client_.hear(response->body);
      return client_.hear_end(true);
    }
    if (!course_.head_is_passed()) client_.hear_head(head_.status);
    course_.pass_head();
    course_.pass(step.events, true);
    if (!step.events.empty()) client_.hear(step.events);
    if (step.is_whole) return finish();
    if (step.is_given_up) lose(given_up(step));
  }

  // False: what came is of no use to the client.
  bool begin() {
    has_begun_ = true;
    course_.begin_answer();
    if (course_.head_is_passed() && (head_.status != 200 || !is_events_)) {
      answer(course_.to_response(openai::ApiError(502, "the replica answers otherwise", "server_error")));
      return false;
    }
    if (!course_.head_is_passed()) client_.hear_head(head_.status);
    course_.pass_head();
    return true;
  }

  void finish() {
    if (const std::string rest = boundary_.take_rest(); !rest.empty()) client_.hear(rest);
    stream_->close();
    end();
    client_.hear_end(true);
  }

  void end_failure(bool is_whole) {
    course_.end_failure(is_whole, now());
    stream_->close();
    ask_next();
  }

  void lose(const Error& error) {
    if (is_failure_) return end_failure(false);
    const bool is_lost = error.code == ErrorCode::kUnavailable;
    if (has_head_ && course_.is_logged()) {
      if (course_.may_go_on()) {
        stream_->close();
        course_.lose_stream(error.message, is_lost, now());
        router_.num_takeovers_++;
        router_.world_.note("request {} loses its replica: {}", id_, error.message);
        return ask_next();
      }
      has_begun_ = !(course_.is_whole() || course_.may_go_elsewhere(true));
    }
    if (!has_begun_ || course_.may_go_elsewhere(is_events_)) {
      if (is_lost) course_.lose_connection(now());
      return take_error(error, is_lost && !has_head_ ? 1 : 0);
    }
    course_.break_off(error.message, now());
    end();
    if (is_events_) client_.hear("data: {\"error\": {\"message\": \"broken off\"}}\n\n");
    client_.hear_end(false);
  }

  void take_error(const Error& error, int num_lost) {
    const auto refusal = course_.take_error(error, num_lost, std::nullopt, now());
    refusal ? refuse(*refusal) : ask_next();
  }

  void hear_silence() {
    if (course_.hear_silence()) return give_up();
    give_grace(false);
    give_grace(true);
  }
  void hear_start(const std::string& mark, bool was_older) {
    const auto means = course_.hear_start(mark, was_older);
    if (means == RequestCourse::StartMeans::kEnd) give_up();
    if (means == RequestCourse::StartMeans::kGrace) give_grace(true);
  }
  void give_grace(bool is_second) {
    const RouterOptions& options = router_.state_.options;
    after(options.stream_grace + (is_second ? options.revival_grace : 0s),
          [num_pieces = course_.num_pieces(), is_second](RoutedCall& call) {
            if (call.course_.grace_is_over(num_pieces, is_second)) call.give_up();
          });
  }
  // The replica is silent.
  void give_up() {
    if (stream_) stream_->close();
    const Error error{ErrorCode::kCancelled, "the call was closed", {}};
    stream_ ? lose(error) : take_error(error, 0);
  }

  void refuse(const openai::ApiError& error) { answer(course_.to_response(error)); }
  void answer(const http::Response& response) {
    const bool head_is_passed = course_.head_is_passed();
    end();
    if (!head_is_passed) client_.hear_head(response.status);
    client_.hear(head_is_passed ? http::format_sse(response.body) : response.body);
    client_.hear_end(!head_is_passed);
  }
  void end() {
    is_over_ = true;
    is_asking_ = false;
    course_.give_place_back();
    course_.forget_request();
  }

  Router& router_;
  Client& client_;
  const int id_;
  http::Request request_;
  RequestCourse course_;
  StreamPtr stream_;
  int num_tries_ = 0;
  uint64_t num_messages_ = 0;  // of the replicas
  http::ResponseHead head_;
  EventBoundary boundary_;
  router::LogReader reader_;
  bool is_asking_ = false;  // a replica has it
  bool is_over_ = false, is_events_ = false, has_head_ = false, is_failure_ = false, has_begun_ = false;
};

// One replica's health, asked again and again.
class Router::Watch : public std::enable_shared_from_this<Watch> {
 public:
  Watch(Router& router, size_t replica)
      : router_(router),
        replica_(replica),
        questions_(router.state_.table, replica, "", router.state_.options.health_timeout) {}

  void ask() {
    number_++;
    answer_ = {};
    const std::string question = "GET " + questions_.ask(router_.world_.now());
    const Place place = router_.replicas_[replica_];
    wait(10);
    router_.world_.connect(router_.process_, place.host, place.port, 10s,
                           [self = shared_from_this(), number = number_, question](const Result<StreamPtr>& stream) {
                             if (self->number_ == number)
                               stream ? self->send(*stream, question) : self->hear(std::unexpected(stream.error()));
                             else if (stream)
                               (*stream)->close();
                           });
  }

 private:
  // In parts, as the program does: of the time for which it is held up itself one part counts.
  void wait(int num_parts) {
    router_.world_.after(router_.state_.options.health_timeout / 10, router_.process_,
                         [self = shared_from_this(), number = number_, num_parts] {
                           if (self->number_ != number) return;
                           if (num_parts > 1) return self->wait(num_parts - 1);
                           self->hear(std::unexpected(Error{ErrorCode::kDeadlineExceeded, "no answer in time", {}}));
                         });
  }
  void send(const StreamPtr& stream, const std::string& question) {
    stream_ = stream;
    stream->on_message = [self = shared_from_this(), number = number_](const std::string& message) {
      if (self->number_ == number) self->take(message);
    };
    stream->on_closed = [self = shared_from_this(), number = number_](const std::string& why) {
      if (self->number_ == number) self->hear(std::unexpected(Error{ErrorCode::kUnavailable, why, {}}));
    };
    stream->send(question);
  }
  void take(const std::string& message) {
    if (message[0] == 'H') answer_.status = to_head(message).status;
    if (message[0] == 'D') answer_.body += message.substr(1);
    if (message[0] == 'E') hear(answer_);
  }
  void hear(const Result<http::Response>& answer) {
    number_++;
    if (stream_) stream_->close();
    stream_.reset();
    const auto before = router_.status()[replica_].health.state();
    questions_.hear(answer, router_.world_.now());
    if (const auto status = router_.status()[replica_]; status.health.state() != before)
      router_.world_.note("router: replica {} is {} {}", replica_, status.health.is_up() ? "up" : "down",
                          status.health.reason());
    router_.world_.after(router_.state_.options.health_interval, router_.process_,
                         [self = shared_from_this()] { self->ask(); });
  }

  Router& router_;
  const size_t replica_;
  HealthQuestions questions_;
  uint64_t number_ = 0;
  http::Response answer_;
  StreamPtr stream_;
};

Router::Router(World& world, ProcessPtr process, const RouterOptions& options, std::vector<Place> replicas)
    : world_(world), process_(std::move(process)), replicas_(std::move(replicas)), state_(options) {
  for (size_t replica = 0; replica < replicas_.size(); replica++) {
    watches_.push_back(std::make_shared<Watch>(*this, replica));
    world_.after(1ms, process_, [watch = watches_.back()] { watch->ask(); });
  }
}

std::shared_ptr<Router::Call> Router::ask(Client& client, int id, std::string body) {
  auto call = std::make_shared<RoutedCall>(*this, client, id, std::move(body));
  call->start();
  return call;
}

}  // namespace cachalot::simulation
