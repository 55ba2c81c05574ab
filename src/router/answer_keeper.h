#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "http/client.h"

namespace cachalot::router {

// Splits the stream of a server that tells its answer's log (openai/answer/answer_log.h) into what the client gets and
// what is kept.
class LogReader {
 public:
  struct Step {
    std::string events;                            // that records account for
    std::string records;                           // that are kept, each one whole
    bool has_news = false;                         // among them is more than the beginning
    bool is_whole = false;                         // the answer
    bool is_given_up = false, has_failed = false;  // failed: with its engine
    std::string last_words;                        // of a server that gives up, for a client whom nobody else serves
  };
  Step pass(std::string_view bytes);
  // What no record accounts for yet.
  size_t num_held() const { return held_.size(); }

 private:
  std::string held_;
  size_t num_searched_ = 0;  // that hold no record
};

// Bytes that requests and logs may hold together. Thread-safe.
class TakeoverMemory {
 public:
  explicit TakeoverMemory(size_t limit) : limit_(limit) {}

  size_t limit() const { return limit_; }
  size_t held() const { return held_; }
  bool take(size_t num_bytes) {
    if (held_.fetch_add(num_bytes) + num_bytes <= limit_) return true;
    give_back(num_bytes);
    return false;
  }
  void give_back(size_t num_bytes) { held_.fetch_sub(num_bytes); }

 private:
  const size_t limit_;
  std::atomic<size_t> held_{0};
};

// What is known of one answer, so that another replica may go on with it.
class AnswerKeeper {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::milliseconds;
  static constexpr int kMostDeaths = 3;  // of servers that had it at the same count of tokens

  explicit AnswerKeeper(TakeoverMemory& memory) : memory_(memory) {}
  ~AnswerKeeper() { forget(); }
  AnswerKeeper(const AnswerKeeper&) = delete;
  AnswerKeeper& operator=(const AnswerKeeper&) = delete;

  // Whether there is room for the request, which is kept, too.
  bool take_request(size_t num_bytes);
  bool is_kept() const { return is_kept_; }
  // No more than this answer's server says from now on.
  void forget();

  // A server begins, or goes on. False: it tells no log, or another kind of it than the last one.
  bool begin(const http::ResponseHead& head);
  bool is_logged() const { return is_logged_; }
  bool is_whole() const { return is_whole_; }  // the answer comes at its end
  const std::string& mark() const { return mark_; }
  const std::string& fingerprint() const { return fingerprint_; }
  void add(const LogReader::Step& step);
  const std::string& log() const { return log_; }
  const std::string& text() const { return text_; }  // of a whole answer
  // Of the last server, if it gave the answer up.
  const std::string& last_words() const { return last_words_; }

  // The server is gone, by its own death or otherwise.
  void lose(bool has_died, Time now);
  bool is_lost() const { return lost_.has_value(); }
  // Before the next server is asked, which takes note of it.
  Duration next_pause();
  bool is_blamed() const { return num_deaths_ >= kMostDeaths; }
  bool is_too_late(Time now, Duration patience) const { return lost_ && now - *lost_ >= patience; }
  // After the first word of the next one: for how long the client waited; none: it has not waited.
  std::optional<Duration> take_wait(Time now);

 private:
  TakeoverMemory& memory_;
  size_t num_taken_ = 0;
  bool is_kept_ = false, is_logged_ = false, is_whole_ = false;
  std::string log_, text_, mark_, fingerprint_, last_words_;
  int num_deaths_ = 0, num_tries_ = 0;  // since the last token
  std::optional<Time> lost_;            // since then, for the first time
};

}  // namespace cachalot::router
