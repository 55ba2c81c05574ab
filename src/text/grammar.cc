#include "text/grammar.h"

#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "text/rust_bridge.h"

namespace cachalot {
namespace {

const char* kind_name(GrammarText::Kind kind) {
  switch (kind) {
    case GrammarText::Kind::kJsonSchema:
      return "json_schema";
    case GrammarText::Kind::kRegex:
      return "regex";
    case GrammarText::Kind::kLark:
      return "lark";
  }
  return "";
}

constexpr int kMostBlanks = 2;
constexpr int kSlowNiceness = 5;

bool has_bit(std::span<const uint32_t> mask, TokenId token) {
  const auto word = static_cast<size_t>(token) / 32;
  return word < mask.size() && (mask[word] >> (static_cast<uint32_t>(token) % 32) & 1) != 0;
}
std::chrono::nanoseconds thread_time() {
  timespec time{};
  CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

void set_bit(std::span<uint32_t> mask, TokenId token, bool value) {
  const auto word = static_cast<size_t>(token) / 32;
  if (word >= mask.size()) return;
  const uint32_t bit = 1u << (static_cast<uint32_t>(token) % 32);
  mask[word] = value ? mask[word] | bit : mask[word] & ~bit;
}

}  // namespace

GrammarMatcher::~GrammarMatcher() {
  cachalot_matcher_free(handle_);
}

std::unique_ptr<GrammarMatcher> GrammarMatcher::copy() const {
  return std::unique_ptr<GrammarMatcher>(new GrammarMatcher(cachalot_matcher_copy(handle_)));
}

Status GrammarMatcher::write_mask(std::span<uint32_t> mask) {
  std::string error;
  const cachalot_text_status status = cachalot_matcher_mask(handle_, mask.data(), mask.size(), sink_into(error));
  return to_status(status, "grammar", error);
}

Status GrammarMatcher::accept(TokenId token) {
  std::string error;
  const cachalot_text_status status = cachalot_matcher_accept(handle_, static_cast<uint32_t>(token), sink_into(error));
  return to_status(status, "grammar", error);
}

Result<bool> GrammarMatcher::allows_any(std::span<const TokenId> tokens, int vocab_size) {
  std::vector<uint32_t> mask((static_cast<size_t>(vocab_size) + 31) / 32);
  RETURN_IF_ERROR(write_mask(mask));
  return std::ranges::any_of(tokens, [&](TokenId token) { return has_bit(mask, token); });
}

Result<std::unique_ptr<Grammars>> Grammars::create(const Tokenizer& tokenizer, int vocab_size,
                                                   std::span<const TokenId> end_ids) {
  const std::vector<uint32_t> ends(end_ids.begin(), end_ids.end());
  cachalot_grammars* handle = nullptr;
  std::string error;
  const cachalot_text_status status = cachalot_grammars_new(tokenizer.rust_handle(), static_cast<uint32_t>(vocab_size),
                                                            ends.data(), ends.size(), &handle, sink_into(error));
  RETURN_IF_ERROR(to_status(status, "grammars", error));
  return std::unique_ptr<Grammars>(new Grammars(handle));
}

Grammars::~Grammars() {
  cachalot_grammars_free(handle_);
}

Result<std::unique_ptr<GrammarMatcher>> Grammars::compile(const GrammarText& text) const {
  cachalot_matcher* handle = nullptr;
  std::string error;
  const cachalot_text_status status =
      cachalot_matcher_new(handle_, as_view(kind_name(text.kind)), as_view(text.text), &handle, sink_into(error));
  RETURN_IF_ERROR(to_status(status, kind_name(text.kind), error));
  return std::unique_ptr<GrammarMatcher>(new GrammarMatcher(handle));
}

std::string Grammars::lark_of(std::string_view text) const {
  std::string lark;
  cachalot_grammars_lark(handle_, as_view(text), sink_into(lark));
  return lark;
}

MaskWorkers::MaskWorkers(int num_threads) {
  for (int i = 0; i < num_threads; i++) threads_.emplace_back([this] { work(jobs_); });
  threads_.emplace_back([this] {
    static_cast<void>(setpriority(PRIO_PROCESS, 0, kSlowNiceness));  // of this thread, as Linux has it
    work(slow_jobs_);
  });
}

MaskWorkers::~MaskWorkers() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void MaskWorkers::run(std::function<void()> job, bool is_slow) {
  {
    const std::lock_guard lock(mutex_);
    (is_slow ? slow_jobs_ : jobs_).push_back(std::move(job));
  }
  changed_.notify_all();
}

// What was asked for is done before the end.
void MaskWorkers::work(Jobs& jobs) {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return ending_ || !jobs.empty(); });
    if (jobs.empty()) return;
    const std::function<void()> job = std::move(jobs.front());
    jobs.pop_front();
    lock.unlock();
    job();
    lock.lock();
  }
}

struct GrammarConstraint::Shared {
  std::unique_ptr<GrammarMatcher> matcher;
  std::shared_ptr<MaskBudget> budget;
  std::vector<uint32_t> mask;
  Status status;

  // again: tokens that were paid for once.
  Status go_on(std::span<const TokenId> again, std::optional<TokenId> token) {
    for (const TokenId known : again) RETURN_IF_ERROR(matcher->accept(known));
    const std::chrono::nanoseconds begin = thread_time();
    if (!budget->is_spent()) {
      if (token) RETURN_IF_ERROR(matcher->accept(*token));
      RETURN_IF_ERROR(matcher->write_mask(mask));
      if (budget->take(thread_time() - begin)) return {};
    }
    return make_error(ErrorCode::kInvalidArgument,
                      "the form of the answer is so ambiguous that what may come next takes too long to find");
  }

  std::mutex mutex;
  std::condition_variable changed;
  bool is_ready = true, is_awaited = false;
  std::function<void()> wake;
};

GrammarConstraint::GrammarConstraint(std::unique_ptr<GrammarMatcher> matcher, Thought thought,
                                     std::vector<TokenId> end_ids, int vocab_size, std::shared_ptr<MaskWorkers> workers,
                                     std::shared_ptr<MaskBudget> budget)
    : shared_(std::make_shared<Shared>()),
      thought_(thought),
      end_ids_(std::move(end_ids)),
      workers_(std::move(workers)),
      start_(matcher->copy()) {
  shared_->matcher = std::move(matcher);
  shared_->budget = std::move(budget);
  shared_->mask.resize((static_cast<size_t>(vocab_size) + 31) / 32);
  now_.in_thought = thought_.is_open;
  begin_mask(false);
}

GrammarConstraint::~GrammarConstraint() {
  set_wake({});
}

void GrammarConstraint::begin_mask(bool again) {
  shared_->is_ready = false;
  std::optional<TokenId> token;
  if (!again && !given_.empty()) token = given_.back();
  workers_->run(
      [shared = shared_, token, known = again ? given_ : std::vector<TokenId>()] {
        if (shared.use_count() == 1) return;  // nobody waits any more
        shared->status = shared->go_on(known, token);
        const std::lock_guard lock(shared->mutex);
        shared->is_ready = true;
        shared->changed.notify_all();
        if (std::exchange(shared->is_awaited, false) && shared->wake) shared->wake();
      },
      shared_->budget->is_slow());
}

bool GrammarConstraint::is_ready_by(std::chrono::steady_clock::time_point deadline) {
  if (now_.in_thought) return true;
  std::unique_lock lock(shared_->mutex);
  shared_->is_awaited = !shared_->changed.wait_until(lock, deadline, [&] { return shared_->is_ready; });
  return shared_->is_ready;
}

void GrammarConstraint::set_wake(std::function<void()> wake) {
  const std::lock_guard lock(shared_->mutex);
  shared_->wake = std::move(wake);
}

GrammarConstraint::Shared& GrammarConstraint::wait_for_mask() const {
  std::unique_lock lock(shared_->mutex);
  shared_->changed.wait(lock, [&] { return shared_->is_ready; });
  return *shared_;
}

Status GrammarConstraint::fill_mask(std::span<uint32_t> mask) {
  if (now_.in_thought) {
    for (const TokenId end : end_ids_) set_bit(mask, end, false);
    return {};
  }
  const Shared& shared = wait_for_mask();
  RETURN_IF_ERROR(shared.status);
  for (size_t word = 0; word < mask.size(); word++) mask[word] &= word < shared.mask.size() ? shared.mask[word] : 0;
  if (now_.is_first && thought_.begin) set_bit(mask, *thought_.begin, true);
  for (const TokenId blank : thought_.blanks)
    if (now_.num_blanks > 0) set_bit(mask, blank, true);
  return {};
}

Status GrammarConstraint::accept(TokenId token) {
  before_.push_back(now_);
  const bool is_first = std::exchange(now_.is_first, false);
  const int num_blanks = std::exchange(now_.num_blanks, 0);
  if (now_.in_thought && token != thought_.call) {
    now_.in_thought = token != thought_.end;
    if (!now_.in_thought) now_.num_blanks = kMostBlanks;
    return {};
  }
  now_.in_thought = false;
  if (is_first && token == thought_.begin) {
    now_.in_thought = true;
    return {};
  }
  const Shared& shared = wait_for_mask();
  if (num_blanks > 0 && std::ranges::find(thought_.blanks, token) != thought_.blanks.end() &&
      !has_bit(shared.mask, token)) {
    now_.num_blanks = num_blanks - 1;
    return {};
  }
  RETURN_IF_ERROR(shared.status);
  given_.push_back(token);
  now_.num_given = given_.size();
  begin_mask(false);
  return {};
}

// A grammar takes nothing back: it gets anew, from its start, what it had.
void GrammarConstraint::rollback(int num_tokens) {
  const auto num_kept = static_cast<size_t>(num_tokens);
  if (num_kept >= before_.size()) return;
  now_ = before_[num_kept];
  before_.resize(num_kept);
  if (given_.size() == now_.num_given) return;
  given_.resize(now_.num_given);
  wait_for_mask().matcher = start_->copy();
  begin_mask(true);
}

}  // namespace cachalot
