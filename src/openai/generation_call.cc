#include "openai/generation_call.h"

#include <algorithm>
#include <boost/json/array.hpp>

#include "config/json_text.h"
#include "http/sse.h"

namespace cachalot::openai {

namespace json = boost::json;

namespace {

ChoiceOptions with_thought(ChoiceOptions options, bool starts_in_thought) {
  options.starts_in_thought = starts_in_thought;
  return options;
}

}  // namespace

GenerationCall::Sequence::Sequence(const Tokenizer& tokenizer, ChoiceOptions given, const Prompt& prompt)
    : prompt(prompt), options(std::move(given)), choice(tokenizer, options, prompt) {}

GenerationCall::GenerationCall(GenerationService& service, const Tokenizer& tokenizer, const http::IoThreads& threads,
                               http::Responder responder, GenerationPlan plan)
    : service_(service),
      tokenizer_(tokenizer),
      threads_(threads),
      responder_(std::move(responder)),
      plan_(std::move(plan)) {}

GenerationCall::~GenerationCall() {
  if (plan_.budget) plan_.budget->give_back(num_held_bytes_);
}

void GenerationCall::start() {
  for (const Prompt& prompt : plan_.prompts)
    for (int i = 0; i < plan_.choices_per_prompt; ++i) {
      sequences_.push_back(
          std::make_unique<Sequence>(tokenizer_, with_thought(plan_.choice, prompt.opens_thought), prompt));
      sequences_.back()->id = service_.next_id();
    }
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const Status status = service_.submit(
        make_request(*sequences_[i], i),
        [self = shared_from_this(), i](RequestOutput output) { self->post_mail({i, std::move(output)}); });
    if (status) continue;
    for (size_t earlier = 0; earlier < i; ++earlier) service_.abort(sequences_[earlier]->id);
    return responder_.respond(ApiError(status.error()).to_response(plan_.headers));
  }
  responder_.on_close([self = shared_from_this()] { self->abort_all(); });
  if (plan_.stream) begin_stream();
  std::unique_lock lock(mutex_);
  reading_ = false;
  schedule(std::move(lock));
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
  request.parent = sequences_[index - request.sampling.choice]->id;
  request.num_choices = plan_.choices_per_prompt;
  request.priority = plan_.priority;
  request.arrival_ns = plan_.arrival_ns;
  request.cache_salt = plan_.cache_salt;
  return request;
}

void GenerationCall::post_mail(Mail mail) {
  std::unique_lock lock(mutex_);
  mailbox_.push_back(std::move(mail));
  schedule(std::move(lock));
}

void GenerationCall::schedule(std::unique_lock<std::mutex> lock) {
  if (mailbox_.empty() || std::exchange(reading_, true)) return;
  lock.unlock();
  threads_.post([self = shared_from_this()] { self->read_mail(); });
}

void GenerationCall::read_mail() {
  std::vector<Mail> mail;
  {
    std::lock_guard lock(mutex_);
    mail.swap(mailbox_);
  }
  std::string events;
  for (Mail& item : mail)
    if (!over_) take(std::move(item), events);
  if (!events.empty()) responder_.write(std::move(events));
  if (over_ && plan_.stream) responder_.end();
  std::unique_lock lock(mutex_);
  reading_ = false;
  schedule(std::move(lock));
}

void GenerationCall::take(Mail mail, std::string& events) {
  Sequence& sequence = *sequences_[mail.sequence];
  if (sequence.choice.finished()) return;
  if (!may_hold(mail.output))
    return fail(
        ApiError(429,
                 fmt::format("the answers under way hold {} MiB, as many as may; ask for fewer probabilities or "
                             "choices, or stream the answer",
                             plan_.budget->limit() >> 20),
                 "rate_limit_error", "", "answers_too_large"),
        events);
  ChoiceText text = sequence.choice.add(std::move(mail.output));
  if (sequence.choice.must_abort()) service_.abort(sequence.id);
  if (text.finish == FinishReason::kError)
    return fail(ApiError(500, "the engine failed: " + text.error, "server_error"), events);
  if (plan_.stream) {
    if (text.has_news()) {
      std::string choice;
      plan_.format->append_chunk_choice(mail.sequence, text, choice);
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

void GenerationCall::begin_stream() {
  http::Headers headers = plan_.headers;
  headers.set("Content-Type", "text/event-stream; charset=utf-8");
  headers.set("Cache-Control", "no-cache");
  responder_.begin(200, std::move(headers));
  if (!plan_.format->has_opening()) return;
  std::string events;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    std::string choice;
    plan_.format->append_opening_choice(i, choice);
    add_chunk(choice, events);
  }
  responder_.write(std::move(events));
}

void GenerationCall::end_answer(std::string& events) {
  over_ = true;
  if (!plan_.stream) {
    http::Response response = http::Response::json(200, whole_answer());
    for (const auto& [name, value] : plan_.headers) response.headers.set(name, value);
    return responder_.respond(std::move(response));
  }
  if (plan_.include_usage) {
    events += http::format_sse(plan_.format->chunk({}, usage().to_json()));
  }
  events += http::format_sse("[DONE]");
}

// The stream of an answer that broke off ends with the error and without [DONE].
void GenerationCall::fail(const ApiError& error, std::string& events) {
  over_ = true;
  abort_all();
  if (plan_.stream)
    events += http::format_sse(json_text(error.to_json()));
  else
    responder_.respond(error.to_response(plan_.headers));
}

void GenerationCall::abort_all() {
  for (const auto& sequence : sequences_) service_.abort(sequence->id);
}

// A choice's probabilities are given up as soon as they are written.
std::string GenerationCall::whole_answer() {
  std::string choices;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    if (i > 0) choices += ',';
    plan_.format->append_whole_choice(i, std::exchange(sequences_[i]->whole, {}), choices);
  }
  return plan_.format->whole(choices, usage());
}

Usage GenerationCall::usage() const {
  Usage usage;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const Choice& choice = sequences_[i]->choice;
    usage.completion_tokens += choice.num_generated();
    usage.reasoning_tokens += choice.num_reasoning();
    // A prompt counts once, however many choices it has.
    if (i % static_cast<size_t>(plan_.choices_per_prompt) != 0) continue;
    usage.prompt_tokens += static_cast<int>(sequences_[i]->prompt.tokens.size());
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
