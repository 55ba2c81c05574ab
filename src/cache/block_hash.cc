#include "cache/block_hash.h"

#define XXH_INLINE_ALL  // header only; the inputs are short, and inlined they cost half
#include <xxhash.h>

namespace cachalot {
namespace {

// Another function than the root's, so that no salt, which a client chooses, can pose as a block.
constexpr uint64_t kChainSeed = 0x6361636861;

BlockHash block_hash(XXH128_hash_t hash) {
  return {.low = hash.low64, .high = hash.high64};
}

}  // namespace

BlockHash root_hash(std::string_view salt, uint64_t seed) {
  return block_hash(XXH3_128bits_withSeed(salt.data(), salt.size(), seed));
}

// The parent and the number of prompt tokens are a header of fixed size, so that no two inputs read the same.
BlockHash chained_hash(const BlockHash& parent, std::span<const TokenId> tokens, int num_prompt_tokens) {
  const struct {
    uint64_t low, high, num_prompt_tokens;
  } header = {parent.low, parent.high, static_cast<uint64_t>(num_prompt_tokens)};
  XXH3_state_t state;
  XXH3_INITSTATE(&state);
  XXH3_128bits_reset_withSeed(&state, kChainSeed);
  XXH3_128bits_update(&state, &header, sizeof(header));
  XXH3_128bits_update(&state, tokens.data(), tokens.size_bytes());
  return block_hash(XXH3_128bits_digest(&state));
}

}  // namespace cachalot
