#pragma once

#include <memory>
#include <string>
#include <utility>

#include "base/text.h"
#include "comm/membership/network.h"
#include "simulation/world.h"

namespace cachalot::simulation {

// A stream as a control connection: what asio_network.h makes of TCP.
class ControlConnection : public control::Connection, public std::enable_shared_from_this<ControlConnection> {
 public:
  ControlConnection(World& world, ProcessPtr process, StreamPtr stream)
      : world_(world), process_(std::move(process)), stream_(std::move(stream)) {}

  void start(Events events) override {
    events_ = std::make_shared<Events>(std::move(events));
    const auto self = shared_from_this();
    stream_->on_message = [self](const std::string& bytes) { self->take(bytes); };
    stream_->on_closed = [self](const std::string& why) { self->end({ErrorCode::kUnavailable, why, {}}); };
  }
  void send_frame(std::string frame) override {
    if (!ended_ && !finishing_) stream_->send(std::move(frame));
  }
  bool has_unsent() const override { return stream_->num_unsent() > 64; }  // the system takes the others
  void set_max_receive_bytes(size_t max_bytes) override { max_receive_bytes_ = max_bytes; }
  void set_send_timeout(std::chrono::milliseconds timeout) override { stream_->set_send_timeout(timeout); }
  void finish() override {
    if (ended_ || std::exchange(finishing_, true)) return;
    stream_->shut_down();
    world_.after(500ms, process_, [self = shared_from_this()] { self->end({ErrorCode::kUnavailable, "", {}}); });
  }
  void close() override {
    ended_ = true;
    events_.reset();
    stream_->close();
  }
  bool ended() const override { return ended_; }
  std::string peer() const override { return fmt::format("host {}", stream_->peer_host()); }
  std::string peer_address() const override { return peer(); }

 private:
  void take(const std::string& bytes) {
    if (ended_ || finishing_) return;
    const std::string_view view = bytes;
    const auto header = control::decode_header(view.substr(0, control::kFrameHeaderBytes), max_receive_bytes_);
    if (!header) return end(header.error());
    const std::shared_ptr<Events> events = events_;
    events->frame({.header = *header, .payload = std::string(view.substr(control::kFrameHeaderBytes))});
  }
  void end(const Error& error) {
    if (ended_) return;
    const std::shared_ptr<Events> events = events_;
    close();
    events->closed(error);
  }

  World& world_;
  const ProcessPtr process_;
  const StreamPtr stream_;
  std::shared_ptr<Events> events_;
  size_t max_receive_bytes_ = control::kMaxHelloBytes;
  bool finishing_ = false, ended_ = false;
};

class SimulatedTimer : public control::Timer {
 public:
  SimulatedTimer(World& world, ProcessPtr process, std::function<void()> on_time)
      : world_(world), process_(std::move(process)), on_time_(std::move(on_time)) {}
  void set(Time time) override {
    world_.at(time, process_, [weak = std::weak_ptr(alive_), this, number = ++number_] {
      if (weak.lock() && number == number_) on_time_();
    });
  }
  void cancel() override { number_++; }

 private:
  World& world_;
  const ProcessPtr process_;
  const std::function<void()> on_time_;
  uint64_t number_ = 0;  // of the time that it is set to
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// The control plane's network of one simulated process. Addresses are "host 3".
class ControlNetwork : public control::Network {
 public:
  ControlNetwork(World& world, ProcessPtr process) : world_(world), process_(std::move(process)) {}

  Time now() const override { return world_.now(); }
  control::Nonce random_nonce() override {
    control::Nonce nonce{};
    for (uint8_t& byte : nonce) byte = static_cast<uint8_t>(world_.random().next());
    return nonce;
  }
  std::unique_ptr<control::Timer> make_timer(std::function<void()> on_time) override {
    return std::make_unique<SimulatedTimer>(world_, process_, std::move(on_time));
  }
  Status listen(const std::string&, uint16_t port, std::function<void(control::ConnectionPtr)> taken,
                std::function<void(const std::string& why)>) override {
    world_.listen(process_, port, [this, taken](StreamPtr stream) {
      taken(std::make_shared<ControlConnection>(world_, process_, std::move(stream)));
    });
    return {};
  }
  void connect(const std::string& host, uint16_t port, std::chrono::milliseconds timeout,
               std::function<void(Result<control::ConnectionPtr>)> connected) override {
    const int number = parse_number<int>(host.substr(host.find(' ') + 1)).value_or(0);
    world_.connect(process_, number, port, timeout, [this, connected](Result<StreamPtr> stream) {
      if (!stream) return connected(std::unexpected(stream.error()));
      connected(std::make_shared<ControlConnection>(world_, process_, std::move(*stream)));
    });
  }

 private:
  World& world_;
  const ProcessPtr process_;
};

}  // namespace cachalot::simulation
