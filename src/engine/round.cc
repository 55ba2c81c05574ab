#include "engine/round.h"

#include <cstring>

namespace cachalot {
namespace {

constexpr uint32_t kMagic = 0x52430001;  // "CR", version 1
constexpr uint32_t kLeave = 1, kAllLogits = 2, kSample = 1, kPromptLogits = 2;

struct RoundHeader {
  uint32_t magic, num_sequences;
  uint64_t number;
  int32_t num_steps;
  uint32_t flags;
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
    std::memcpy(&value, rest_.data(), sizeof value);
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
  if (!reader.take(header) || header.magic != kMagic) return false;
  round.number = header.number;
  round.num_steps = header.num_steps;
  round.leave = (header.flags & kLeave) != 0;
  round.all_logits = (header.flags & kAllLogits) != 0;
  round.sequences.clear();
  for (uint32_t idx = 0; idx < header.num_sequences; idx++) {
    SequenceHeader fixed;
    RoundSequence sequence;
    if (!reader.take(fixed) || !reader.take(sequence.tokens, fixed.num_tokens) ||
        !reader.take(sequence.blocks, fixed.num_blocks))
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
  const RoundHeader header{kMagic, static_cast<uint32_t>(round.sequences.size()), round.number, round.num_steps,
                           (round.leave ? kLeave : 0) | (round.all_logits ? kAllLogits : 0)};
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

size_t max_round_bytes(int64_t num_sequences, int64_t num_tokens, int64_t blocks_per_sequence) {
  return sizeof(RoundHeader) + static_cast<size_t>(num_sequences) * sizeof(SequenceHeader) +
         static_cast<size_t>(num_tokens + num_sequences * blocks_per_sequence) * sizeof(int32_t);
}

}  // namespace cachalot
