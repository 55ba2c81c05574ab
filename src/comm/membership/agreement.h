#pragma once

#include <optional>
#include <string_view>

#include "comm/membership/member.h"
#include "comm/membership/wire.h"

namespace cachalot::control {

// Proof of the group secret, which itself never travels: HMAC-SHA256 keyed with it, over the nonces of both sides and
// what the prover says. It keeps strangers out; it neither hides what is said nor protects it afterwards.

// A rank proves it with its Hello, against rank 0's nonce.
Proof proof_of_hello(std::string_view secret, const Nonce& rank0_nonce, Hello hello);
// Rank 0 proves it in return, so that a rank tells nobody else what is in its heartbeats.
Proof proof_of_rank0(std::string_view secret, const Nonce& rank0_nonce, const Nonce& rank_nonce);

bool equal(const Proof& left, const Proof& right);  // in constant time
// HMAC-SHA256. The first word of each kind of message differs, so that no side's proof serves the other.
Proof keyed_hash(std::string_view secret, const std::string& message);

// What the ranks of a group must agree on, compared by rank 0. Every error reads the same on all ranks: it names the
// key, both values and both ranks with their hosts.

// What this process says of itself; without nonce and proof.
Result<Hello> hello_of(const JoinOptions& options);
Member member_of(const Hello& hello, std::string_view control_address);

// Another version of the control protocol, of which only the introduction can be read.
Error protocol_error(const Introduction& rank0, const Introduction& other, uint16_t protocol);
Error doubled_rank_error(const Hello& first, const Hello& second);

// Nothing where the other may join. `nonce` is that of the challenge which it answers.
std::optional<Error> find_wrong_secret(std::string_view secret, const Nonce& nonce, const Hello& rank0,
                                       const Hello& other);
std::optional<Error> find_difference(const Hello& rank0, const Hello& other);

}  // namespace cachalot::control
