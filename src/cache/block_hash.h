#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/types.h"

namespace cachalot {

// Names a full block by everything that its contents follow from: all tokens up to its end with their roles, and the
// tenant.
struct BlockHash {
  uint64_t low = 0, high = 0;
  auto operator<=>(const BlockHash&) const = default;
};

// What comes before a sequence's first block. Equal salts (tenants) share blocks, others never. `seed` is drawn at the
// process's start, so that nobody outside can prepare two prompts of one hash.
BlockHash root_hash(std::string_view salt, uint64_t seed);

// The block that follows `parent`: its first num_prompt_tokens tokens have the role prompt, the others were generated.
BlockHash chained_hash(const BlockHash& parent, std::span<const TokenId> tokens, int num_prompt_tokens);

}  // namespace cachalot
