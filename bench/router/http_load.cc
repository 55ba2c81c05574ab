// http_load requests PORT CONNECTIONS SECONDS [REQUESTS_PER_SECOND]
// http_load streams PORT STREAMS SECONDS
//
// `requests`: POSTs a small completion over CONNECTIONS kept connections, each anew when it has its answer, or, with a
// rate, when its turn comes; prints requests a second and latencies in microseconds. With a rate a latency counts from
// when the request was due, so that a server that falls behind cannot hide it. `streams`: opens so many streams and
// holds them; prints how many had an event, and how many lived to the end.
#include <algorithm>
#include <boost/asio.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using Clock = std::chrono::steady_clock;

std::string make_request(const std::string& body) {
  return "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n\r\n" + body;
}

const std::string kRequest =
    make_request(R"({"model":"null","prompt":"Which one is larger? 3.8 or 3.11","max_tokens":1024,"temperature":0})");
const std::string kStreamRequest =
    make_request(R"({"model":"null","prompt":"Which one is larger? 3.8 or 3.11","max_tokens":1024,"stream":true})");

struct Load {
  asio::io_context context{1};
  tcp::endpoint server;
  Clock::time_point measured_from, end;
  Clock::duration interval{0};  // between two requests of one connection; 0: as fast as answers come
  std::vector<float> micros;
  int num_failed = 0;
};

// One connection that asks again and again.
class Asker : public std::enable_shared_from_this<Asker> {
 public:
  Asker(Load& load, Clock::time_point first) : load_(load), socket_(load.context), timer_(load.context), due_(first) {
    socket_.connect(load.server);
    socket_.set_option(tcp::no_delay(true));
  }

  void next() {
    if (load_.interval.count() == 0) {
      due_ = Clock::now();
      return send();
    }
    timer_.expires_at(due_);
    timer_.async_wait([self = shared_from_this()](auto) { self->send(); });
  }

 private:
  void send() {
    if (Clock::now() >= load_.end) return;
    asio::async_write(socket_, asio::buffer(kRequest), [self = shared_from_this()](auto error, size_t) {
      if (error) return self->fail();
      self->read();
    });
  }

  void read() {
    socket_.async_read_some(asio::buffer(bytes_), [self = shared_from_this()](auto error, size_t num_bytes) {
      if (error) return self->fail();
      self->received_.append(self->bytes_, num_bytes);
      self->take();
    });
  }

  void take() {
    const auto head_end = received_.find("\r\n\r\n");
    if (head_end == received_.npos) return read();
    if (received_.compare(0, 12, "HTTP/1.1 200") != 0) return fail();
    size_t length = 0;
    for (const char* name : {"Content-Length: ", "content-length: "})
      if (const auto found = received_.find(name); found < head_end)
        length = std::strtoul(received_.c_str() + found + std::strlen(name), nullptr, 10);
    if (received_.size() < head_end + 4 + length) return read();
    received_.clear();
    const auto now = Clock::now();
    if (now >= load_.measured_from && now < load_.end)
      load_.micros.push_back(std::chrono::duration<float, std::micro>(now - due_).count());
    due_ += load_.interval;
    next();
  }

  void fail() { load_.num_failed++; }

  Load& load_;
  tcp::socket socket_;
  asio::steady_timer timer_;
  Clock::time_point due_;
  char bytes_[4096];
  std::string received_;
};

int ask(Load& load, int num_connections, int seconds, double rate) {
  const auto start = Clock::now();
  load.measured_from = start + std::chrono::seconds(1);  // the first second warms up
  load.end = load.measured_from + std::chrono::seconds(seconds);
  const std::chrono::duration<double> interval(rate > 0 ? num_connections / rate : 0);
  load.interval = std::chrono::duration_cast<Clock::duration>(interval);
  for (int idx = 0; idx < num_connections; idx++)
    std::make_shared<Asker>(load, start + load.interval * idx / num_connections)->next();
  load.context.run_until(load.end + std::chrono::seconds(1));
  if (load.micros.empty()) return std::puts("no answers"), 1;
  std::ranges::sort(load.micros);
  const auto quantile = [&](double part) {
    return load.micros[static_cast<size_t>(static_cast<double>(load.micros.size() - 1) * part)];
  };
  std::printf("%.0f requests/s, p50 %.0f us, p99 %.0f us, %d failed\n",
              static_cast<double>(load.micros.size()) / seconds, quantile(0.5), quantile(0.99), load.num_failed);
  return load.num_failed > 0;
}

// One connection that reads events.
class Listener : public std::enable_shared_from_this<Listener> {
 public:
  Listener(asio::io_context& context, int& num_begun, int& num_alive)
      : socket_(context), num_begun_(num_begun), num_alive_(num_alive) {}

  void start(const tcp::endpoint& server) {
    socket_.async_connect(server, [self = shared_from_this()](auto error) {
      if (error) return;
      asio::async_write(self->socket_, asio::buffer(kStreamRequest), [self](auto, size_t) {});
      self->read();
    });
  }

 private:
  void read() {
    socket_.async_read_some(asio::buffer(bytes_), [self = shared_from_this()](auto error, size_t num_bytes) {
      const bool has_event = std::string_view(self->bytes_, num_bytes).find("data: ") != std::string_view::npos;
      if (has_event && !std::exchange(self->begun_, true)) self->num_begun_++, self->num_alive_++;
      if (!error) return self->read();
      if (self->begun_) self->num_alive_--;
    });
  }

  tcp::socket socket_;
  int &num_begun_, &num_alive_;
  bool begun_ = false;
  char bytes_[512];
};

int hold(Load& load, int num_streams, int seconds) {
  int num_begun = 0, num_alive = 0;
  for (int idx = 0; idx < num_streams; idx++) {
    std::make_shared<Listener>(load.context, num_begun, num_alive)->start(load.server);
    if (idx % 64 == 0) load.context.run_for(std::chrono::milliseconds(5));  // not all at once
  }
  const auto deadline = Clock::now() + std::chrono::seconds(30);
  while (num_begun < num_streams && Clock::now() < deadline) load.context.run_for(std::chrono::milliseconds(50));
  std::printf("%d of %d streams have begun\n", num_begun, num_streams);
  std::fflush(stdout);
  load.context.run_for(std::chrono::seconds(seconds));
  std::printf("%d are alive\n", num_alive);
  return num_alive != num_streams;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return std::fputs("usage: http_load requests|streams PORT NUMBER SECONDS [RATE]\n", stderr), 2;
  Load load;
  load.server = {asio::ip::make_address("127.0.0.1"), static_cast<uint16_t>(std::atoi(argv[2]))};
  const int number = std::atoi(argv[3]), seconds = std::atoi(argv[4]);
  const int status = argv[1] == std::string("streams") ? hold(load, number, seconds)
                                                       : ask(load, number, seconds, argc > 5 ? std::atof(argv[5]) : 0);
  std::fflush(stdout);
  std::_Exit(status);  // thousands of sockets need no tidying
}
