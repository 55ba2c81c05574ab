#include "traffic/traffic.h"

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <cmath>
#include <deque>
#include <future>
#include <random>
#include <set>

#include "base/text.h"

namespace cachalot {

namespace json = boost::json;

std::vector<double> arrival_times(const Arrivals& arrivals, size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<double> times(count);
  double time = 0;
  for (size_t idx = 0; idx < count; idx++) {
    double rate = arrivals.rate;
    if (const auto& ramp = arrivals.ramp) {
      const double done = count > 1 ? static_cast<double>(idx) / static_cast<double>(count - 1) : 1;
      rate = ramp->exponential ? ramp->from * std::pow(ramp->to / ramp->from, done)
                               : ramp->from + (ramp->to - ramp->from) * done;
    }
    if (std::isinf(rate)) continue;
    time += std::isinf(arrivals.burstiness)
                ? 1 / rate
                : std::gamma_distribution(arrivals.burstiness, 1 / (rate * arrivals.burstiness))(random);
    times[idx] = time;
  }
  // What chance adds or takes would differ from seed to seed by one or two percent.
  if (!arrivals.ramp && time > 0)
    for (double& each : times) each *= static_cast<double>(count) / arrivals.rate / time;
  return times;
}

namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMostTokens = 1 << 30;  // of a request, as servers count them
constexpr double kNever = 1e9;            // seconds; a clock's nanoseconds end soon after

// Lives on one I/O thread, but for its owner, who waits.
class Traffic {
 public:
  Traffic(const http::IoThreads& threads, const http::Client& client, const openai::ApiAddress& address,
          const TrafficOptions& options, const std::vector<Conversation>& conversations,
          const std::function<void(size_t)>& on_progress)
      : client_(client),
        address_(address),
        options_(options),
        conversations_(conversations),
        on_progress_(on_progress),
        strand_(boost::asio::make_strand(threads.context())) {
    size_t num_turns = 0;
    for (const Conversation& conversation : conversations) {
      first_turns_.push_back(num_turns);
      num_turns += conversation.size();
    }
    result_.timings.resize(num_turns);
    is_over_.resize(num_turns);
  }

  TrafficResult run() {
    begin_ = Clock::now();
    boost::asio::co_spawn(strand_, arrive(), [this](const std::exception_ptr&) {
      have_all_come_ = true;
      end_if_done();
    });
    {
      const std::stop_callback on_stop(options_.stop, [this] { boost::asio::post(strand_, [this] { give_up(); }); });
      ended_.get_future().wait();
    }
    result_.seconds = since(begin_);
    std::promise<void> posted;  // what was posted before is done with this
    boost::asio::post(strand_, [&] { posted.set_value(); });
    posted.get_future().wait();
    size_t idx = 0;
    std::erase_if(result_.timings, [&](const Timing&) { return !is_over_[idx++]; });
    result_.is_whole = result_.timings.size() == is_over_.size();
    return std::move(result_);
  }

 private:
  static double since(Clock::time_point time) { return std::chrono::duration<double>(Clock::now() - time).count(); }

  http::awaitable<void> arrive() {
    const std::vector<double> times = arrival_times(options_.arrivals, conversations_.size(), options_.seed);
    for (size_t idx = 0; idx < times.size() && !is_given_up_; idx++) {
      if (times[idx] > since(begin_)) {
        const std::chrono::duration<double> time(std::min(times[idx], kNever));
        next_.expires_at(begin_ + std::chrono::duration_cast<Clock::duration>(time));
        co_await next_.async_wait(http::kResult);
        if (is_given_up_) co_return;
      }
      waiting_.push_back({idx, Clock::now()});
      start_some();
    }
  }

  void start_some() {
    while (!waiting_.empty() && (options_.max_concurrency == 0 || num_running_ < options_.max_concurrency)) {
      const Waiting next = waiting_.front();
      waiting_.pop_front();
      num_running_++;
      boost::asio::co_spawn(strand_, converse(next.idx, since(next.since)), [this](const std::exception_ptr&) {
        num_running_--;
        on_progress_(++num_done_);
        start_some();
        end_if_done();
      });
    }
  }

  void end_if_done() {
    if (have_all_come_ && num_running_ == 0 && waiting_.empty()) ended_.set_value();
  }

  void give_up() {
    is_given_up_ = true;
    waiting_.clear();
    next_.cancel();
    for (http::ClientCall* call : calls_) call->close();
  }

  http::awaitable<void> converse(size_t idx, double queued) {
    json::array messages;
    json::value so_far;
    for (size_t turn_idx = 0; turn_idx < conversations_[idx].size() && !is_given_up_; turn_idx++) {
      const Turn& turn = conversations_[idx][turn_idx];
      Timing& timing = result_.timings[first_turns_[idx] + turn_idx];
      timing.queued = turn_idx == 0 ? queued : 0;
      json::object body = {{"model", options_.model},
                           {"max_tokens", turn.max_tokens},
                           {"stream", true},
                           {"stream_options", {{"include_usage", true}}}};
      for (const auto& [key, value] : options_.body) body[key] = value;
      if (options_.is_chat) {
        messages.push_back({{"role", "user"}, {"content", turn.prompt}});
        body["messages"] = messages;
      } else {
        so_far = turn_idx == 0 ? turn.prompt : continued(so_far, timing_before(idx, turn_idx).text, turn.prompt);
        body["prompt"] = so_far;
      }
      co_await ask(json::serialize(body), timing);
      if (is_given_up_ && !timing.error.empty()) co_return;
      is_over_[first_turns_[idx] + turn_idx] = true;
      if (!timing.error.empty()) {
        for (size_t left = turn_idx + 1; left < conversations_[idx].size(); left++) {
          result_.timings[first_turns_[idx] + left].error = "not asked: the turn before failed";
          is_over_[first_turns_[idx] + left] = true;
        }
        co_return;
      }
      messages.push_back({{"role", "assistant"}, {"content", timing.text}});
    }
  }

  const Timing& timing_before(size_t idx, size_t turn_idx) const {
    return result_.timings[first_turns_[idx] + turn_idx - 1];
  }

  // Of ids the answer's are not known: its text is left out, and what was asked before stands.
  static json::value continued(const json::value& so_far, const std::string& answer, const json::value& prompt) {
    if (const json::string* text = so_far.if_string())
      return json::string(std::string(*text) + answer + "\n" + std::string(prompt.as_string()));
    json::array ids = so_far.as_array();
    for (const json::value& id : prompt.as_array()) ids.push_back(id);
    return ids;
  }

  http::awaitable<void> ask(std::string body, Timing& timing) {
    auto request = address_.request("POST", options_.is_chat ? "/chat/completions" : "/completions", std::move(body));
    if (!request) co_return fail(timing, request.error());
    const Clock::time_point start = Clock::now();
    timing.start = since(begin_);
    http::ClientCall call = client_.call(std::move(*request));
    calls_.insert(&call);
    const std::unique_ptr<http::ClientCall, std::function<void(http::ClientCall*)>> out(
        &call, [this](http::ClientCall* ended) { calls_.erase(ended); });
    const Result<http::ResponseHead> head = co_await call.head();
    if (!head) co_return fail(timing, head.error());
    Stream stream;
    std::string refused;
    for (;;) {
      const Result<std::string> piece = co_await call.read();
      if (!piece) co_return fail(timing, piece.error());
      if (piece->empty()) break;
      if (head->status != 200) {
        refused += *piece;
        continue;
      }
      const Result<std::vector<http::SseEvent>> events = stream.parser.add(*piece);
      if (!events) co_return fail(timing, events.error());
      for (const http::SseEvent& event : *events) take(event.data, since(start), stream, timing);
    }
    if (head->status != 200) co_return fail(timing, openai::refusal(head->status, refused));
    if (!timing.error.empty()) co_return;
    const std::string_view type = head->headers.find("Content-Type").value_or("nothing");
    if (timing.ttft == 0)
      timing.error = type.starts_with("text/event-stream")
                         ? "the server ended the stream without an answer"
                         : "the server answers with " + escaped(type, 100) + ", and no text/event-stream";
    else if (!stream.has_ended)
      timing.error = "the answer broke off: its stream has no end";
    // A server that does not count: then a piece is a token, as far as anybody here can tell.
    if (!stream.has_usage) timing.output_tokens = static_cast<int>(timing.gaps.size()) + 1;
  }

  struct Stream {
    http::SseParser parser;
    bool has_ended = false, has_usage = false;
  };

  static void fail(Timing& timing, const Error& error) { timing.error = error.message; }

  // As OpenAI has it, {"error": {"message": "..."}}, or whatever else is not null.
  static std::string error_of(const json::value& event) {
    if (const json::string* message = openai::find_text(event, "/error/message")) return escaped(*message);
    const json::value* error = event.get_object().if_contains("error");
    return error && !error->is_null() ? escaped(json::serialize(*error)) : std::string();
  }

  // A piece of an answer brings text, or says why it ends; what opens a chat (its role) brings nothing.
  void take(const std::string& data, double now, Stream& stream, Timing& timing) const {
    if (data == "[DONE]") {
      stream.has_ended = true;
      return;
    }
    boost::system::error_code error;
    const json::value event = json::parse(data, error);
    if (error || !event.is_object()) {
      timing.error = "the server sends an event that is no JSON object: " + escaped(data, 200);
      return;
    }
    if (std::string told = error_of(event); !told.empty()) timing.error = std::move(told);
    if (const json::value* usage = event.find_pointer("/usage", error); usage && usage->is_object()) {
      const auto count = [&](const char* key, int& field) {
        const json::value* number = usage->get_object().if_contains(key);
        if (!number || !number->is_int64() || number->get_int64() < 0 || number->get_int64() > kMostTokens)
          return false;
        field = static_cast<int>(number->get_int64());
        return true;
      };
      count("prompt_tokens", timing.prompt_tokens);
      stream.has_usage |= count("completion_tokens", timing.output_tokens);
    }
    if (!event.find_pointer("/choices/0", error)) return;
    constexpr const char* kTexts[] = {"/choices/0/text", "/choices/0/delta/content",
                                      "/choices/0/delta/reasoning_content", "/choices/0/delta/reasoning"};
    const bool ends = openai::find_text(event, "/choices/0/finish_reason");
    stream.has_ended |= ends;
    bool brings = !options_.is_chat || ends || event.find_pointer("/choices/0/delta/tool_calls", error);
    for (const char* pointer : kTexts) {
      const json::string* text = openai::find_text(event, pointer);
      brings = brings || (text && !text->empty());
      if (text && pointer != kTexts[2] && pointer != kTexts[3]) timing.text += *text;
    }
    if (!brings) return;
    if (timing.ttft == 0) {
      timing.ttft = now;
    } else {
      timing.gaps.push_back(now - timing.latency);
    }
    timing.latency = now;
  }

  struct Waiting {
    size_t idx;
    Clock::time_point since;
  };

  const http::Client& client_;
  const openai::ApiAddress& address_;
  const TrafficOptions& options_;
  const std::vector<Conversation>& conversations_;
  const std::function<void(size_t)>& on_progress_;
  const boost::asio::strand<boost::asio::io_context::executor_type> strand_;

  std::vector<size_t> first_turns_;
  std::deque<Waiting> waiting_;
  boost::asio::steady_timer next_{strand_};  // arrival
  std::set<http::ClientCall*> calls_;        // on their way
  std::vector<bool> is_over_;                // [timing]
  bool have_all_come_ = false, is_given_up_ = false;
  int num_running_ = 0;
  size_t num_done_ = 0;
  Clock::time_point begin_;
  TrafficResult result_;
  std::promise<void> ended_;
};

}  // namespace

TrafficResult run_traffic(const http::IoThreads& threads, const http::Client& client, const openai::ApiAddress& address,
                          const TrafficOptions& options, const std::vector<Conversation>& conversations,
                          const std::function<void(size_t num_done)>& on_progress) {
  return Traffic(threads, client, address, options, conversations, on_progress).run();
}

}  // namespace cachalot
