#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "comm/membership/member.h"

// The control protocol. Each message is a frame:
//
//   u32 magic | u16 protocol version | u16 type | u32 epoch | u32 length | payload [length]
//
// Integers are little-endian; a text is its length (u32) and its bytes; a list its count (u32) and its elements. Frame,
// Challenge, Refused and Introduction (which begins a Hello) look the same in every version, so that programs of
// different versions can tell each other so.
//
//   rank 0                         another rank
//     Challenge{nonce}        ->
//                             <-   Hello{introduction, nonce, proof of the secret, what it brings}
//     Accepted{proof}         ->       or Refused{why}
//     Heartbeat               ->
//                             <-   Heartbeat               an answer to each
//     Formed{members}         ->       or Refused{why}
//                             <-   Ready                   it has loaded
//     Ready                   ->                           all have
//     Failure{rank, ...}      <->                          a rank is lost; whoever finds it, tells
//     Left{rank}              <->                          goodbye, its acknowledgement, and the news of it
namespace cachalot::control {

inline constexpr uint32_t kMagic = 0x4c484343;  // "CCHL"
inline constexpr uint16_t kProtocolVersion = 2;
inline constexpr size_t kFrameHeaderBytes = 16;
// A client that has not proved to be a rank may send no more in one message.
inline constexpr size_t kMaxHelloBytes = 64 << 10;
inline constexpr size_t kMaxMessageBytes = 16 << 20;  // the table of some thousands of members fits

enum class MessageType : uint16_t {
  kChallenge = 1,
  kHello,
  kAccepted,
  kRefused,
  kFormed,
  kHeartbeat,
  kFailure,
  kLeft,
  kReady,
  // Of agents (agents/agent_network.h), at ports of their own.
  kAgentHello,
  kAgentWord,
  kOperatorRequest,
  kOperatorAnswer,
};

struct FrameHeader {
  uint16_t protocol = kProtocolVersion;
  MessageType type = {};
  uint32_t epoch = 0;
  uint32_t length = 0;
};

struct Frame {
  FrameHeader header;
  std::string payload;
};

using Nonce = std::array<uint8_t, 32>;
using Proof = std::array<uint8_t, 32>;

// Each message lists its fields once, for writing and reading.
struct Challenge {
  static constexpr MessageType kType = MessageType::kChallenge;
  Nonce nonce{};
  bool has_secret = false;

  static auto fields(auto& self) { return std::tie(self.nonce, self.has_secret); }
};

struct Introduction {
  std::string program_version;
  int rank = 0, size = 0;
  std::string host, label;
  int64_t pid = 0;

  static auto fields(auto& self) {
    return std::tie(self.program_version, self.rank, self.size, self.host, self.label, self.pid);
  }
  std::string name() const;  // as Member::name()
};

struct Hello {
  static constexpr MessageType kType = MessageType::kHello;
  Introduction introduction;
  Nonce nonce{};
  Proof proof{};  // zeros while it is computed over the rest, and where there is no secret
  bool has_secret = false;
  NodeId node;
  std::vector<int> cores;
  std::string shm_socket, ucx_address;
  int isa_level = 0;
  std::string isa_name;
  std::string model_fingerprint;
  std::vector<std::pair<std::string, std::string>> settings;

  static auto fields(auto& self) {
    return std::tie(self.introduction, self.nonce, self.proof, self.has_secret, self.node, self.cores, self.shm_socket,
                    self.ucx_address, self.isa_level, self.isa_name, self.model_fingerprint, self.settings);
  }
};

struct Accepted {
  static constexpr MessageType kType = MessageType::kAccepted;
  Proof proof{};
  uint32_t failure_timeout_ms = 0;

  static auto fields(auto& self) { return std::tie(self.proof, self.failure_timeout_ms); }
};

struct Refused {
  static constexpr MessageType kType = MessageType::kRefused;
  ErrorCode code = ErrorCode::kUnavailable;
  std::string message, parameter;

  static auto fields(auto& self) { return std::tie(self.code, self.message, self.parameter); }
};

struct Formed {
  static constexpr MessageType kType = MessageType::kFormed;
  std::vector<Member> members;
  int isa_level = 0;  // the lowest of all
  std::string isa_name;

  static auto fields(auto& self) { return std::tie(self.members, self.isa_level, self.isa_name); }
};

struct Heartbeat {
  static constexpr MessageType kType = MessageType::kHeartbeat;
  Activity activity;

  static auto fields(auto& self) { return std::tie(self.activity); }
};

struct Failure {
  static constexpr MessageType kType = MessageType::kFailure;
  int rank = 0;
  std::string cause;
  bool activity_known = false;
  Activity activity;

  static auto fields(auto& self) { return std::tie(self.rank, self.cause, self.activity_known, self.activity); }
};

struct Left {
  static constexpr MessageType kType = MessageType::kLeft;
  int rank = 0;

  static auto fields(auto& self) { return std::tie(self.rank); }
};

struct Ready {
  static constexpr MessageType kType = MessageType::kReady;

  static auto fields(auto&) { return std::tie(); }
};

template <class Field>
concept Scalar = std::integral<Field> || std::is_enum_v<Field>;

class Writer {
 public:
  template <class... Fields>
  void operator()(const Fields&... values) {
    (put(values), ...);
  }
  std::string take() { return std::move(bytes_); }

 private:
  template <Scalar Field>
  void put(Field value) {
    for (size_t i = 0; i < sizeof(Field); ++i) bytes_ += static_cast<char>(static_cast<uint64_t>(value) >> (8 * i));
  }
  void put(const std::string& text) {
    put(static_cast<uint32_t>(text.size()));
    bytes_ += text;
  }
  template <size_t size>
  void put(const std::array<uint8_t, size>& bytes) {
    bytes_.append(reinterpret_cast<const char*>(bytes.data()), size);
  }
  template <class Element>
  void put(const std::vector<Element>& list) {
    put(static_cast<uint32_t>(list.size()));
    for (const Element& element : list) put(element);
  }
  void put(const std::pair<std::string, std::string>& texts) { (*this)(texts.first, texts.second); }
  template <class Message>
    requires std::is_class_v<Message>
  void put(const Message& message) {
    std::apply(*this, Message::fields(message));
  }

  std::string bytes_;
};

// Reads what a Writer wrote. After the first field that is not there whole, nothing more is read: a list's count does
// not allocate what the message does not hold.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  template <class... Fields>
  void operator()(Fields&... values) {
    (get(values), ...);
  }
  bool sound() const { return !failed_; }
  bool complete() const { return !failed_ && bytes_.empty(); }

 private:
  std::string_view next(size_t count) {
    failed_ = failed_ || count > bytes_.size();
    if (failed_) return {};
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }
  template <Scalar Field>
  void get(Field& value) {
    uint64_t read = 0;
    int shift = 0;
    for (const char byte : next(sizeof(Field))) {
      read |= static_cast<uint64_t>(static_cast<uint8_t>(byte)) << shift;
      shift += 8;
    }
    value = static_cast<Field>(read);
  }
  void get(bool& value) {
    uint8_t read = 0;
    get(read);
    failed_ = failed_ || read > 1;
    value = read == 1;
  }
  void get(std::string& text) {
    uint32_t size = 0;
    get(size);
    text = next(size);
  }
  template <size_t size>
  void get(std::array<uint8_t, size>& bytes) {
    const std::string_view read = next(size);
    std::copy(read.begin(), read.end(), bytes.begin());
  }
  template <class Element>
  void get(std::vector<Element>& list) {
    uint32_t count = 0;
    get(count);
    for (uint32_t i = 0; i < count && !failed_; ++i) get(list.emplace_back());
  }
  void get(std::pair<std::string, std::string>& texts) { (*this)(texts.first, texts.second); }
  template <class Message>
    requires std::is_class_v<Message>
  void get(Message& message) {
    std::apply(*this, Message::fields(message));
  }

  std::string_view bytes_;
  bool failed_ = false;
};

template <class Message>
std::string encode(const Message& message) {
  Writer writer;
  writer(message);
  return writer.take();
}

// Errors: the message is cut, or longer than its fields.
template <class Message>
Result<Message> decode(std::string_view payload) {
  Reader reader(payload);
  Message message;
  reader(message);
  if (!reader.complete()) {
    return make_error(ErrorCode::kCorrupt, "a control message of type {} with {} bytes contradicts itself",
                      static_cast<int>(Message::kType), payload.size());
  }
  return message;
}

// The beginning of a Hello, of whatever version.
Result<Introduction> decode_introduction(std::string_view hello);

std::string encode_header(const FrameHeader& header);
// Errors: this is no frame of any version, or longer than `max_length`.
Result<FrameHeader> decode_header(std::string_view bytes, size_t max_length);

template <class Message>
std::string encode_frame(const Message& message, uint32_t epoch) {
  const std::string payload = encode(message);
  return encode_header({.type = Message::kType, .epoch = epoch, .length = static_cast<uint32_t>(payload.size())}) +
         payload;
}

}  // namespace cachalot::control
