#include "engine/round.h"

#include <algorithm>
#include <cstring>

namespace cachalot {
namespace {

int prompt_count(const RoundSequence& sequence) {
  return std::clamp(sequence.num_prompt_tokens - sequence.first_position, 0, sequence.num_tokens);
}

}  // namespace

StepBatch::StepBatch(int64_t max_rows, int block_size) : block_size_(block_size) {
  const auto rows = static_cast<size_t>(max_rows);
  sequences_.reserve(rows);
  token_ids_.reserve(rows);
  positions_.reserve(rows);
  slots_.reserve(rows);
  prompts_.reserve(rows);
  generated_.reserve(rows);
  first_rows_.reserve(rows);
}

void StepBatch::clear() {
  sequences_.clear();
  token_ids_.clear();
  positions_.clear();
  slots_.clear();
  prompts_.clear();
  generated_.clear();
  first_rows_.clear();
}

void StepBatch::add_row(const RoundSequence& sequence, int position) {
  token_ids_.push_back(sequence.tokens[static_cast<size_t>(position - sequence.first_position)]);
  positions_.push_back(position);
  const BlockId block = sequence.blocks[static_cast<size_t>(position / block_size_)];
  slots_.push_back(int64_t{block} * block_size_ + position % block_size_);
}

ModelBatch StepBatch::build(uint64_t step) {
  for (const RoundSequence& sequence : sequences_) {
    const int num_prompt = prompt_count(sequence);
    first_rows_.push_back({.prompt = static_cast<int64_t>(token_ids_.size())});
    if (num_prompt == 0) continue;
    prompts_.push_back({.first_row = static_cast<int64_t>(token_ids_.size()),
                        .num_rows = num_prompt,
                        .first_position = sequence.first_position,
                        .blocks = sequence.blocks});
    for (int idx = 0; idx < num_prompt; idx++) add_row(sequence, sequence.first_position + idx);
  }
  for (size_t idx = 0; idx < sequences_.size(); idx++) {
    const RoundSequence& sequence = sequences_[idx];
    first_rows_[idx].generated = static_cast<int64_t>(token_ids_.size());
    for (int position = sequence.first_position + prompt_count(sequence);
         position < sequence.first_position + sequence.num_tokens; position++) {
      add_row(sequence, position);
      generated_.push_back({.position = position, .blocks = sequence.blocks});
    }
  }
  return {.token_ids = View<const int32_t, 1>(token_ids_.data(), token_ids_.size()),
          .positions = View<const int32_t, 1>(positions_.data(), positions_.size()),
          .slots = View<const int64_t, 1>(slots_.data(), slots_.size()),
          .prompts = prompts_,
          .generated = generated_,
          .block_size = block_size_,
          .step = step};
}

int32_t StepBatch::row_of(size_t sequence_idx, int position) const {
  const RoundSequence& sequence = sequences_[sequence_idx];
  const int offset = position - sequence.first_position, num_prompt = prompt_count(sequence);
  CHECK(offset >= 0 && offset < sequence.num_tokens);
  const FirstRows& first = first_rows_[sequence_idx];
  return static_cast<int32_t>(offset < num_prompt ? first.prompt + offset : first.generated + offset - num_prompt);
}

namespace {

constexpr uint32_t kMagic = 0x52430002;  // "CR", version 2
constexpr uint32_t kLeave = 1, kAllLogits = 2, kSample = 1, kPromptLogits = 2;
constexpr uint32_t kRoundFlags = kLeave | kAllLogits, kSequenceFlags = kSample | kPromptLogits;

struct RoundHeader {
  uint32_t magic, num_sequences;
  uint64_t number;
  int32_t num_steps;
  uint32_t flags;
  uint32_t epoch, zero;
};
struct SequenceHeader {
  int32_t first_position, num_tokens, num_prompt_tokens, num_blocks;
  uint32_t flags;
};

void append(std::vector<std::byte>& bytes, const void* data, size_t size) {
  const auto* begin = static_cast<const std::byte*>(data);
  bytes.insert(bytes.end(), begin, begin + size);
}

// Takes values from the front of a message, and never more than it has.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : rest_(bytes) {}
  template <class T>
  bool take(T& value) {
    if (rest_.size() < sizeof value) return false;
    std::memcpy(&value, rest_.data(), sizeof value);  // host: a message
    rest_ = rest_.subspan(sizeof value);
    return true;
  }
  bool take(std::span<const int32_t>& values, int32_t count) {
    if (count < 0 || rest_.size() / sizeof(int32_t) < static_cast<size_t>(count)) return false;
    values = {reinterpret_cast<const int32_t*>(rest_.data()), static_cast<size_t>(count)};
    rest_ = rest_.subspan(values.size_bytes());
    return true;
  }
  bool at_end() const { return rest_.empty(); }

 private:
  std::span<const std::byte> rest_;
};

bool decode(Reader reader, Round& round) {
  RoundHeader header;
  if (!reader.take(header) || header.magic != kMagic || (header.flags & ~kRoundFlags) != 0) return false;
  round.number = header.number;
  round.epoch = header.epoch;
  round.num_steps = header.num_steps;
  round.leave = (header.flags & kLeave) != 0;
  round.all_logits = (header.flags & kAllLogits) != 0;
  round.sequences.clear();
  for (uint32_t idx = 0; idx < header.num_sequences; idx++) {
    SequenceHeader fixed;
    RoundSequence sequence;
    if (!reader.take(fixed) || (fixed.flags & ~kSequenceFlags) != 0 ||
        !reader.take(sequence.tokens, fixed.num_tokens) || !reader.take(sequence.blocks, fixed.num_blocks))
      return false;
    sequence.first_position = fixed.first_position;
    sequence.num_tokens = fixed.num_tokens;
    sequence.num_prompt_tokens = fixed.num_prompt_tokens;
    sequence.sample = (fixed.flags & kSample) != 0;
    sequence.prompt_logits = (fixed.flags & kPromptLogits) != 0;
    round.sequences.push_back(sequence);
  }
  return reader.at_end();
}

}  // namespace

void encode_round(const Round& round, std::vector<std::byte>& bytes) {
  bytes.clear();
  const RoundHeader header{kMagic,
                           static_cast<uint32_t>(round.sequences.size()),
                           round.number,
                           round.num_steps,
                           (round.leave ? kLeave : 0) | (round.all_logits ? kAllLogits : 0),
                           round.epoch,
                           0};
  append(bytes, &header, sizeof header);
  for (const RoundSequence& sequence : round.sequences) {
    const SequenceHeader fixed{sequence.first_position, sequence.num_tokens, sequence.num_prompt_tokens,
                               static_cast<int32_t>(sequence.blocks.size()),
                               (sequence.sample ? kSample : 0) | (sequence.prompt_logits ? kPromptLogits : 0)};
    append(bytes, &fixed, sizeof fixed);
    append(bytes, sequence.tokens.data(), sequence.tokens.size_bytes());
    append(bytes, sequence.blocks.data(), sequence.blocks.size_bytes());
  }
}

Status decode_round(std::span<const std::byte> bytes, Round& round) {
  if (decode(Reader(bytes), round)) return {};
  return make_error(ErrorCode::kCorrupt, "the leader's round of {} bytes cannot be read", bytes.size());
}

size_t RoundLimits::max_round_bytes() const {
  const int64_t num_numbers = max_rows + int64_t{max_num_seqs} * blocks_per_sequence();
  return sizeof(RoundHeader) + static_cast<size_t>(max_num_seqs) * sizeof(SequenceHeader) +
         static_cast<size_t>(num_numbers) * sizeof(int32_t);
}

Status check_step(const RoundSequence& sequence, const RoundLimits& limits) {
  const int64_t end = int64_t{sequence.first_position} + sequence.num_tokens;
  const int64_t room = std::ssize(sequence.blocks) * limits.block_size;
  if (sequence.first_position < 0 || sequence.num_tokens < 1 || end > std::min<int64_t>(room, limits.max_model_len))
    return make_error(ErrorCode::kCorrupt,
                      "{} tokens from position {} on; its {} blocks have {} slots, and max_model_len is {}",
                      sequence.num_tokens, sequence.first_position, sequence.blocks.size(), room, limits.max_model_len);
  return {};
}

namespace {

Status check_sequence(const RoundSequence& sequence, const Round& round, const RoundLimits& limits) {
  RETURN_IF_ERROR(check_step(sequence, limits));
  if (std::ssize(sequence.blocks) > limits.blocks_per_sequence())
    return make_error(ErrorCode::kCorrupt, "{} blocks; a sequence has at most {}", sequence.blocks.size(),
                      limits.blocks_per_sequence());
  if (sequence.num_prompt_tokens < 0 || sequence.num_prompt_tokens > limits.max_model_len)
    return make_error(ErrorCode::kCorrupt, "{} prompt tokens; max_model_len is {}", sequence.num_prompt_tokens,
                      limits.max_model_len);
  // What a later step brings was sampled by the one before.
  if (round.num_steps > 1 && (sequence.num_tokens != 1 || !sequence.sample))
    return make_error(ErrorCode::kCorrupt, "{} tokens{} in a round of {} steps", sequence.num_tokens,
                      sequence.sample ? "" : ", of which none is sampled,", round.num_steps);
  const auto is_outside = [](int32_t limit) { return [=](int32_t id) { return id < 0 || id >= limit; }; };
  if (const auto block = std::ranges::find_if(sequence.blocks, is_outside(limits.num_blocks));
      block != sequence.blocks.end())
    return make_error(ErrorCode::kCorrupt, "block {}; this rank has {} blocks", *block, limits.num_blocks);
  if (const auto token = std::ranges::find_if(sequence.tokens, is_outside(limits.vocab_size));
      token != sequence.tokens.end())
    return make_error(ErrorCode::kCorrupt, "token {}; the vocabulary has {}", *token, limits.vocab_size);
  return {};
}

Status check_counts(const Round& round, const RoundLimits& limits) {
  const int max_steps = round.all_logits ? 1 : limits.max_steps;
  if (round.num_steps < 1 || round.num_steps > max_steps)
    return make_error(ErrorCode::kCorrupt, "{} steps; it may have 1 to {}", round.num_steps, max_steps);
  if (std::ssize(round.sequences) > (round.all_logits ? 1 : limits.max_num_seqs) ||
      (round.all_logits && round.sequences.empty()))
    return make_error(ErrorCode::kCorrupt, "{} sequences{}; at most {} run at once", round.sequences.size(),
                      round.all_logits ? " of which all logits are wanted" : "",
                      round.all_logits ? 1 : limits.max_num_seqs);
  int64_t num_rows = 0;
  for (const RoundSequence& sequence : round.sequences) num_rows += sequence.num_tokens;
  if (num_rows > limits.max_rows)
    return make_error(ErrorCode::kCorrupt, "{} token rows; a step has at most {}", num_rows, limits.max_rows);
  return {};
}

}  // namespace

Status check_round(const Round& round, const RoundLimits& limits) {
  if (round.leave && round.sequences.empty()) return {};
  const auto refused = [&](const std::string& where, const Error& error) {
    return make_error(error.code, "this rank refuses the leader's round {}: {}{}", round.number, where, error.message);
  };
  if (const Status counts = check_counts(round, limits); !counts) return refused("", counts.error());
  for (size_t idx = 0; idx < round.sequences.size(); idx++) {
    if (const Status sequence = check_sequence(round.sequences[idx], round, limits); !sequence)
      return refused(fmt::format("sequence {} of {}: ", idx, round.sequences.size()), sequence.error());
  }
  return {};
}

}  // namespace cachalot
