#pragma once

#include <string>
#include <string_view>

#include "comm/membership/wire.h"

// Proof of the group secret, which itself never travels: HMAC-SHA256 keyed with it, over the nonces of both sides and
// what the prover says. It keeps strangers out; it neither hides what is said nor protects it afterwards.
namespace cachalot::control {

Nonce random_nonce();

// A rank proves it with its Hello, against rank 0's nonce.
Proof proof_of_hello(std::string_view secret, const Nonce& rank0_nonce, Hello hello);
// Rank 0 proves it in return, so that a rank tells nobody else what is in its heartbeats.
Proof proof_of_rank0(std::string_view secret, const Nonce& rank0_nonce, const Nonce& rank_nonce);

bool equal(const Proof& left, const Proof& right);  // in constant time

}  // namespace cachalot::control
