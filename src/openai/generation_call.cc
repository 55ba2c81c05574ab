#include "openai/generation_call.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <stdexcept>

#include "base/log.h"
#include "base/text.h"
#include "http/message.h"
#include "text/thought_budget.h"

namespace cachalot::openai {

namespace {

// Outputs of the engine that wait for a client who takes its answer slowly; beyond it the connection is broken.
constexpr size_t kMostUnread = 1 << 16;

// Of the engine as a whole: another server may do better.
ApiError engine_failed(const ChoiceText& text) {
  if (text.is_impossible)
    return ApiError(400, "the answer cannot go on: " + text.error, "invalid_request_error", "", "impossible_answer");
  ApiError error(500, "the engine failed: " + text.error, "server_error");
  error.is_final = text.is_own_fault;
  return error;
}

}  // namespace

GenerationCall::GenerationCall(GenerationService& service, const Tokenizer& tokenizer, http::ServerCall& client,
                               GenerationPlan plan)
    : service_(service), tokenizer_(tokenizer), client_(client), plan_(std::move(plan)) {}

GenerationCall::~GenerationCall() {
  if (mailbox_) mailbox_->close();
  if (!over_) abort_all();
  if (!plan_.log_name.empty()) log_end();
  if (plan_.budget) plan_.budget->give_back(num_held_bytes_);
}

http::awaitable<void> GenerationCall::run() {
  mailbox_ = std::make_shared<http::Mailbox<Mail>>(co_await boost::asio::this_coro::executor, kMostUnread);
  make_sequences();
  const Status submitted = submit();
  if (!submitted) {
    http::Response refusal = plan_.format->refusal(ApiError(submitted.error()), plan_.headers);
    co_return co_await client_.respond(std::move(refusal));
  }
  if (plan_.stream) co_await begin_stream();
  while (!over_) {
    using Clock = std::chrono::steady_clock;
    auto mail =
        co_await mailbox_->take_before(plan_.stream ? Clock::now() + plan_.keep_alive : Clock::time_point::max());
    if (!mail) {
      co_await client_.send(std::string(plan_.format->keep_alive()));
      continue;
    }
    if (mail->empty()) throw std::runtime_error("the client takes its answer too slowly");
    std::string events;
    for (Mail& item : *mail)
      if (!over_) take(std::move(item), events);
    if (plan_.stream && over_)
      co_await client_.end(std::move(events));
    else if (!events.empty())
      co_await client_.send(std::move(events));
  }
  if (!plan_.stream) co_await client_.respond(std::move(answer_));
}

void GenerationCall::make_sequences() {
  for (const Prompt& prompt : plan_.prompts)
    for (int i = 0; i < plan_.choices_per_prompt; ++i)
      sequences_.push_back({service_.next_id(), prompt, Choice(tokenizer_, plan_.choice, prompt)});
  if (!plan_.stream) wholes_.resize(sequences_.size());
}

Status GenerationCall::submit() {
  for (size_t i = 0; i < sequences_.size(); ++i)
    RETURN_IF_ERROR(service_.submit(make_request(sequences_[i], i), [mailbox = mailbox_, i](RequestOutput output) {
      mailbox->put({i, std::move(output)});
    }));
  return {};
}

Request GenerationCall::make_request(const Sequence& sequence, size_t index) const {
  Request request;
  request.id = sequence.id;
  request.tokens = sequence.prompt.tokens;
  request.num_prompt_tokens = static_cast<int>(request.tokens.size());
  request.sampling = plan_.sampling;
  request.sampling.max_tokens = sequence.prompt.max_tokens;
  // Within the prompt: a list of prompts gets what each of them would get alone.
  request.sampling.choice = static_cast<uint32_t>(index % static_cast<size_t>(plan_.choices_per_prompt));
  request.parent = sequences_[index - request.sampling.choice].id;
  request.num_choices = plan_.choices_per_prompt;
  request.priority = plan_.priority;
  request.arrival_ns = plan_.arrival_ns;
  request.cache_salt = plan_.cache_salt;
  request.wants_progress = plan_.include_progress && index == 0;
  if (plan_.grammar) {
    Thought thought = plan_.thought;
    thought.is_open = sequence.prompt.opens_thought;
    request.constraint = std::make_unique<GrammarConstraint>(plan_.grammar->copy(), thought, plan_.end_ids,
                                                             plan_.vocab_size, plan_.mask_workers, plan_.mask_budget);
  }
  if (plan_.thought_budget >= 0) {
    Thought thought = plan_.thought;
    thought.is_open = sequence.prompt.opens_thought;
    request.constraint =
        std::make_unique<ThoughtBudget>(std::move(thought), plan_.thought_budget, std::move(request.constraint));
  }
  return request;
}

void GenerationCall::take(Mail mail, std::string& events) {
  Sequence& sequence = sequences_[mail.sequence];
  if (sequence.choice.finished()) return;
  if (mail.output.progress)
    return plan_.format->progress(*mail.output.progress, static_cast<int>(sequence.prompt.tokens.size()), events);
  if (!may_hold(mail.output))
    return fail(
        ApiError(429,
                 fmt::format("the answers under way hold {} MiB, as many as may; ask for fewer probabilities or "
                             "choices, or stream the answer",
                             plan_.budget->limit() >> 20),
                 "rate_limit_error", "", "answers_too_large"),
        events);
  if (!mail.output.tokens.empty() && !first_token_) first_token_ = std::chrono::steady_clock::now();
  if (plan_.num_best < plan_.choices_per_prompt)
    for (const SampledToken& token : mail.output.tokens) sequence.logprob_sum += token.logprob;
  ChoiceText text = sequence.choice.add(std::move(mail.output));
  if (sequence.choice.must_abort()) service_.abort(sequence.id);
  if (text.finish == FinishReason::kError) return fail(engine_failed(text), events);
  if (text.finish == FinishReason::kAborted && !plan_.format->tells_of_aborts())
    return fail(ApiError(503, "the server stopped before the answer was whole", "service_unavailable"), events);
  if (!plan_.stream)
    wholes_[mail.sequence].append(std::move(text));
  else if (text.has_news())
    plan_.format->add(mail.sequence, text, plan_.continuous_usage ? std::optional(usage()) : std::nullopt, events);
  if (sequence.choice.finished() && ++num_finished_ == sequences_.size()) end_answer(events);
}

// What is kept of an answer until it is whole, and of a prompt until the answer begins, as the JSON that it becomes.
bool GenerationCall::may_hold(const RequestOutput& output) {
  constexpr int64_t kTokenBytes = 16, kProbabilityBytes = 80;
  const auto size_of = [](const std::vector<SampledToken>& tokens, bool has_probabilities) {
    int64_t num_bytes = static_cast<int64_t>(tokens.size()) * kTokenBytes;
    for (const SampledToken& token : tokens)
      if (has_probabilities) num_bytes += static_cast<int64_t>(token.top.size() + 1) * kProbabilityBytes;
    return num_bytes;
  };
  int64_t num_bytes = size_of(output.prompt_logprobs, true);
  if (!plan_.stream || plan_.holds_answer) num_bytes += size_of(output.tokens, plan_.choice.logprobs);
  if (num_bytes == 0 || !plan_.budget) return true;
  if (!plan_.budget->take(num_bytes)) return false;
  num_held_bytes_ += num_bytes;
  return true;
}

http::awaitable<void> GenerationCall::begin_stream() {
  http::Headers headers = plan_.headers;
  headers.set("Content-Type", "text/event-stream; charset=utf-8");
  headers.set("Cache-Control", "no-cache");
  client_.begin(200, std::move(headers));
  std::string events;
  plan_.format->begin(sequences_.size(), usage(), events);
  co_await client_.send(std::move(events));
}

void GenerationCall::end_answer(std::string& events) {
  over_ = true;
  if (!plan_.stream) {
    if (plan_.num_best < plan_.choices_per_prompt) keep_the_best();
    answer_ = http::Response::json(200, plan_.format->whole(wholes_, usage()));
    for (const auto& [name, value] : plan_.headers) answer_.headers.set(name, value);
    return;
  }
  plan_.format->end(usage(), events);
}

void GenerationCall::fail(const ApiError& error, std::string& events) {
  over_ = true;
  abort_all();
  if (plan_.stream)
    plan_.format->fail(error, events);
  else
    answer_ = plan_.format->refusal(error, plan_.headers);
}

void GenerationCall::abort_all() {
  for (const Sequence& sequence : sequences_) service_.abort(sequence.id);
}

void GenerationCall::log_end() const {
  using Seconds = std::chrono::duration<double>;
  const std::chrono::steady_clock::time_point arrival{std::chrono::nanoseconds(plan_.arrival_ns)};
  const Usage used = usage();
  log::info(
      "{}: {} prompt tokens ({} cached), {} generated in {} choices{}; {}, {:.3f} s in all",
      quoted(plan_.log_name, 160), used.prompt_tokens, used.cached_tokens, used.completion_tokens, sequences_.size(),
      over_ ? "" : ", given up by its client",
      first_token_ ? fmt::format("first token after {:.3f} s", Seconds(*first_token_ - arrival).count()) : "no token",
      Seconds(std::chrono::steady_clock::now() - arrival).count());
}

// Of each prompt's choices the likeliest by token remain, as in OpenAI's best_of.
void GenerationCall::keep_the_best() {
  const auto by_token = [&](size_t i) {
    return sequences_[i].logprob_sum / std::max(sequences_[i].choice.num_generated(), 1);
  };
  std::vector<ChoiceText> best;
  for (size_t first = 0; first < sequences_.size(); first += static_cast<size_t>(plan_.choices_per_prompt)) {
    std::vector<size_t> order(static_cast<size_t>(plan_.choices_per_prompt));
    std::iota(order.begin(), order.end(), first);
    std::ranges::stable_sort(order, std::greater(), by_token);
    order.resize(static_cast<size_t>(plan_.num_best));
    for (const size_t i : order) best.push_back(std::move(wholes_[i]));
  }
  wholes_ = std::move(best);
}

Usage GenerationCall::usage() const {
  Usage usage;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const Choice& choice = sequences_[i].choice;
    usage.completion_tokens += choice.num_generated();
    usage.reasoning_tokens += choice.num_reasoning();
    // A prompt counts once, however many choices it has.
    if (i % static_cast<size_t>(plan_.choices_per_prompt) != 0) continue;
    usage.prompt_tokens += static_cast<int>(sequences_[i].prompt.tokens.size());
    usage.cached_tokens += choice.num_cached();
  }
  return usage;
}

}  // namespace cachalot::openai
