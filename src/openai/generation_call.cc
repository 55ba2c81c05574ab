#include "openai/generation_call.h"

#include <algorithm>
#include <boost/json/array.hpp>

#include "config/json_text.h"
#include "http/sse.h"
#include "openai/api_error.h"

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
  ChoiceText text = sequence.choice.add(std::move(mail.output));
  if (sequence.choice.must_abort()) service_.abort(sequence.id);
  if (text.finish == FinishReason::kError) return fail(text.error, events);
  if (plan_.stream) {
    if (text.has_news()) add_chunk(plan_.format->chunk_choice(mail.sequence, text), events);
  } else {
    sequence.whole.append(std::move(text));
  }
  if (sequence.choice.finished() && ++num_finished_ == sequences_.size()) end_answer(events);
}

void GenerationCall::begin_stream() {
  http::Headers headers = plan_.headers;
  headers.set("Content-Type", "text/event-stream; charset=utf-8");
  headers.set("Cache-Control", "no-cache");
  responder_.begin(200, std::move(headers));
  if (!plan_.format->has_opening()) return;
  std::string events;
  for (size_t i = 0; i < sequences_.size(); ++i) add_chunk(plan_.format->opening_choice(i), events);
  responder_.write(std::move(events));
}

void GenerationCall::end_answer(std::string& events) {
  over_ = true;
  if (!plan_.stream) {
    http::Response response = http::Response::json(200, json_text(whole_answer()));
    for (const auto& [name, value] : plan_.headers) response.headers.set(name, value);
    return responder_.respond(std::move(response));
  }
  if (plan_.include_usage) {
    json::object chunk = plan_.format->chunk({});
    chunk["usage"] = usage();
    events += http::format_sse(json_text(chunk));
  }
  events += http::format_sse("[DONE]");
}

// The stream of an answer that broke off ends with the error and without [DONE].
void GenerationCall::fail(const std::string& message, std::string& events) {
  over_ = true;
  abort_all();
  const ApiError error(500, "the engine failed: " + message, "server_error");
  if (plan_.stream)
    events += http::format_sse(json_text(error.to_json()));
  else
    responder_.respond(error.to_response(plan_.headers));
}

void GenerationCall::abort_all() {
  for (const auto& sequence : sequences_) service_.abort(sequence->id);
}

json::object GenerationCall::whole_answer() {
  json::array choices;
  for (size_t i = 0; i < sequences_.size(); ++i) choices.push_back(plan_.format->whole_choice(i, sequences_[i]->whole));
  json::object answer = plan_.format->whole(std::move(choices));
  answer["usage"] = usage();
  return answer;
}

json::object GenerationCall::usage() const {
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
  return usage.to_json();
}

void GenerationCall::add_chunk(json::object choice, std::string& events) const {
  json::array choices;
  choices.push_back(std::move(choice));
  json::object chunk = plan_.format->chunk(std::move(choices));
  if (plan_.continuous_usage)
    chunk["usage"] = usage();
  else if (plan_.include_usage)
    chunk["usage"] = nullptr;
  events += http::format_sse(json_text(chunk));
}

}  // namespace cachalot::openai
