#pragma once

#include <gtest/gtest.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <functional>
#include <future>
#include <string>
#include <thread>

#include "base/text.h"
#include "http/client.h"
#include "http/server.h"

namespace cachalot::http {

// For tests: how long what must come is waited for.
constexpr std::chrono::seconds kTestPatience{60};

// For tests: whether something comes true.
inline bool eventually(const std::function<bool()>& condition) {
  for (const auto end = std::chrono::steady_clock::now() + kTestPatience; std::chrono::steady_clock::now() < end;) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

// For tests: a client that sends and receives exactly the bytes that it is told, with a deadline on reading.
class RawClient {
 public:
  explicit RawClient(uint16_t port) : socket_(context_) {
    socket_.connect({boost::asio::ip::make_address("127.0.0.1"), port});
  }

  void send(std::string_view bytes) {
    boost::system::error_code ignored;  // the server may have had enough already
    boost::asio::write(socket_, boost::asio::buffer(bytes.data(), bytes.size()), ignored);
  }
  void close() { socket_.close(); }
  // Says that nothing more will be sent, and goes on to listen.
  void close_half() { socket_.shutdown(boost::asio::socket_base::shutdown_send); }
  // As a process that is killed: a reset.
  void reset() {
    socket_.set_option(boost::asio::socket_base::linger(true, 0));
    socket_.close();
  }

  // Reads until the text has come; what was read, with everything up to and including it taken out.
  std::string read_until(std::string_view text) {
    size_t position;
    while ((position = received_.find(text)) == received_.npos)
      if (!read_some()) return std::exchange(received_, {}) + "<closed before " + std::string(text) + ">";
    std::string head = received_.substr(0, position + text.size());
    received_.erase(0, head.size());
    return head;
  }
  std::string read_to_end() {
    while (read_some()) {
    }
    return std::exchange(received_, {});
  }
  // Status line and fields, then as many bytes as Content-Length says.
  std::string read_response() {
    std::string response = read_until("\r\n\r\n");
    const auto field = response.find("Content-Length: ");
    if (field == response.npos) return response;
    const size_t length = leading_number<size_t>(std::string_view(response).substr(field + 16));
    while (received_.size() < length && read_some()) {
    }
    response += received_.substr(0, length);
    received_.erase(0, length);
    return response;
  }

 private:
  bool read_some() {
    char bytes[4096];
    bool got = false;
    socket_.async_read_some(boost::asio::buffer(bytes), [&](boost::system::error_code error, size_t num_bytes) {
      got = !error;
      if (got) received_.append(bytes, num_bytes);
    });
    context_.restart();
    context_.run_for(kTestPatience);
    if (!context_.stopped()) {
      ADD_FAILURE() << "nothing came; so far: " << received_;
      socket_.cancel();
      context_.run();
    }
    return got;
  }

  boost::asio::io_context context_;
  boost::asio::ip::tcp::socket socket_;
  std::string received_;
};

// For tests: answers a call from any thread, in place of its handler. A copyable handle; when the last copy goes, the
// handler ends.
class Responder {
 public:
  explicit Responder(boost::asio::any_io_executor strand) : handle_(std::make_shared<Handle>(std::move(strand))) {}

  void respond(Response response) const {
    put([response](ServerCall& call) -> awaitable<void> { co_await call.respond(response); }, true);
  }
  void begin(int status, Headers headers) const {
    put([status, headers](ServerCall& call) -> awaitable<void> {
      call.begin(status, headers);
      co_await call.send("");
    });
  }
  void write(std::string bytes, std::function<void()> on_written = {}) const {
    put([bytes, on_written](ServerCall& call) -> awaitable<void> {
      co_await call.send(bytes);
      if (on_written) on_written();
    });
  }
  void end() const {
    put([](ServerCall& call) -> awaitable<void> { co_await call.end(); }, true);
  }
  // The handler ends in the middle of its answer.
  void abort() const { put(nullptr, true); }
  // Once, if the client goes away before the end of the answer.
  void on_close(std::function<void()> callback) const {
    {
      const std::lock_guard lock(handle_->state->mutex);
      if (!handle_->state->is_gone) {
        handle_->state->on_close = std::move(callback);
        return;
      }
    }
    callback();
  }
  bool closed() const {
    const std::lock_guard lock(handle_->state->mutex);
    return handle_->state->is_gone;
  }

  // A route's handler: `start` gets the request and the handle, and returns at once.
  static Server::Handler of(std::function<void(Request, Responder)> start) {
    return [start = std::move(start)](ServerCall& call) -> awaitable<void> {
      std::shared_ptr<State> state;
      {
        Responder responder(co_await boost::asio::this_coro::executor);
        state = responder.handle_->state;
        start(std::move(call.request), std::move(responder));
      }
      const Watch watch{state};
      for (;;) {
        auto steps = co_await state->steps->take_before(std::chrono::steady_clock::time_point::max());
        for (Step& step : *steps) {
          if (step.run) co_await step.run(call);
          if (!step.is_last) continue;
          {
            const std::lock_guard lock(state->mutex);
            state->is_over = true;
          }
          co_return;
        }
      }
    };
  }

 private:
  struct Step {
    std::function<awaitable<void>(ServerCall&)> run;
    bool is_last = false;
  };
  struct State {
    explicit State(boost::asio::any_io_executor strand) : steps(std::make_shared<Mailbox<Step>>(std::move(strand))) {}
    const std::shared_ptr<Mailbox<Step>> steps;
    std::mutex mutex;  // guards what follows
    bool is_over = false, is_gone = false;
    std::function<void()> on_close;
  };
  struct Handle {
    explicit Handle(boost::asio::any_io_executor strand) : state(std::make_shared<State>(std::move(strand))) {}
    ~Handle() { state->steps->put({nullptr, true}); }
    const std::shared_ptr<State> state;
  };
  // Hears that the handler was given up.
  struct Watch {
    std::shared_ptr<State> state;
    ~Watch() {
      state->steps->close();
      std::function<void()> callback;
      {
        const std::lock_guard lock(state->mutex);
        if (state->is_over) return;
        state->is_gone = true;
        callback = std::move(state->on_close);
      }
      if (callback) callback();
    }
  };

  void put(std::function<awaitable<void>(ServerCall&)> run, bool is_last = false) const {
    handle_->state->steps->put({std::move(run), is_last});
  }

  std::shared_ptr<Handle> handle_;
};

// For tests: a call that is under way while its thread does something else.
class BlockingCall {
 public:
  BlockingCall(const IoThreads& threads, const Client& client, ClientRequest request)
      : call_(std::make_shared<ClientCall>(client.call(std::move(request)))),
        threads_(threads),
        strand_(boost::asio::make_strand(threads.context())),
        head_(start<ResponseHead>([call = call_] { return call->head(); })) {}
  ~BlockingCall() {
    if (call_) boost::asio::post(strand_, [call = std::move(call_)] { call->close(); });
  }
  BlockingCall(BlockingCall&&) = default;

  Result<ResponseHead> head() { return head_.get(); }
  Result<std::string> read() {
    return start<std::string>([call = call_] { return call->read(); }).get();
  }
  void cancel() {
    boost::asio::post(strand_, [call = call_] { call->close(); });
  }

 private:
  template <class T, class Step>
  std::future<Result<T>> start(Step step) {
    auto promise = std::make_shared<std::promise<Result<T>>>();
    boost::asio::co_spawn(strand_, step(), [promise](const std::exception_ptr&, Result<T> result) {
      promise->set_value(std::move(result));
    });
    return promise->get_future();
  }

  std::shared_ptr<ClientCall> call_;
  const IoThreads& threads_;
  boost::asio::strand<boost::asio::io_context::executor_type> strand_;
  std::future<Result<ResponseHead>> head_;
};

}  // namespace cachalot::http
