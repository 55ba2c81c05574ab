#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "core/types.h"

struct evp_md_ctx_st;  // OpenSSL's

namespace cachalot {

// Names a full block by everything that its contents follow from: all tokens up to its end with their roles, and the
// tenant.
struct BlockHash {
  uint64_t low = 0, high = 0;
  auto operator<=>(const BlockHash&) const = default;
};

// Drawn where a replica starts, and told to nobody.
using BlockHashKey = std::array<uint8_t, 32>;

BlockHashKey random_block_hash_key();

// Gives blocks their names: SHA-256, keyed in every link and cut to 128 bits. A hit compares no tokens, so whoever
// could find two blocks of one name could change what another's prompt means; without the key nobody can tell which
// blocks to look for. Used by one thread.
class BlockHasher {
 public:
  explicit BlockHasher(const BlockHashKey& key);
  ~BlockHasher();

  // What comes before a sequence's first block. Equal salts (tenants) share blocks, others never.
  BlockHash root(std::string_view salt) const;
  // The block that follows `parent`: its first num_prompt_tokens tokens have the role prompt, the others were
  // generated. 0.3 us for 64 tokens with the CPU's SHA instructions, 1 us without: a prompt of 128k tokens is named in
  // 0.6 to 2 ms.
  BlockHash chained(const BlockHash& parent, std::span<const TokenId> tokens, int num_prompt_tokens) const;

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };

  BlockHashKey key_;
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

}  // namespace cachalot
