#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "core/generation.h"
#include "text/tokenizer.h"

namespace cachalot::openai {

// A generation service that always answers with the same text, a token an output, from a thread of its own as the
// engine does. It stops where an engine would: after max_tokens, at a stop id, when aborted.
class FakeService : public GenerationService {
 public:
  explicit FakeService(const Tokenizer& tokenizer) : tokenizer_(tokenizer), thread_([this] { loop(); }) {}
  ~FakeService() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  // The tokens of every answer; without an end they go on with "x" for ever.
  void answer_with(std::string_view text, bool end = true) {
    std::lock_guard lock(mutex_);
    answer_ = *tokenizer_.encode(text, false);
    ends_ = end;
  }
  void answer_with(std::vector<TokenId> tokens) {
    std::lock_guard lock(mutex_);
    answer_ = std::move(tokens);
    ends_ = true;
  }
  void refuse_after(int num_submissions, Error error) {
    std::lock_guard lock(mutex_);
    accepts_ = num_submissions;
    refusal_ = std::move(error);
  }
  void fail_after(int num_tokens, bool is_own_fault = false, bool is_impossible = false) {
    is_own_fault_ = is_own_fault;
    is_impossible_ = is_impossible;
    fail_after_ = num_tokens;
  }
  void hold(bool held) {
    std::lock_guard lock(mutex_);
    held_ = held;
    changed_.notify_all();
  }
  void set_healthy(bool healthy) { healthy_ = healthy; }
  void set_stats(const ReplicaStats& stats) { stats_ = stats; }  // before the server starts

  std::vector<Request>& requests() { return requests_; }  // all that came
  // What requests that ask hear before their first token.
  void set_progress(std::vector<RequestProgress> progress) { progress_ = std::move(progress); }
  // The tokens of this choice of every prompt have -0.1 in place of -0.5.
  void set_likeliest_choice(int choice) { likeliest_choice_ = choice; }
  bool wait_until_idle() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(5), [&] { return running_.empty(); });
  }
  bool wait_for_requests(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(5), [&] { return requests_.size() >= count; });
  }

  RequestId next_id() override { return next_id_.fetch_add(1); }
  Status submit(Request request, Listener listener) override {
    std::lock_guard lock(mutex_);
    if (refusal_ && accepts_-- <= 0) return std::unexpected(*refusal_);
    requests_.push_back(Request{.id = request.id,
                                .tokens = request.tokens,
                                .num_prompt_tokens = request.num_prompt_tokens,
                                .sampling = request.sampling,
                                .priority = request.priority,
                                .client = request.client,
                                .is_alone = request.is_alone,
                                .cache_salt = request.cache_salt,
                                .constraint = std::move(request.constraint)});
    const auto num_generated = request.tokens.size() - static_cast<size_t>(request.num_prompt_tokens);
    running_[request.id] = {std::move(request), std::move(listener), num_generated};
    changed_.notify_all();
    return {};
  }
  void abort(RequestId id) override {
    std::lock_guard lock(mutex_);
    aborted_.push_back(id);
    changed_.notify_all();
  }
  ReplicaStats stats() const override { return stats_; }
  bool healthy() const override { return healthy_; }

 private:
  struct Running {
    Request request;
    Listener listener;
    size_t num_generated = 0;
  };

  // Made-up probabilities: the token itself -0.5, then ids 0, 1, ... at -1, -2, ...
  static SampledToken sampled(TokenId token, int num_logprobs) {
    SampledToken result{.token = token, .logprob = -0.5f, .rank = 1};
    for (int i = 0; i < num_logprobs; ++i) result.top.push_back({i, -1.f - static_cast<float>(i), i + 2});
    return result;
  }

  TokenId next_token(const Running& running) const {
    if (running.num_generated < answer_.size()) return answer_[running.num_generated];
    return *tokenizer_.token_id(ends_ ? tokenizer_.eos_token() : "x");
  }

  RequestOutput step(Running& running) const {
    const SamplingParams& sampling = running.request.sampling;
    RequestOutput output{.id = running.request.id, .num_cached_tokens = 3};
    if (running.num_generated == 0 && sampling.num_prompt_logprobs >= 0)
      for (size_t i = 1; i < running.request.tokens.size(); ++i)
        output.prompt_logprobs.push_back(sampled(running.request.tokens[i], sampling.num_prompt_logprobs));
    if (static_cast<int>(running.num_generated) == fail_after_) {
      output.finish = FinishReason::kError;
      output.error = "the device is on fire";
      output.is_own_fault = is_own_fault_;
      if (is_impossible_) output.error_code = ErrorCode::kInvalidArgument;
      return output;
    }
    const TokenId token = next_token(running);
    output.tokens.push_back(sampled(token, sampling.num_logprobs));
    if (static_cast<int>(sampling.choice) == likeliest_choice_) output.tokens.back().logprob = -0.1f;
    ++running.num_generated;
    if (std::ranges::find(sampling.stop_token_ids, token) != sampling.stop_token_ids.end())
      output.finish = FinishReason::kStop;
    else if (static_cast<int>(running.num_generated) >= sampling.max_tokens)
      output.finish = FinishReason::kLength;
    return output;
  }

  void loop() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      changed_.wait(lock, [&] { return stopping_ || !aborted_.empty() || (!running_.empty() && !held_); });
      std::vector<std::pair<Listener, RequestOutput>> outputs;
      for (const RequestId id : std::exchange(aborted_, {}))
        if (const auto found = running_.find(id); found != running_.end()) {
          outputs.emplace_back(std::move(found->second.listener),
                               RequestOutput{.id = id, .finish = FinishReason::kAborted});
          running_.erase(found);
        }
      if (!held_)
        for (auto it = running_.begin(); it != running_.end();) {
          if (it->second.num_generated == 0 && it->second.request.wants_progress)
            for (const RequestProgress& progress : progress_)
              outputs.emplace_back(it->second.listener, RequestOutput{.id = it->first, .progress = progress});
          RequestOutput output = step(it->second);
          const bool done = output.finish != FinishReason::kNone;
          outputs.emplace_back(it->second.listener, std::move(output));
          it = done ? running_.erase(it) : std::next(it);
        }
      changed_.notify_all();
      lock.unlock();
      for (auto& [listener, output] : outputs) listener(std::move(output));
      outputs.clear();
      if (!ends_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      lock.lock();
    }
  }

  const Tokenizer& tokenizer_;
  std::atomic<RequestId> next_id_{1};
  std::atomic<int> fail_after_{-1}, likeliest_choice_{-1};
  ReplicaStats stats_;
  std::atomic<bool> healthy_{true}, ends_{true}, is_own_fault_{false}, is_impossible_{false};
  bool held_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, Running> running_;
  std::vector<Request> requests_;
  std::vector<RequestId> aborted_;
  std::vector<TokenId> answer_;
  std::vector<RequestProgress> progress_;
  std::optional<Error> refusal_;
  int accepts_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace cachalot::openai
