#include "cache/block_hash.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <cstring>

#include "base/check.h"

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

}  // namespace cachalot
