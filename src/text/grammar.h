#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/error.h"
#include "core/request.h"
#include "text/tokenizer.h"

struct cachalot_grammars;
struct cachalot_matcher;

namespace cachalot {

// What an answer must be: a JSON value of a schema, a text that a regular expression matches as a whole, or a text of a
// grammar in llguidance's form of Lark.
struct GrammarText {
  enum class Kind { kJsonSchema, kRegex, kLark };
  Kind kind = Kind::kLark;
  std::string text;
};

// One answer's place in its grammar. One thread at a time.
class GrammarMatcher {
 public:
  ~GrammarMatcher();
  GrammarMatcher(const GrammarMatcher&) = delete;
  GrammarMatcher& operator=(const GrammarMatcher&) = delete;

  // At the same place; shares nothing that changes.
  std::unique_ptr<GrammarMatcher> copy() const;

  // Sets the bits of the tokens that may come next, from the lowest bit of the first word on, and clears all others;
  // where nothing may follow, of those that end an answer. Errors: the grammar is too ambiguous to go on with.
  Status write_mask(std::span<uint32_t> mask);
  Status accept(TokenId token);
  // Whether any of these may come next.
  Result<bool> allows_any(std::span<const TokenId> tokens, int vocab_size);

 private:
  friend class Grammars;
  explicit GrammarMatcher(cachalot_matcher* handle) : handle_(handle) {}

  cachalot_matcher* const handle_;
};

// Compiles grammars over the tokens of a model. Thread-safe.
class Grammars {
 public:
  // `vocab_size`: the model's. `end_ids`: the tokens that end an answer, at least one. Takes a second for a vocabulary
  // of 129,000.
  static Result<std::unique_ptr<Grammars>> create(const Tokenizer& tokenizer, int vocab_size,
                                                  std::span<const TokenId> end_ids);
  ~Grammars();
  Grammars(const Grammars&) = delete;
  Grammars& operator=(const Grammars&) = delete;

  // kInvalidArgument: what is wrong with the text, or that it is too large; time and memory are bounded.
  Result<std::unique_ptr<GrammarMatcher>> compile(const GrammarText& text) const;

  // A text as a Lark grammar names it: tokens that the tokenizer adds by their ids, as no other text stands for them;
  // the rest as strings.
  std::string lark_of(std::string_view text) const;

 private:
  explicit Grammars(cachalot_grammars* handle) : handle_(handle) {}

  cachalot_grammars* const handle_;
};

// Threads that bring grammars on and compute masks while the model computes the logits that they are for. What is slow
// has one of its own, behind which nobody else waits.
class MaskWorkers {
 public:
  explicit MaskWorkers(int num_threads);
  ~MaskWorkers();

  void run(std::function<void()> job, bool is_slow);

 private:
  using Jobs = std::deque<std::function<void()>>;
  void work(Jobs& jobs);

  std::mutex mutex_;
  std::condition_variable changed_;
  Jobs jobs_, slow_jobs_;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

// How much time of the workers the answers to one request may take: a step of a model waits for the masks of all its
// sequences, and a grammar can be made so ambiguous that one of them takes seconds. Over 129,000 tokens a JSON schema
// takes 0.02 to 0.06 ms a token on the average, a bounded expression 1.5 ms with 9 at first. Thread-safe.
class MaskBudget {
 public:
  static constexpr std::chrono::nanoseconds kAtFirst = std::chrono::seconds(1);
  static constexpr std::chrono::nanoseconds kPerAnswer = std::chrono::milliseconds(15);
  static constexpr std::chrono::nanoseconds kPerToken = std::chrono::microseconds(300);
  static constexpr std::chrono::nanoseconds kSlow = std::chrono::milliseconds(100);  // beyond what a token may take

  explicit MaskBudget(int num_answers) : left_ns_((kAtFirst + num_answers * kPerAnswer).count()) {}

  // Of a token; false: more was taken than there was.
  bool take(std::chrono::nanoseconds time) { return left_ns_.fetch_sub((time - kPerToken).count()) > time.count(); }
  bool is_spent() const { return left_ns_.load() <= 0; }
  bool is_slow() const { return left_ns_.load() < slow_below_ns_; }

 private:
  std::atomic<int64_t> left_ns_;
  const int64_t slow_below_ns_ = left_ns_.load() - kSlow.count();
};

// What a model thinks before it answers, as constraints see it.
struct Thought {
  std::optional<TokenId> begin, end;  // its tags; none: there are no thoughts
  std::optional<TokenId> call;        // begins what ends a thought without its tag, and is a part of the answer
  bool is_open = false;               // the prompt has opened it
  // White space that models write behind a thought. Two of these are let through in front of what the grammar wants,
  // if it wants none itself.
  std::vector<TokenId> blanks;
};

// Holds an answer to a grammar, from the end of its thought on: until then everything may come but the end of the
// answer. The next mask is begun as soon as a token is known.
class GrammarConstraint : public TokenConstraint {
 public:
  // `end_ids`: those that end an answer.
  GrammarConstraint(std::unique_ptr<GrammarMatcher> matcher, Thought thought, std::vector<TokenId> end_ids,
                    int vocab_size, std::shared_ptr<MaskWorkers> workers, std::shared_ptr<MaskBudget> budget);
  ~GrammarConstraint() override;

  Status fill_mask(std::span<uint32_t> mask) override;
  Status accept(TokenId token) override;
  void rollback(int num_tokens) override;
  bool is_ready_by(std::chrono::steady_clock::time_point deadline) override;
  void set_wake(std::function<void()> wake) override;

 private:
  struct Place {
    bool is_first = true, in_thought = false;
    int num_blanks = 0;    // that may come now
    size_t num_given = 0;  // tokens that the grammar has got
  };
  // What the worker and the owner share: the worker has it from begin_mask() until it is ready.
  struct Shared;

  // Of what the grammar has got; all of it but the last token was taken before, `again` if it is to be once more.
  void begin_mask(bool again);
  Shared& wait_for_mask() const;

  const std::shared_ptr<Shared> shared_;
  const Thought thought_;
  const std::vector<TokenId> end_ids_;
  const std::shared_ptr<MaskWorkers> workers_;
  const std::unique_ptr<GrammarMatcher> start_;
  Place now_;
  std::vector<Place> before_;   // each token
  std::vector<TokenId> given_;  // to the grammar
};

}  // namespace cachalot
