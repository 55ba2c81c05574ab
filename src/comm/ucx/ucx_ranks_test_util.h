#pragma once

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/process_test_util.h"
#include "comm/mesh.h"
#include "comm/ucx/ucx_endpoint.h"

// Ranks over UCX's TCP for tests: threads of this process, or processes.
namespace cachalot::ucx_test {

inline constexpr std::chrono::milliseconds kLong{20'000};

inline UcxEndpointOptions loopback(int rank, uint64_t epoch = 5) {
  return {.rank = rank, .epoch = epoch, .network_interface = "lo", .transports = "tcp,self", .deadline = kLong};
}

inline UcxEndpoint make_endpoint(UcxEndpointOptions options) {
  auto endpoint = UcxEndpoint::create(std::move(options));
  CHECK(endpoint, "{}", endpoint.error().message);
  return std::move(*endpoint);
}

inline std::unique_ptr<Mesh> make_mesh(int rank, int size, std::unique_ptr<Transport> transport) {
  std::vector<std::unique_ptr<Transport>> transports;
  transports.push_back(std::move(transport));
  auto mesh = Mesh::create({.rank = rank, .size = size, .deadline = kLong}, std::move(transports));
  CHECK(mesh, "{}", mesh.error().message);
  return std::move(*mesh);
}

// body(rank) on a thread a rank.
template <class Body>
void on_threads(int num_ranks, Body body) {
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < num_ranks; rank++) threads.emplace_back([&body, rank] { body(rank); });
}

inline std::vector<std::unique_ptr<Transport>> connect_threads(int num_ranks) {
  std::vector<UcxEndpoint> endpoints;
  std::vector<UcxAddress> addresses;
  for (int rank = 0; rank < num_ranks; rank++) {
    endpoints.push_back(make_endpoint(loopback(rank)));
    addresses.push_back({rank, endpoints.back().address()});
  }
  std::vector<std::unique_ptr<Transport>> transports(num_ranks);
  on_threads(num_ranks, [&](int rank) {
    auto transport = endpoints[rank].connect(addresses);
    CHECK(transport, "{}", transport.error().message);
    transports[rank] = std::move(*transport);
  });
  return transports;
}

// Meshes of threads, closed all at once: each waits for its peers to take what was sent.
class Meshes {
 public:
  explicit Meshes(int num_ranks) {
    for (auto& transport : connect_threads(num_ranks)) {
      const int rank = static_cast<int>(meshes_.size());
      meshes_.push_back(make_mesh(rank, num_ranks, std::move(transport)));
    }
  }
  ~Meshes() {
    on_threads(size(), [&](int rank) { meshes_[rank].reset(); });
  }
  int size() const { return static_cast<int>(meshes_.size()); }
  Mesh& operator[](int rank) { return *meshes_[rank]; }
  void close(int rank) { meshes_[rank].reset(); }

 private:
  std::vector<std::unique_ptr<Mesh>> meshes_;
};

// Processes that run body(mesh) over TCP and end with its answer (0: all is well). They outlive the test in no case.
class RankProcesses {
 public:
  using Body = std::function<int(Mesh&)>;

  // options: of each rank's endpoint; run in its process before all else, e.g. to enter a namespace.
  RankProcesses(
      int num_ranks, const Body& body,
      const std::function<UcxEndpointOptions(int rank)>& options = [](int rank) { return loopback(rank); }) {
    for (int rank = 0; rank < num_ranks; rank++) {
      std::array<int, 2> sockets{};
      CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets.data()) == 0);
      processes_.push_back(fork_process([&] { return live(num_ranks, rank, sockets[1], body, options); }));
      close(sockets[1]);
      sockets_.emplace_back(sockets[0]);
    }
    std::vector<std::string> addresses;
    for (const FileDescriptor& socket : sockets_) addresses.push_back(receive(socket.get()));
    for (const FileDescriptor& socket : sockets_) {
      for (const std::string& address : addresses) send(socket.get(), address.data(), address.size(), MSG_NOSIGNAL);
    }
  }
  void signal(int rank, int number) { processes_[rank].signal(number); }
  int answer(int rank) { return processes_[rank].wait(); }

 private:
  static std::string receive(int socket) {
    std::array<char, 4096> bytes{};
    const ssize_t size = recv(socket, bytes.data(), bytes.size(), 0);
    return std::string(bytes.data(), std::max<ssize_t>(size, 0));
  }
  static int live(int num_ranks, int rank, int socket, const Body& body,
                  const std::function<UcxEndpointOptions(int rank)>& options) {
    UcxEndpoint endpoint = make_endpoint(options(rank));
    send(socket, endpoint.address().data(), endpoint.address().size(), 0);
    std::vector<UcxAddress> addresses;
    for (int peer = 0; peer < num_ranks; peer++) addresses.push_back({peer, receive(socket)});
    auto transport = endpoint.connect(addresses);
    if (!transport) {
      fmt::print(stderr, "{}\n", transport.error().message);
      return 100;
    }
    auto mesh = make_mesh(rank, num_ranks, std::move(*transport));
    return body(*mesh);
  }

  std::vector<Process> processes_;
  std::vector<FileDescriptor> sockets_;
};

// Bytes that tell sender, receiver and message apart.
inline uint32_t word_of(int from, int to, int step) {
  return static_cast<uint32_t>((from * 100 + to) * 1000 + step);
}

// The same on every rank: nothing, a little, or up to max_words.
inline size_t random_words(int from, int to, int step, size_t max_words) {
  std::mt19937_64 random(word_of(from, to, step));
  const size_t kind = random() % 4;
  return kind == 0 ? 0 : kind == 1 ? random() % 100 : random() % (kind == 2 ? max_words / 50 + 1 : max_words + 1);
}

// From every rank to every other, `steps` at once, checked. The error, or what was wrong.
inline std::optional<std::string> exchange(Mesh& mesh, int first_step, int num_steps, size_t max_words) {
  struct Message {
    int peer, step;
    std::vector<uint32_t> out, in;
  };
  std::vector<Message> messages;
  for (int step = first_step; step < first_step + num_steps; step++) {
    for (int peer = 0; peer < mesh.size(); peer++) {
      if (peer == mesh.rank()) continue;
      const size_t out_words = random_words(mesh.rank(), peer, step, max_words);
      messages.push_back({.peer = peer,
                          .step = step,
                          .out = std::vector(out_words, word_of(mesh.rank(), peer, step)),
                          .in = std::vector<uint32_t>(random_words(peer, mesh.rank(), step, max_words) + 1)});
    }
  }
  std::vector<SendOp> sends;
  std::vector<ReceiveOp> receives;
  for (Message& message : messages) {
    sends.push_back({.peer = message.peer, .data = std::as_bytes(std::span(message.out))});
    receives.push_back({.peer = message.peer, .buffer = std::as_writable_bytes(std::span(message.in))});
  }
  for (ReceiveOp& op : receives) mesh.start(op);
  for (SendOp& op : sends) mesh.start(op);
  const Status status = mesh.wait(sends, receives, {"exchange", static_cast<uint64_t>(first_step)});
  if (!status) return status.error().message;
  for (size_t idx = 0; idx < messages.size(); idx++) {
    const Message& message = messages[idx];
    const uint32_t expected = word_of(message.peer, mesh.rank(), message.step);
    const auto words = std::span(message.in).first(message.in.size() - 1);
    if (receives[idx].size != words.size_bytes())
      return fmt::format("{} bytes from {} in step {}, not {}", receives[idx].size, message.peer, message.step,
                         words.size_bytes());
    if (!std::ranges::all_of(words, [&](uint32_t word) { return word == expected; }))
      return fmt::format("wrong bytes from {} in step {}", message.peer, message.step);
  }
  return std::nullopt;
}

}  // namespace cachalot::ucx_test
