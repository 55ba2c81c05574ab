#pragma once

#include <cstdint>

// Numbers that all layers speak in.
namespace cachalot {

// The numbers by which tokens, blocks and requests are known everywhere, and how a request ends.
using TokenId = int32_t;
using BlockId = int32_t;                       // index of a block of the KV cache
inline constexpr int kMaxVocabSize = 1 << 24;  // of any model
using RequestId = uint64_t;                    // one choice of one API request; unique in a replica's life

enum class FinishReason : uint8_t {
  kNone,     // still going
  kStop,     // end of sequence, a stop id, or (decided above the engine) a stop string
  kLength,   // max_tokens or max_model_len
  kAborted,  // the client went away or the server drains
  kError,    // the engine failed; the message says why
};

}  // namespace cachalot
