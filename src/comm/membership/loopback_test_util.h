#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/ports.h"
#include "comm/membership/membership.h"
#include "comm/membership/wire.h"

namespace cachalot::control {

// A socket that may share its port with one that only keeps it.
inline int loopback_socket(uint16_t port) {
  const int bound = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  setsockopt(bound, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  CHECK(bind(bound, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "port {}", port);
  return bound;
}

// A port on the loopback that nobody listens at. It is kept until this process ends, so that no other test gets it.
inline uint16_t free_port() {
  static std::vector<KeptPort> kept;
  kept.push_back(KeptPort::keep().value());
  return kept.back().port();
}

// Options of `size` ranks that agree on everything.
inline std::vector<JoinOptions> group_options(int size) {
  std::vector<JoinOptions> options(size);
  const uint16_t port = free_port();
  for (int rank = 0; rank < size; ++rank) {
    options[rank] = {
        .rank = rank,
        .size = size,
        .port = port,
        .program_version = "0.1.0",
        .settings = {{"--block-size", "64"}, {"--dtype", "auto"}},
        .model_fingerprint = "f00d",
        .label = fmt::format("replica {}", rank),
        .isa_level = 2,
        .isa_name = "avx512",
        .join_timeout = std::chrono::seconds(20),
        .greeting_timeout = std::chrono::milliseconds(500),
        .linger = std::chrono::milliseconds(500),
    };
  }
  return options;
}

using JoinResult = Result<std::unique_ptr<Membership>>;

// All at once, each in a thread of its own.
inline std::vector<JoinResult> join_all(const std::vector<JoinOptions>& options) {
  std::vector<JoinResult> results(options.size());
  {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < options.size(); ++i)
      threads.emplace_back([&, i] { results[i] = Membership::join(options[i]); });
  }
  return results;
}

inline void leave_all(std::vector<JoinResult>& group) {
  std::vector<std::jthread> threads;
  for (JoinResult& result : group) {
    threads.emplace_back([&result] {
      if (result) (*result)->leave();
    });
  }
}

// What is logged while it lives.
class LogCapture {
 public:
  LogCapture() : before_(spdlog::default_logger()) {
    auto logger =
        std::make_shared<spdlog::logger>("capture", std::make_shared<spdlog::sinks::ostream_sink_mt>(stream_));
    logger->set_level(spdlog::level::debug);
    logger->set_pattern("%v");
    spdlog::set_default_logger(std::move(logger));
  }
  ~LogCapture() { spdlog::set_default_logger(before_); }
  // Once nobody logs any longer.
  std::string text() const { return stream_.str(); }
  int count(std::string_view what) const {
    const std::string all = text();
    int count = 0;
    for (size_t at = all.find(what); at != std::string::npos; at = all.find(what, at + 1)) ++count;
    return count;
  }

 private:
  std::ostringstream stream_;
  std::shared_ptr<spdlog::logger> before_;
};

// A TCP client that may say anything.
class RawClient {
 public:
  explicit RawClient(uint16_t port) : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const timeval patience{.tv_sec = 10};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    while (connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  // The other end of who connects there.
  static RawClient accepted_at(int listener) { return RawClient(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC), 0); }
  ~RawClient() { close(socket_); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  void send(std::string_view bytes) {
    // The peer may have closed already.
    [[maybe_unused]] const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  std::string receive(size_t size) {
    std::string bytes(size, '\0');
    const ssize_t received = recv(socket_, bytes.data(), size, MSG_WAITALL);
    bytes.resize(received > 0 ? received : 0);
    return bytes;
  }
  Frame receive_message() {
    Frame frame;
    const Result<FrameHeader> header = decode_header(receive(kFrameHeaderBytes), kMaxMessageBytes);
    EXPECT_TRUE(header) << header.error().message;
    if (!header) return frame;
    frame.header = *header;
    if (header->length > 0) frame.payload = receive(header->length);
    return frame;
  }
  // All until the peer closes.
  std::string receive_all() {
    std::string all;
    for (std::string part = receive(1); !part.empty(); part = receive(1)) all += part;
    return all;
  }

 private:
  RawClient(int connected, int /*tag*/) : socket_(connected) {}
  int socket_;
};

}  // namespace cachalot::control
