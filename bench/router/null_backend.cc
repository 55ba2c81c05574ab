// null_backend PORT [THREADS]
//
// A server that costs as little as can be, in a replica's place: it answers every POST at once with a small JSON body,
// and one whose body holds "stream" with server-sent events: one at once and another one every two seconds, for ever.
// GET gets 200.
#include <boost/asio.hpp>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

const std::string kAnswerBody =
    R"({"id":"cmpl-0","object":"text_completion","created":0,"model":"null","choices":[{"index":0,"text":" 3.8 is larger than )"
    R"(3.11.","logprobs":null,"finish_reason":"stop","stop_reason":null}],"usage":{"prompt_tokens":18,"completion_tokens":9,)"
    R"("total_tokens":27}})";
const std::string kAnswer =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(kAnswerBody.size()) +
    "\r\n\r\n" + kAnswerBody;
const std::string kHealth = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
const std::string kStreamHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const std::string kEventData = R"(data: {"id":"cmpl-0","choices":[{"index":0,"text":" larger","finish_reason":null}]})"
                               "\n\n";
const std::string kEvent = [] {
  char size[16];
  std::snprintf(size, sizeof(size), "%zx\r\n", kEventData.size());
  return size + kEventData + "\r\n";
}();

class Session : public std::enable_shared_from_this<Session> {
 public:
  explicit Session(tcp::socket socket) : socket_(std::move(socket)), timer_(socket_.get_executor()) {
    socket_.set_option(tcp::no_delay(true));
  }

  void read() {
    socket_.async_read_some(asio::buffer(bytes_), [self = shared_from_this()](auto error, size_t num_bytes) {
      if (error) {
        self->timer_.cancel();
        return;
      }
      self->received_.append(self->bytes_, num_bytes);
      self->answer();
    });
  }

 private:
  // Whole requests that have come are taken off.
  void answer() {
    const auto end = received_.find("\r\n\r\n");
    if (end == received_.npos) return read();
    const size_t size = end + 4 + body_size(std::string_view(received_).substr(0, end));
    if (received_.size() < size) return read();
    const std::string_view request = std::string_view(received_).substr(0, size);
    const bool is_get = request.starts_with("GET"), is_stream = request.find("\"stream\"") != request.npos;
    received_ = received_.substr(size);
    if (is_stream) return stream(kStreamHead + kEvent);
    asio::async_write(socket_, asio::buffer(is_get ? kHealth : kAnswer),
                      [self = shared_from_this()](auto error, size_t) {
                        if (!error) self->answer();
                      });
  }

  static size_t body_size(std::string_view head) {
    for (const std::string_view name : {"Content-Length: ", "content-length: "})
      if (const auto found = head.find(name); found != head.npos)
        return std::strtoul(head.data() + found + name.size(), nullptr, 10);
    return 0;
  }

  void stream(std::string bytes) {
    auto held = std::make_shared<std::string>(std::move(bytes));
    asio::async_write(socket_, asio::buffer(*held), [self = shared_from_this(), held](auto error, size_t) {
      if (error) return;
      self->timer_.expires_after(std::chrono::seconds(2));
      self->timer_.async_wait([self](auto error) {
        if (!error) self->stream(kEvent);
      });
    });
  }

  tcp::socket socket_;
  asio::steady_timer timer_;
  char bytes_[2048];
  std::string received_;
};

void accept(tcp::acceptor& acceptor) {
  acceptor.async_accept([&acceptor](auto error, tcp::socket socket) {
    if (!error) std::make_shared<Session>(std::move(socket))->read();
    accept(acceptor);
  });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return std::cerr << "usage: null_backend PORT\n", 2;
  asio::io_context context(1);
  tcp::acceptor acceptor(context, {asio::ip::make_address("127.0.0.1"), static_cast<uint16_t>(std::atoi(argv[1]))});
  accept(acceptor);
  context.run();
}
