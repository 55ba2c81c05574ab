#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/error.h"
#include "comm/membership/wire.h"

// All that the control plane needs of the world: connections, time, timers and chance. Hub and Spoke are state machines
// over this: a process gives them asio_network.h, the simulator (tests/simulation) a network of its own. One thread
// makes all calls and gets all events; no event comes from within a call.
namespace cachalot::control {

// A connection that carries frames in order.
class Connection {
 public:
  struct Events {
    std::function<void(const Frame&)> frame;
    // Once, unless close() came before: the peer closed it (kUnavailable), sent what is no frame (kCorrupt), finish()
    // is through, or there is no memory for what came (kInternal).
    std::function<void(const Error&)> closed;
  };

  virtual ~Connection() = default;
  virtual void start(Events events) = 0;
  virtual void send_frame(std::string frame) = 0;
  // The peer takes nothing at the moment: more heartbeats would only pile up.
  virtual bool has_unsent() const = 0;
  virtual void set_max_receive_bytes(size_t max_bytes) = 0;
  // What is sent and not acknowledged for so long breaks the connection.
  virtual void set_send_timeout(std::chrono::milliseconds timeout) = 0;
  // Sends what is queued and lets the peer close first, so that it gets everything; after half a second, closes. Frames
  // that still come are dropped.
  virtual void finish() = 0;
  virtual void close() = 0;
  virtual bool ended() const = 0;
  virtual std::string peer() const = 0;          // "10.0.0.7:41022"
  virtual std::string peer_address() const = 0;  // "10.0.0.7"
};
using ConnectionPtr = std::shared_ptr<Connection>;

class Timer {
 public:
  using Time = std::chrono::steady_clock::time_point;
  virtual ~Timer() = default;  // it does not come any more
  // In place of what it was set to before.
  virtual void set(Time time) = 0;
  virtual void cancel() = 0;
};

class Network {
 public:
  using Time = Timer::Time;
  virtual ~Network() = default;
  virtual Time now() const = 0;
  virtual Nonce random_nonce() = 0;
  virtual std::unique_ptr<Timer> make_timer(std::function<void()> on_time) = 0;
  // Each connection that comes is given to `taken`; that none can be taken for the moment, to `failed`.
  virtual Status listen(const std::string& host, uint16_t port, std::function<void(ConnectionPtr)> taken,
                        std::function<void(const std::string& why)> failed) = 0;
  // The error: why there is none.
  virtual void connect(const std::string& host, uint16_t port, std::chrono::milliseconds timeout,
                       std::function<void(Result<ConnectionPtr>)> connected) = 0;
};

}  // namespace cachalot::control
