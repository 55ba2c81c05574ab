#include "comm/membership/secret.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "base/error.h"
#include "base/math.h"

namespace cachalot::control {

namespace {

Proof hmac(std::string_view secret, const std::string& message) {
  Proof proof{};
  unsigned int size = 0;
  const unsigned char* done =
      HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
           reinterpret_cast<const unsigned char*>(message.data()), message.size(), proof.data(), &size);
  CHECK(done != nullptr && size == proof.size(), "HMAC-SHA256 failed");
  return proof;
}

}  // namespace

Nonce random_nonce() {
  Nonce nonce{};
  CHECK(RAND_bytes(nonce.data(), static_cast<int>(nonce.size())) == 1, "the system gives no random bytes");
  return nonce;
}

// The first word of each proof's message differs, so that no side's proof serves the other.
Proof proof_of_hello(std::string_view secret, const Nonce& rank0_nonce, Hello hello) {
  hello.proof = {};
  Writer message;
  message(std::string("cachalot hello"), rank0_nonce, hello);
  return hmac(secret, message.take());
}

Proof proof_of_rank0(std::string_view secret, const Nonce& rank0_nonce, const Nonce& rank_nonce) {
  Writer message;
  message(std::string("cachalot rank 0"), rank0_nonce, rank_nonce);
  return hmac(secret, message.take());
}

bool equal(const Proof& left, const Proof& right) {
  const auto text = [](const Proof& proof) {
    return std::string_view(reinterpret_cast<const char*>(proof.data()), proof.size());
  };
  return equal_in_constant_time(text(left), text(right));
}

}  // namespace cachalot::control
