#include "openai/generation_call.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <stdexcept>

#include "base/log.h"
#include "base/text.h"
#include "config/json.h"
#include "http/message.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

// Outputs of the engine that wait for a client who takes its answer slowly; beyond it the connection is broken.
constexpr size_t kMostUnread = 1 << 16;

// Of the engine as a whole: another server may do better.
ApiError engine_failed(const ChoiceText& text) {
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
    http::Response refusal = ApiError(submitted.error()).to_response(plan_.headers);
    co_return co_await client_.respond(std::move(refusal));
  }
  if (plan_.stream) co_await begin_stream();
  while (!over_) {
    using Clock = std::chrono::steady_clock;
    auto mail =
        co_await mailbox_->take_before(plan_.stream ? Clock::now() + plan_.keep_alive : Clock::time_point::max());
    if (!mail) {
      co_await client_.send(": waiting\n\n");
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
  if (plan_.grammar) {
    GrammarConstraint::Thought thought = plan_.thought;
    thought.is_open = sequence.prompt.opens_thought;
    request.constraint = std::make_unique<GrammarConstraint>(plan_.grammar->copy(), thought, plan_.end_ids,
                                                             plan_.vocab_size, plan_.mask_workers);
  }
  return request;
}

void GenerationCall::take(Mail mail, std::string& events) {
  Sequence& sequence = sequences_[mail.sequence];
  if (sequence.choice.finished()) return;
  if (!may_hold(mail.output))
    return fail(
        ApiError(429,
                 fmt::format("the answers under way hold {} MiB, as many as may; ask for fewer probabilities or "
                             "choices, or stream the answer",
                             plan_.budget->limit() >> 20),
                 "rate_limit_error", "", "answers_too_large"),
        events);
  if (!mail.output.tokens.empty() && !first_token_) first_token_ = std::chrono::steady_clock::now();
  ChoiceText text = sequence.choice.add(std::move(mail.output));
  if (sequence.choice.must_abort()) service_.abort(sequence.id);
  if (text.finish == FinishReason::kError) return fail(engine_failed(text), events);
  if (plan_.stream) {
    if (text.has_news()) {
      std::string choice;
      plan_.format->append_choice(mail.sequence, text, true, choice);
      add_chunk(choice, events);
    }
  } else {
    sequence.whole.append(std::move(text));
  }
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
  if (!plan_.stream) num_bytes += size_of(output.tokens, plan_.choice.logprobs);
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
  for (size_t i = 0; i < sequences_.size(); ++i)
    if (const std::string choice = plan_.format->opening_choice(i); !choice.empty()) add_chunk(choice, events);
  co_await client_.send(std::move(events));
}

void GenerationCall::end_answer(std::string& events) {
  over_ = true;
  if (!plan_.stream) {
    answer_ = http::Response::json(200, whole_answer());
    for (const auto& [name, value] : plan_.headers) answer_.headers.set(name, value);
    return;
  }
  if (plan_.include_usage) events += http::format_sse(plan_.format->chunk({}, usage().to_json()));
  events += http::format_sse("[DONE]");
}

// The stream of an answer that broke off ends with the error and without [DONE].
void GenerationCall::fail(const ApiError& error, std::string& events) {
  over_ = true;
  abort_all();
  if (plan_.stream)
    events += http::format_sse(json_text(error.to_json()));
  else
    answer_ = error.to_response(plan_.headers);
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

// A choice's probabilities are given up as soon as they are written.
std::string GenerationCall::whole_answer() {
  std::string choices;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    if (i > 0) choices += ',';
    plan_.format->append_choice(i, std::exchange(sequences_[i].whole, {}), false, choices);
  }
  return plan_.format->whole(choices, usage());
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

void GenerationCall::add_chunk(std::string_view choice, std::string& events) const {
  std::optional<json::value> usage_field;
  if (plan_.continuous_usage)
    usage_field = usage().to_json();
  else if (plan_.include_usage)
    usage_field = json::value();
  events += http::format_sse(plan_.format->chunk(choice, usage_field));
}

}  // namespace cachalot::openai
