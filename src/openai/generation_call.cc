#include "openai/generation_call.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <stdexcept>

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
    : service_(service), tokenizer_(tokenizer), client_(client), plan_(std::move(plan)) {
  make_sequences();
}

GenerationCall::~GenerationCall() {
  if (mailbox_) mailbox_->close();
  if (!over_) abort_all();
  if (plan_.is_logged) client_.story = story();
  if (plan_.span) trace_end();
  if (plan_.guest && mailbox_) plan_.guest->charge(0, usage().completion_tokens - charged_.completion_tokens);
  if (plan_.budget) plan_.budget->give_back(num_held_bytes_);
}

http::awaitable<void> GenerationCall::run() {
  mailbox_ = std::make_shared<http::Mailbox<Mail>>(co_await boost::asio::this_coro::executor, kMostUnread);
  Status submitted = is_resumed_ ? Status() : make_requests();
  if (submitted) submitted = submit();
  if (!submitted) {
    if (plan_.span) plan_.span->fail(submitted.error().message);
    http::Response refusal = plan_.format->refusal(ApiError(submitted.error()), plan_.headers);
    co_return co_await client_.respond(std::move(refusal));
  }
  if (plan_.guest) plan_.guest->charge(usage().prompt_tokens - charged_.prompt_tokens, 0);
  if (is_streamed()) co_await begin_stream();
  while (!over_) {
    using Clock = std::chrono::steady_clock;
    auto mail =
        co_await mailbox_->take_before(is_streamed() ? Clock::now() + plan_.keep_alive : Clock::time_point::max());
    if (!mail) {
      std::string word(plan_.stream ? plan_.format->keep_alive() : std::string_view());
      if (plan_.start_record) word += answer_log::kPass;
      co_await client_.send(std::move(word));
      continue;
    }
    if (mail->empty()) throw std::runtime_error("the client takes its answer too slowly");
    std::string events;
    for (Mail& item : *mail)
      if (!over_) take(std::move(item), events);
    if (is_streamed() && over_)
      co_await client_.end(std::move(events));
    else if (!events.empty())
      co_await client_.send(std::move(events));
  }
  if (!is_streamed()) co_await client_.respond(std::move(answer_));
}

Status GenerationCall::resume(AnswerLog log) {
  is_resumed_ = true;
  std::string told;
  if (plan_.stream) plan_.format->begin(sequences_.size(), usage(), told);
  for (AnswerLog::Entry& entry : log.entries) {
    if (entry.choice >= sequences_.size())
      return make_error(ErrorCode::kInvalidArgument, "an answer's log tells of choice {} of {}", entry.choice,
                        sequences_.size());
    Sequence& sequence = sequences_[entry.choice];
    for (const SampledToken& token : entry.output.tokens) {
      if (token.token >= tokenizer_.vocab_size())
        return make_error(ErrorCode::kInvalidArgument, "an answer's log tells of token {}", token.token);
      sequence.generated.push_back(token.token);
    }
    // A place in the text depends on the prompt's tokens, whose probabilities were told with the first piece.
    if (sequence.choice.num_generated() == 0 && plan_.sampling.num_prompt_logprobs >= 0)
      for (size_t idx = 1; idx < sequence.prompt.tokens.size(); ++idx)
        entry.output.prompt_logprobs.push_back({.token = sequence.prompt.tokens[idx], .top = {}});
    say({entry.choice, std::move(entry.output)}, told);
    told.clear();
  }
  if (over_ && num_finished_ < sequences_.size())
    return make_error(ErrorCode::kOutOfMemory, "the answers under way hold as much as may be");
  // The server that told it has counted it. A client's own word, whose key is one of a file, counts for nothing.
  if (!plan_.guest || plan_.guest->speaks_for_others()) charged_ = usage();
  return make_requests();
}

void GenerationCall::make_sequences() {
  for (const Prompt& prompt : plan_.prompts)
    for (int i = 0; i < plan_.choices_per_prompt; ++i)
      sequences_.push_back({service_.next_id(), prompt, Choice(tokenizer_, plan_.choice, prompt)});
  if (!plan_.stream) wholes_.resize(sequences_.size());
}

Status GenerationCall::make_requests() {
  for (size_t i = 0; i < sequences_.size(); ++i) {
    ASSIGN_OR_RETURN(Request request, make_request(sequences_[i], i));
    requests_.push_back(std::move(request));
  }
  return {};
}

Status GenerationCall::submit() {
  for (size_t i = 0; i < sequences_.size(); ++i) {
    if (sequences_[i].choice.finished()) continue;
    RETURN_IF_ERROR(service_.submit(std::move(requests_[i]), [mailbox = mailbox_, i](RequestOutput output) {
      mailbox->put({i, std::move(output)});
    }));
  }
  requests_.clear();
  return {};
}

Result<Request> GenerationCall::make_request(const Sequence& sequence, size_t index) const {
  Request request;
  request.id = sequence.id;
  if (sequence.choice.finished()) return request;
  request.tokens = sequence.prompt.tokens;
  request.num_prompt_tokens = static_cast<int>(request.tokens.size());
  request.tokens.insert(request.tokens.end(), sequence.generated.begin(), sequence.generated.end());
  request.sampling = plan_.sampling;
  if (!sequence.generated.empty()) request.sampling.num_prompt_logprobs = -1;  // they were told
  request.sampling.max_tokens = sequence.prompt.max_tokens;
  // Within the prompt: a list of prompts gets what each of them would get alone.
  request.sampling.choice = static_cast<uint32_t>(index % static_cast<size_t>(plan_.choices_per_prompt));
  request.parent = sequences_[index - request.sampling.choice].id;
  request.num_choices = plan_.choices_per_prompt;
  request.priority = plan_.priority;
  request.arrival_ns = plan_.arrival_ns;
  request.cache_salt = plan_.cache_salt;
  request.client = plan_.client;
  request.is_alone = plan_.place.is_alone;
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
  for (const TokenId token : sequence.generated)
    if (request.constraint) RETURN_IF_ERROR(request.constraint->accept(token));
  return request;
}

void GenerationCall::take(Mail mail, std::string& events) {
  if (!plan_.start_record) return say(std::move(mail), events);
  // Responses tell at the end of a text all its probabilities again.
  const std::string record =
      output_record(mail.sequence, mail.output, plan_.holds_answer && plan_.sampling.num_logprobs >= 0);
  say(std::move(mail), events);
  if (over_ && !plan_.stream) events += format_whole(answer_);
  if (last_record_ == answer_log::kEnd) events += record;
  if (over_) events += last_record_;
}

void GenerationCall::say(Mail mail, std::string& events) {
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
  if (mail.output.finish != FinishReason::kNone) add_times(mail.output.times);
  if (plan_.num_best < plan_.choices_per_prompt)
    for (const SampledToken& token : mail.output.tokens) sequence.logprob_sum += token.logprob;
  const ErrorCode code = mail.output.error_code;
  ChoiceText text = sequence.choice.add(std::move(mail.output));
  if (sequence.choice.must_abort()) service_.abort(sequence.id);
  if (text.finish == FinishReason::kError)
    return text.is_impossible || text.is_own_fault
               ? fail(engine_failed(text), events)
               : give_up(engine_failed(text),
                         code == ErrorCode::kUnavailable ? answer_log::kGivenUp : answer_log::kFailed, events);
  if (text.finish == FinishReason::kAborted && (plan_.may_go_elsewhere || !plan_.format->tells_of_aborts()))
    return give_up(ApiError(503, "the server stopped before the answer was whole", "service_unavailable"),
                   answer_log::kGivenUp, events);
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
  for (const auto& [name, value] : plan_.log_headers) headers.set(name, value);
  client_.begin(200, std::move(headers));
  std::string events;
  if (!is_resumed_ && plan_.stream) plan_.format->begin(sequences_.size(), usage(), events);
  if (plan_.start_record) events += is_resumed_ ? std::string(answer_log::kPass) : *plan_.start_record;
  if (over_) co_return co_await client_.end(events + std::string(answer_log::kEnd));  // told to its end elsewhere
  co_await client_.send(std::move(events));
}

void GenerationCall::end_answer(std::string& events) {
  over_ = true;
  const Usage used = usage();
  const std::string counted = fmt::format("{} {}", used.prompt_tokens, used.completion_tokens);
  if (!plan_.stream) {
    if (plan_.num_best < plan_.choices_per_prompt) keep_the_best();
    answer_ = http::Response::json(200, plan_.format->whole(wholes_, usage()));
    for (const auto& [name, value] : plan_.headers) answer_.headers.set(name, value);
    if (plan_.tells_usage) answer_.headers.set(std::string(kUsageField), counted);
    return;
  }
  plan_.format->end(used, events);
  if (plan_.tells_usage) events += fmt::format("{}{}\n\n", kUsageComment, counted);
}

void GenerationCall::fail(const ApiError& error, std::string& events) {
  if (plan_.span) plan_.span->fail(error.message);
  over_ = true;
  abort_all();
  if (plan_.stream)
    plan_.format->fail(error, events);
  else
    answer_ = plan_.format->refusal(error, plan_.headers);
}

// Another server may do better.
void GenerationCall::give_up(const ApiError& error, std::string_view record, std::string& events) {
  last_record_ = record;
  fail(error, events);
}

void GenerationCall::abort_all() {
  for (const Sequence& sequence : sequences_) service_.abort(sequence.id);
}

void GenerationCall::add_times(const RequestTimes& times) {
  const auto merge = [](auto& all, const auto& one, auto better) {
    if (one && (!all || better(*one, *all))) all = one;
  };
  merge(times_.admission, times.admission, std::less());
  merge(times_.first_token, times.first_token, std::less());
  merge(times_.last_token, times.last_token, std::greater());
}

std::string GenerationCall::story() const {
  const RequestTimes::Time arrival{std::chrono::nanoseconds(plan_.arrival_ns)};
  const Usage used = usage();
  const auto after = [&](const char* what, const std::optional<RequestTimes::Time>& time) {
    return time ? fmt::format(", {} after {:.3f} s", what, std::chrono::duration<double>(*time - arrival).count())
                : std::string();
  };
  return fmt::format("{} prompt tokens ({} cached), {} generated in {} choices{}{}{}", used.prompt_tokens,
                     used.cached_tokens, used.completion_tokens, sequences_.size(), after("begun", times_.admission),
                     after("first token", times_.first_token), over_ ? "" : ", given up");
}

// Names are vLLM's; where several sequences run, a phase is from the first of them to the last.
void GenerationCall::trace_end() {
  telemetry::Span& span = *plan_.span;
  span.end = std::chrono::steady_clock::now();
  if (!over_ && !span.failure) span.fail("given up");
  const RequestTimes::Time arrival{std::chrono::nanoseconds(plan_.arrival_ns)};
  const auto tell = [&](const char* name, telemetry::Span::Value value) {
    span.attributes.emplace_back(name, std::move(value));
  };
  const auto tell_seconds = [&](const char* name, RequestTimes::Time from,
                                const std::optional<RequestTimes::Time>& to) {
    if (to) tell(name, std::chrono::duration<double>(*to - from).count());
  };
  const auto phase = [&](const char* name, const char* attribute, const std::optional<RequestTimes::Time>& from,
                         const std::optional<RequestTimes::Time>& to) {
    if (!from || !to) return;
    tell_seconds(attribute, *from, to);
    telemetry::Span part = telemetry::begin_span(name, telemetry::Span::Kind::kInternal, span.context);
    part.begin = *from;
    part.end = *to;
    plan_.tracer->add(std::move(part));
  };
  phase("queue", "gen_ai.latency.time_in_queue", arrival, times_.admission);
  phase("prefill", "gen_ai.latency.time_in_model_prefill", times_.admission, times_.first_token);
  phase("decode", "gen_ai.latency.time_in_model_decode", times_.first_token, times_.last_token);
  if (times_.admission) tell_seconds("gen_ai.latency.time_in_model_inference", *times_.admission, times_.last_token);
  tell_seconds("gen_ai.latency.time_to_first_token", arrival, times_.first_token);
  tell_seconds("gen_ai.latency.e2e", arrival, span.end);
  const Usage used = usage();
  tell("gen_ai.usage.prompt_tokens", int64_t{used.prompt_tokens});
  tell("gen_ai.usage.completion_tokens", int64_t{used.completion_tokens});
  tell("gen_ai.usage.num_sequences", static_cast<int64_t>(sequences_.size()));
  tell("gen_ai.request.n", int64_t{plan_.num_best});
  tell("gen_ai.request.temperature", double{plan_.sampling.temperature});
  tell("gen_ai.request.top_p", double{plan_.sampling.top_p});
  if (!plan_.prompts.empty()) tell("gen_ai.request.max_tokens", int64_t{plan_.prompts.front().max_tokens});
  plan_.tracer->add(std::move(span));
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
