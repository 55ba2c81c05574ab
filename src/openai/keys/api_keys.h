#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <expected>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "http/server.h"
#include "openai/api_error.h"

namespace cachalot::openai {

// What one key may ask for. Requests and tokens flow back evenly over the minute; tokens are counted when they are
// known (a prompt's when it is, an answer's at its end), so that a key that took more than it had waits for longer.
struct KeyLimits {
  int requests_per_minute = 0, tokens_per_minute = 0, in_flight = 0;  // 0: no bound
  // Of requests' `priority`, of which a lower one is served first.
  int least_priority = std::numeric_limits<int>::min(), most_priority = std::numeric_limits<int>::max();
};

struct ApiKey {
  std::string name, key;
  KeyLimits limits;
};

// A YAML list of mappings: name, key, requests-per-minute, tokens-per-minute, in-flight, priorities ([least, most]).
// Errors name file, line and key; refused where group or others may read or write it.
Result<std::vector<ApiKey>> read_api_key_file(const std::string& path);

// With this field a router asks for what an answer's tokens are counted by: whole ones have it as a field, streams as
// their last event, a comment. "12 34": of the prompt, of the answer.
inline constexpr std::string_view kUsageField = "X-Cachalot-Usage";
inline constexpr std::string_view kUsageComment = ": usage ";

// In which a router tells a server the least and the most of what a request's priority may be: "0 10". A bound for
// whoever sends it.
inline constexpr std::string_view kPrioritiesField = "X-Cachalot-Priorities";
// None: the request may have that priority.
std::optional<ApiError> check_priority(std::string_view priorities, int64_t priority);

// The keys that open an API, with what each has left. Keys of a command line have no limits; those of a file are read
// again when it changes, and a file that is no good changes nothing. Thread-safe.
class ApiKeys : public std::enable_shared_from_this<ApiKeys> {
  struct Account;

 public:
  using Time = std::chrono::steady_clock::time_point;

  // One request of a key, until its answer has ended.
  class Guest : public http::Visit {
   public:
    Guest(std::shared_ptr<const ApiKeys> keys, std::shared_ptr<Account> account, bool is_counted);
    ~Guest() override { end(); }
    void end() override;
    // x-ratelimit-*, as OpenAI has them.
    void add_fields(http::Headers& answer) const override;
    // Those that it may ask for, as kPrioritiesField has them.
    std::string priorities() const;
    // A key of the command line may be a router's, which names its clients; one of a file is one client's.
    bool speaks_for_others() const { return speaks_for_others_; }
    void charge(int64_t num_prompt_tokens, int64_t num_generated_tokens) const;

   private:
    const std::shared_ptr<const ApiKeys> keys_;
    const std::shared_ptr<Account> account_;
    const bool is_counted_, speaks_for_others_;
    bool has_ended_ = false;  // by the keys' mutex
  };
  using Entry = std::expected<std::shared_ptr<http::Visit>, http::Response>;

  // Without a file.
  static std::shared_ptr<const ApiKeys> of(const std::vector<std::string>& keys);
  static Result<std::shared_ptr<const ApiKeys>> open(const std::vector<std::string>& keys, const std::string& file);

  // By a request's head: its guest, or null where nothing is asked for (there are no keys; its path is open to all); or
  // what it is told instead. What is posted counts.
  Entry admit(const http::Request& head, std::span<const std::string_view> open_paths,
              Time now = std::chrono::steady_clock::now()) const;
  // One that opens, for a server's own questions to others with the same keys; empty: there is none.
  std::string any_key() const;
  // In Prometheus' text format, by the keys' names; empty without keys.
  std::string render_metrics() const;

 private:
  using Digest = std::array<unsigned char, 32>;
  // What a key has left, and what it did; it outlives its entry in the file while requests are under way.
  struct Account {
    std::string name, key;
    Digest digest{};
    KeyLimits limits;
    bool is_of_command_line = false;
    double requests_left = 0, tokens_left = 0;
    Time filled;  // as of when
    int num_in_flight = 0;
    int64_t num_requests = 0, num_prompt_tokens = 0, num_generated_tokens = 0;
    std::array<int64_t, 3> num_refused{};  // by kRefusals
  };
  enum Refusal { kOfRequests, kOfTokens, kOfInFlight };

  ApiKeys(std::vector<ApiKey> of_command_line, std::string file);
  static Digest digest_of(std::string_view key);
  static void fill(Account& account, Time now);
  // The file's, of which none may be one of the command line.
  Result<std::vector<ApiKey>> read_file_of_keys() const;
  // Of a locked table.
  void set(const std::vector<ApiKey>& keys, Time now) const;
  void refresh(Time now) const;
  std::optional<http::Response> refuse(Account& account, ErrorForm form) const;
  static http::Response too_much(Account& account, Refusal refusal, const std::string& what, double seconds,
                                 ErrorForm form);
  static void add_rate_fields(const Account& account, http::Headers& fields);

  const std::vector<ApiKey> of_command_line_;
  const std::string file_;
  mutable std::mutex mutex_;  // guards what follows
  mutable std::vector<std::shared_ptr<Account>> accounts_;
  mutable std::string stamp_;
  mutable Time looked_;
  mutable int64_t num_unknown_ = 0;
};

}  // namespace cachalot::openai
