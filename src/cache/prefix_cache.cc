#include "cache/prefix_cache.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <cstring>

namespace cachalot {
namespace {

// The first bytes behind the key. Of fixed size, so that no two inputs read the same; `kind` keeps a salt, which a
// client chooses, from posing as a block.
struct Header {
  enum Kind : uint64_t { kRoot = 1, kBlock = 2 };
  uint64_t kind, parent_low, parent_high, num_prompt_tokens;
};

// Fetched once: a look-up by name costs more than the hash.
const EVP_MD* sha256() {
  static const EVP_MD* const algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  CHECK(algorithm != nullptr, "OpenSSL has no SHA-256");
  return algorithm;
}

BlockHash hashed(EVP_MD_CTX* context, const BlockHashKey& key, const Header& header, std::span<const std::byte> body) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  const bool done = EVP_DigestInit_ex2(context, sha256(), nullptr) == 1 &&
                    EVP_DigestUpdate(context, key.data(), key.size()) == 1 &&
                    EVP_DigestUpdate(context, &header, sizeof(header)) == 1 &&
                    EVP_DigestUpdate(context, body.data(), body.size()) == 1 &&
                    EVP_DigestFinal_ex(context, digest.data(), nullptr) == 1;
  CHECK(done, "SHA-256 failed");
  BlockHash hash;
  std::memcpy(&hash.low, digest.data(), sizeof(hash.low));
  std::memcpy(&hash.high, digest.data() + sizeof(hash.low), sizeof(hash.high));
  return hash;
}

}  // namespace

BlockHashKey random_block_hash_key() {
  BlockHashKey key;
  CHECK(RAND_bytes(key.data(), static_cast<int>(key.size())) == 1, "the system gives no random bytes");
  return key;
}

void BlockHasher::Free::operator()(evp_md_ctx_st* context) const {
  EVP_MD_CTX_free(context);
}

BlockHasher::BlockHasher(const BlockHashKey& key) : key_(key), context_(EVP_MD_CTX_new()) {
  CHECK(context_ != nullptr, "no memory for a hash");
}

BlockHasher::~BlockHasher() = default;

BlockHash BlockHasher::root(std::string_view salt) const {
  return hashed(context_.get(), key_,
                {.kind = Header::kRoot, .parent_low = 0, .parent_high = 0, .num_prompt_tokens = 0},
                std::as_bytes(std::span(salt)));
}

BlockHash BlockHasher::chained(const BlockHash& parent, std::span<const TokenId> tokens, int num_prompt_tokens) const {
  return hashed(context_.get(), key_,
                {.kind = Header::kBlock,
                 .parent_low = parent.low,
                 .parent_high = parent.high,
                 .num_prompt_tokens = static_cast<uint64_t>(num_prompt_tokens)},
                std::as_bytes(tokens));
}

BlockPool::BlockPool(int num_blocks) : blocks_(num_blocks + 1) {
  CHECK(num_blocks > 0, "a cache of {} blocks", num_blocks);
  index_.reserve(num_blocks);
  blocks_[list()] = {.previous = list(), .next = list()};
  for (BlockId block = 0; block < num_blocks; block++) insert_before(list(), block);
}

void BlockPool::insert_before(BlockId place, BlockId block) {
  Block& entry = blocks_[block];
  entry.next = place;
  entry.previous = blocks_[place].previous;
  blocks_[entry.previous].next = block;
  blocks_[place].previous = block;
  num_idle_++;
}

void BlockPool::unlink(BlockId block) {
  const Block& entry = blocks_[block];
  blocks_[entry.previous].next = entry.next;
  blocks_[entry.next].previous = entry.previous;
  num_idle_--;
}

BlockId BlockPool::take() {
  CHECK(num_idle_ > 0, "all {} blocks are held", num_blocks());
  const BlockId block = blocks_[list()].next;
  Block& entry = blocks_[block];
  unlink(block);
  if (entry.is_published) index_.erase(entry.hash);
  entry.is_published = false;
  entry.num_references = 1;
  return block;
}

void BlockPool::add_reference(BlockId block) {
  if (blocks_[block].num_references++ == 0) unlink(block);
}

void BlockPool::release(BlockId block) {
  Block& entry = blocks_[block];
  CHECK(entry.num_references > 0, "block {} is released, but nobody holds it", block);
  if (--entry.num_references > 0) return;
  insert_before(entry.is_published ? list() : blocks_[list()].next, block);
}

void BlockPool::publish(BlockId block, const BlockHash& hash) {
  Block& entry = blocks_[block];
  CHECK(entry.num_references > 0 && !entry.is_published, "block {} is published twice, or held by nobody", block);
  if (!index_.emplace(hash, block).second) return;
  entry.is_published = true;
  entry.hash = hash;
}

std::optional<BlockId> BlockPool::find(const BlockHash& hash) const {
  const auto found = index_.find(hash);
  return found == index_.end() ? std::nullopt : std::optional(found->second);
}

void BlockPool::forget() {
  for (Block& entry : blocks_) entry.is_published = false;
  index_.clear();
}

PrefixCache::PrefixCache(const PrefixCacheOptions& options)
    : options_(options), hasher_(options.hash_key), pool_(options.num_blocks) {
  CHECK(options_.block_size > 0, "blocks of {} tokens", options_.block_size);
}

void PrefixCache::extend_hashes(BlockTable& table, const SequenceTokens& sequence, int num_blocks) const {
  const int block_size = options_.block_size;
  for (int idx = static_cast<int>(table.hashes.size()); idx < num_blocks; idx++) {
    const int begin = idx * block_size;
    const int num_prompt_tokens =
        options_.across_roles ? 0 : std::clamp(sequence.num_prompt_tokens - begin, 0, block_size);
    const BlockHash parent = idx == 0 ? hasher_.root(sequence.salt) : table.hashes.back();
    table.hashes.push_back(hasher_.chained(parent, sequence.tokens.subspan(begin, block_size), num_prompt_tokens));
  }
}

PrefixCache::Match PrefixCache::find(BlockTable& table, const SequenceTokens& sequence, int max_tokens) const {
  Match match;
  if (!options_.enabled) return match;
  const int max_blocks = max_tokens / options_.block_size;
  while (match.num_blocks < max_blocks) {
    extend_hashes(table, sequence, match.num_blocks + 1);
    const std::optional<BlockId> block = pool_.find(table.hashes[match.num_blocks]);
    if (!block) break;
    match.num_blocks++;
    match.num_idle += pool_.num_references(*block) == 0;
  }
  return match;
}

int PrefixCache::num_idle_needed(const Match& match, int num_slots) const {
  return num_blocks_for(num_slots) - match.num_blocks + match.num_idle;
}

void PrefixCache::acquire(BlockTable& table, const Match& match) {
  CHECK(table.blocks.empty() && table.num_published == 0);
  for (int idx = 0; idx < match.num_blocks; idx++) {
    const std::optional<BlockId> block = pool_.find(table.hashes[idx]);
    CHECK(block, "a block that was found is gone; nothing may be taken between find and acquire");
    pool_.add_reference(*block);
    table.blocks.push_back(*block);
  }
  table.num_published = match.num_blocks;
}

bool PrefixCache::grow(BlockTable& table, int num_slots) {
  const int num_missing = num_blocks_for(num_slots) - static_cast<int>(table.blocks.size());
  if (num_missing > pool_.num_idle()) return false;
  for (int count = 0; count < num_missing; count++) table.blocks.push_back(pool_.take());
  return true;
}

void PrefixCache::publish(BlockTable& table, const SequenceTokens& sequence, int num_computed) {
  const int num_full = num_computed / options_.block_size;
  if (!options_.enabled || num_full <= table.num_published) return;
  extend_hashes(table, sequence, num_full);
  for (int idx = table.num_published; idx < num_full; idx++) pool_.publish(table.blocks[idx], table.hashes[idx]);
  table.num_published = num_full;
}

void PrefixCache::release(BlockTable& table) {
  // From the end, so that of two idle blocks of a prefix the later one, useless without the earlier, is taken first.
  for (auto block = table.blocks.rbegin(); block != table.blocks.rend(); ++block) pool_.release(*block);
  table.blocks.clear();
  table.num_published = 0;
}

void PrefixCache::forget() {
  CHECK(pool_.num_held() == 0, "{} blocks are held", pool_.num_held());
  pool_.forget();
}

}  // namespace cachalot
