#pragma once

#include <cstdint>
#include <span>

#include "base/error.h"
#include "core/types.h"

namespace cachalot {

// Which tokens may come next (a grammar, a JSON schema). Implemented in text/, injected by serve/, driven by the
// sampler. Used by one thread at a time.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  // Clears the bits of the tokens that may not come next. mask: one bit a token, ceil(vocab_size / 32) words, set on
  // entry.
  virtual Status fill_mask(std::span<uint32_t> mask) = 0;
  virtual Status accept(TokenId token) = 0;
  // Takes back the last accepted tokens.
  virtual Status rollback(int num_tokens) = 0;
  // The end-of-sequence token is allowed now.
  virtual bool may_stop() const = 0;
};

}  // namespace cachalot
