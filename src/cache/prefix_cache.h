#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/error.h"
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

// The blocks of the KV cache by number: who holds them, and which contents can be found again. A block is
//   held     by one sequence or more (references > 0), or
//   idle     held by nobody: empty, or cached (its contents have a name in the index and may be wanted again).
// Idle blocks stand in one list, the next to be taken first: empty ones, then cached ones, the longest unused first.
// Used by one thread.
class BlockPool {
 public:
  explicit BlockPool(int num_blocks);

  int num_blocks() const { return static_cast<int>(blocks_.size()) - 1; }
  int num_idle() const { return num_idle_; }
  int num_held() const { return num_blocks() - num_idle_; }
  int num_references(BlockId block) const { return blocks_[block].num_references; }

  // Takes an idle block, with one reference; what it held is forgotten. There must be one.
  BlockId take();
  void add_reference(BlockId block);
  // Gives one reference back. The last holder's release makes the block idle.
  void release(BlockId block);

  // Names the contents of a held block. If another block has that name already, this one stays nameless.
  void publish(BlockId block, const BlockHash& hash);
  std::optional<BlockId> find(const BlockHash& hash) const;
  // Takes all names away.
  void forget();

 private:
  friend Status check_integrity(const BlockPool& pool);  // of tests
  struct Block {
    BlockId previous = 0, next = 0;  // neighbours in the idle list
    int num_references = 0;
    bool is_published = false;
    BlockHash hash;  // if published
  };
  struct HashOfHash {
    size_t operator()(const BlockHash& hash) const { return hash.low; }
  };

  BlockId list() const { return num_blocks(); }  // the idle list's ends meet in one extra entry
  void insert_before(BlockId place, BlockId block);
  void unlink(BlockId block);

  std::vector<Block> blocks_;
  int num_idle_ = 0;
  std::unordered_map<BlockHash, BlockId, HashOfHash> index_;
};

struct PrefixCacheOptions {
  int num_blocks = 0;
  int block_size = 64;
  bool enabled = true;        // off: blocks are handed out, but nothing is found again
  bool across_roles = false;  // on: roles are left out of the hash, so that an answer in the next prompt is found
  BlockHashKey hash_key = {};
};

// What a sequence says about itself.
struct SequenceTokens {
  std::span<const TokenId> tokens;  // all known ones; only ever appended to
  int num_prompt_tokens = 0;
  std::string_view salt;
};

// The blocks that one sequence holds, in the order of its positions. Kept by the sequence's owner, changed by
// PrefixCache.
struct BlockTable {
  std::vector<BlockId> blocks;
  std::vector<BlockHash> hashes;  // of its leading full blocks, as far as they were needed; they outlive the blocks
  int num_published = 0;          // leading blocks that were found in or put into the index
};

// Gives sequences their blocks, and shares the blocks of equal prefixes: bookkeeping, no tensors. A shared block is
// full and never written again: sequences write only behind what they found. Used by one thread.
class PrefixCache {
 public:
  explicit PrefixCache(const PrefixCacheOptions& options);

  struct Match {
    int num_blocks = 0;  // leading blocks that the index holds
    int num_idle = 0;    // those of them that nobody holds: acquiring them takes from the idle ones
  };
  // The longest cached prefix of at most max_tokens tokens. Takes nothing.
  Match find(BlockTable& table, const SequenceTokens& sequence, int max_tokens) const;

  // Idle blocks that a sequence without blocks needs to start from `match` with room for num_slots tokens.
  int num_idle_needed(const Match& match, int num_slots) const;
  // Starts an empty table with the match's blocks.
  void acquire(BlockTable& table, const Match& match);
  // Further blocks until there is room for num_slots tokens; takes all or, if too few are idle, none.
  bool grow(BlockTable& table, int num_slots);
  // Puts the full blocks among the first num_computed tokens into the index.
  void publish(BlockTable& table, const SequenceTokens& sequence, int num_computed);
  // Gives all blocks back; what was published can be found until the room is needed, the prefix's end going first.
  void release(BlockTable& table);
  // What the blocks held is lost: nothing is found any more. No sequence has blocks.
  void forget();

  int block_size() const { return options_.block_size; }
  int num_blocks_for(int num_slots) const { return (num_slots + options_.block_size - 1) / options_.block_size; }
  const BlockPool& pool() const { return pool_; }

 private:
  void extend_hashes(BlockTable& table, const SequenceTokens& sequence, int num_blocks) const;

  PrefixCacheOptions options_;
  BlockHasher hasher_;
  BlockPool pool_;
};

}  // namespace cachalot
