#include "comm/membership/agreement.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <unistd.h>

#include <map>

#include "base/error.h"
#include "base/math.h"
#include "base/text.h"
#include "device/thread_pool.h"

namespace cachalot::control {

Proof keyed_hash(std::string_view secret, const std::string& message) {
  Proof proof{};
  unsigned int size = 0;
  const unsigned char* done =
      HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
           reinterpret_cast<const unsigned char*>(message.data()), message.size(), proof.data(), &size);
  CHECK(done != nullptr && size == proof.size(), "HMAC-SHA256 failed");
  return proof;
}

Proof proof_of_hello(std::string_view secret, const Nonce& rank0_nonce, Hello hello) {
  hello.proof = {};
  Writer message;
  message(std::string("cachalot hello"), rank0_nonce, hello);
  return keyed_hash(secret, message.take());
}

Proof proof_of_rank0(std::string_view secret, const Nonce& rank0_nonce, const Nonce& rank_nonce) {
  Writer message;
  message(std::string("cachalot rank 0"), rank0_nonce, rank_nonce);
  return keyed_hash(secret, message.take());
}

bool equal(const Proof& left, const Proof& right) {
  const auto text = [](const Proof& proof) {
    return std::string_view(reinterpret_cast<const char*>(proof.data()), proof.size());
  };
  return equal_in_constant_time(text(left), text(right));
}

namespace {

std::string shown(const std::string* value) {
  return value == nullptr ? "not set" : quoted(*value);
}

// "--block-size: '64' there, '32' here" of each setting that differs.
std::optional<Error> find_different_setting(const Hello& rank0, const Hello& other) {
  std::map<std::string, std::pair<const std::string*, const std::string*>> by_name;
  for (const auto& [name, value] : rank0.settings) by_name[name].first = &value;
  for (const auto& [name, value] : other.settings) by_name[name].second = &value;

  std::string parameter, differences;
  for (const auto& [name, values] : by_name) {
    const auto& [expected, found] = values;
    if (expected != nullptr && found != nullptr && *expected == *found) continue;
    if (parameter.empty()) parameter = name;
    if (!differences.empty()) differences += ", and ";
    differences += fmt::format("{} is {} on {} and {} on {}", name_text(name), shown(found), other.introduction.name(),
                               shown(expected), rank0.introduction.name());
  }
  if (differences.empty()) return std::nullopt;
  return make_parameter_error(std::move(parameter), "{}; it must be the same on all ranks", differences).error();
}

}  // namespace

Result<Hello> hello_of(const JoinOptions& options) {
  ASSIGN_OR_RETURN(NodeId node, this_node());
  return Hello{
      .introduction = {.program_version = options.program_version,
                       .rank = options.rank,
                       .size = options.size,
                       .host = this_host(),
                       .label = options.label,
                       .pid = getpid()},
      .has_secret = !options.secret.empty(),
      .node = std::move(node),
      .cores = allowed_cores(),
      .shm_socket = options.shm_socket,
      .ucx_address = options.ucx_address,
      .isa_level = options.isa_level,
      .isa_name = options.isa_name,
      .model_fingerprint = options.model_fingerprint,
      .settings = options.settings,
  };
}

Member member_of(const Hello& hello, std::string_view control_address) {
  const Introduction& introduction = hello.introduction;
  return {
      .rank = introduction.rank,
      .label = introduction.label,
      .host = introduction.host,
      .pid = introduction.pid,
      .node = hello.node,
      .cores = hello.cores,
      .control_address = std::string(control_address),
      .shm_socket = hello.shm_socket,
      .ucx_address = hello.ucx_address,
  };
}

Error protocol_error(const Introduction& rank0, const Introduction& other, uint16_t protocol) {
  return make_error(
             ErrorCode::kUnsupported,
             "{} runs Cachalot {} with version {} of the control protocol, {} runs Cachalot {} with version {}; all "
             "ranks must run the same program",
             other.name(), name_text(other.program_version), protocol, rank0.name(), rank0.program_version,
             kProtocolVersion)
      .error();
}

Error doubled_rank_error(const Hello& first, const Hello& second) {
  return make_parameter_error(
             "--data-parallel-rank",
             "rank {} is there twice: {} and {}; each rank must be started once, with a number of its own",
             first.introduction.rank, first.introduction.name(), second.introduction.name())
      .error();
}

std::optional<Error> find_wrong_secret(std::string_view secret, const Nonce& nonce, const Hello& rank0,
                                       const Hello& other) {
  const std::string who = other.introduction.name(), rank0_name = rank0.introduction.name();
  const auto error = [](std::string message) {
    return Error{ErrorCode::kInvalidArgument, std::move(message), "--group-secret-file"};
  };
  if (secret.empty() && !other.has_secret) return std::nullopt;
  if (secret.empty())
    return error(fmt::format("{} has a group secret (--group-secret-file), {} has none", who, rank0_name));
  if (!other.has_secret)
    return error(fmt::format("{} has no group secret (--group-secret-file), {} has one", who, rank0_name));
  if (equal(other.proof, proof_of_hello(secret, nonce, other))) return std::nullopt;
  return error(fmt::format("{} has another group secret (--group-secret-file) than {}", who, rank0_name));
}

std::optional<Error> find_difference(const Hello& rank0, const Hello& other) {
  const Introduction &expected = rank0.introduction, &found = other.introduction;
  if (found.program_version != expected.program_version) {
    return make_error(ErrorCode::kUnsupported,
                      "{} runs Cachalot {}, {} runs Cachalot {}; all ranks must run the same program", found.name(),
                      name_text(found.program_version), expected.name(), expected.program_version)
        .error();
  }
  if (found.size != expected.size) {
    return make_error(ErrorCode::kInvalidArgument, "{} counts {} ranks in all, {} counts {}", found.name(), found.size,
                      expected.name(), expected.size)
        .error();
  }
  if (found.rank <= 0 || found.rank >= expected.size) {
    return make_error(ErrorCode::kInvalidArgument, "{} joins {}; the ranks that may join are 1 to {}", found.name(),
                      expected.name(), expected.size - 1)
        .error();
  }
  if (auto error = find_different_setting(rank0, other)) return error;
  if (other.model_fingerprint != rank0.model_fingerprint) {
    return make_parameter_error(
               "--model", "the model's fingerprint is {} on {} and {} on {}; all ranks must read the same files",
               shown(&other.model_fingerprint), found.name(), shown(&rank0.model_fingerprint), expected.name())
        .error();
  }
  return std::nullopt;
}

}  // namespace cachalot::control
