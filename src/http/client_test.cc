#include "http/client.h"

#include <gmock/gmock.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <future>
#include <random>
#include <thread>
#include <vector>

#include "http/loopback_test_util.h"
#include "http/message.h"
#include "http/server.h"

namespace cachalot::http {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

Url url(const Server& server, const std::string& target) {
  return *parse_url("http://127.0.0.1:" + std::to_string(server.port()) + target);
}

class ClientTest : public testing::Test {
 protected:
  ClientTest() : server_(threads_, {.host = "127.0.0.1"}) {
    server_.route("POST", "/echo", [](const Request& request) {
      return Response{201, {{"X-Seen", std::string(request.headers.find("X-Test").value_or("-"))}}, request.body};
    });
    server_.route("GET", "/kept", Responder::of([this](const Request&, Responder responder) {
                    kept_.set_value(std::move(responder));
                  }));
    EXPECT_TRUE(server_.start());
  }

  IoThreads threads_{2};
  std::promise<Responder> kept_;
  Server server_;
};

TEST_F(ClientTest, FetchesAWholeResponse) {
  const Client client(threads_);
  const std::string body(3'000'000, 'b');
  const auto response =
      client.fetch({.method = "POST", .url = url(server_, "/echo"), .headers = {{"X-Test", "t"}}, .body = body});
  ASSERT_TRUE(response) << response.error().message;
  EXPECT_EQ(response->status, 201);
  EXPECT_EQ(response->headers.find("x-seen"), "t");
  EXPECT_EQ(response->body, body);
}

TEST_F(ClientTest, HeadHasNoBody) {
  const auto response = Client(threads_).fetch({.method = "OPTIONS", .url = url(server_, "/echo")});
  ASSERT_TRUE(response) << response.error().message;
  EXPECT_EQ(response->status, 204);
  EXPECT_EQ(response->body, "");
}

TEST_F(ClientTest, GivesTheBodyPieceByPieceAsItComes) {
  const Client client(threads_);
  BlockingCall call(threads_, client, {.url = url(server_, "/kept")});
  const Responder responder = kept_.get_future().get();
  responder.begin(200, {{"Content-Type", "text/event-stream"}});
  const auto head = call.head();
  ASSERT_TRUE(head) << head.error().message;
  EXPECT_EQ(head->headers.find("Content-Type"), "text/event-stream");
  for (const char* text : {"one", "two", "three"}) {
    responder.write(text, {});
    EXPECT_EQ(call.read(), text);
  }
  responder.end();
  EXPECT_EQ(call.read(), "");
}

TEST_F(ClientTest, ABrokenStreamIsAnError) {
  const Client client(threads_);
  BlockingCall call(threads_, client, {.url = url(server_, "/kept")});
  const Responder responder = kept_.get_future().get();
  responder.begin(200, {});
  responder.write("half", {});
  EXPECT_TRUE(call.head());
  EXPECT_EQ(call.read(), "half");
  responder.abort();
  const auto rest = call.read();
  ASSERT_FALSE(rest);
  EXPECT_EQ(rest.error().code, ErrorCode::kUnavailable);
}

TEST_F(ClientTest, CancellingReachesTheServerAndTheReader) {
  for (const bool streaming : {false, true}) {
    kept_ = {};
    const Client client(threads_);
    BlockingCall call(threads_, client, {.url = url(server_, "/kept")});
    const Responder responder = kept_.get_future().get();
    std::promise<void> gone;
    responder.on_close([&] { gone.set_value(); });
    if (streaming) {
      responder.begin(200, {});
      EXPECT_TRUE(call.head());
    }
    std::jthread canceller([&] {
      std::this_thread::sleep_for(milliseconds(20));
      call.cancel();
    });
    const ErrorCode code = streaming ? call.read().error().code : call.head().error().code;
    EXPECT_EQ(code, ErrorCode::kCancelled);
    EXPECT_EQ(gone.get_future().wait_for(kTestPatience), std::future_status::ready);
  }
}

TEST_F(ClientTest, ASlowReaderSlowsTheServer) {
  const Client client(threads_);
  BlockingCall call(threads_, client, {.url = url(server_, "/kept")});
  const Responder responder = kept_.get_future().get();
  responder.begin(200, {});
  EXPECT_TRUE(call.head());
  std::atomic<int> num_written = 0;
  std::function<void()> write_next = [&] {
    if (++num_written < 1000) responder.write(std::string(64 << 10, 'x'), write_next);
  };
  write_next();
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_LT(num_written, 1000);  // the sockets' buffers are full
  size_t num_bytes = 0;
  while (num_bytes < size_t{999} * (64 << 10)) num_bytes += call.read().value().size();
  responder.end();
  EXPECT_EQ(call.read(), "");
}

// Gives the pieces one by one, then the end or an error.
std::function<awaitable<Result<std::string>>()> pieces(std::vector<std::string> list, std::optional<Error> error = {}) {
  return [list = std::move(list), error = std::move(error),
          next = std::make_shared<size_t>(0)]() -> awaitable<Result<std::string>> {
    if (*next < list.size()) co_return list[(*next)++];
    if (error) co_return std::unexpected(*error);
    co_return std::string();
  };
}

TEST_F(ClientTest, SendsABodyPieceByPieceWithALengthOrInChunks) {
  for (const std::optional<uint64_t> size : {std::optional<uint64_t>(), std::optional<uint64_t>(11)}) {
    const auto response = Client(threads_).fetch({.method = "POST",
                                                  .url = url(server_, "/echo"),
                                                  .body = "first",
                                                  .more_body = pieces({"second"}),
                                                  .body_size = size});
    ASSERT_TRUE(response) << response.error().message;
    EXPECT_EQ(response->body, "firstsecond");
  }
}

TEST_F(ClientTest, ABodyThatBreaksOffIsNotSentAsTheWhole) {
  const Error error{ErrorCode::kInvalidArgument, "too large", {}};
  const auto response = Client(threads_).fetch(
      {.method = "POST", .url = url(server_, "/echo"), .body = "first", .more_body = pieces({"x"}, error)});
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().message, "too large");
}

TEST_F(ClientTest, NamesTheServerThatDoesNotAnswer) {
  uint16_t free_port;
  {
    Server server(threads_, {.host = "127.0.0.1"});
    ASSERT_TRUE(server.start());
    free_port = server.port();
  }
  const std::string address = "127.0.0.1:" + std::to_string(free_port);
  const auto refused = Client(threads_).fetch({.url = *parse_url("http://" + address)});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(refused.error().message, HasSubstr("cannot reach " + address));

  const auto silent = Client(threads_, {.idle_timeout = milliseconds(50)}).fetch({.url = url(server_, "/kept")});
  ASSERT_FALSE(silent);
  EXPECT_EQ(silent.error().code, ErrorCode::kDeadlineExceeded);
}

TEST_F(ClientTest, KeepsAConnectionForTheNextRequestOnlyIfItMay) {
  for (int request = 0; request < 5; request++) {
    const Client forgetful(threads_);
    ASSERT_TRUE(forgetful.fetch({.method = "POST", .url = url(server_, "/echo")}));
  }
  EXPECT_TRUE(eventually([&] { return server_.num_connections() == 0; }));
  const Client client(threads_, {.max_idle_connections = 2});
  const auto ask_together = [&](int number) {
    std::vector<std::future<Result<Response>>> asked;
    for (int idx = 0; idx < number; idx++)
      asked.push_back(std::async(std::launch::async, [&] {
        return client.fetch({.method = "POST", .url = url(server_, "/echo"), .body = std::string(100'000, 'x')});
      }));
    for (auto& answer : asked) EXPECT_EQ(answer.get()->body.size(), 100'000u);
  };
  for (int request = 0; request < 5; request++) ask_together(1);
  EXPECT_EQ(server_.num_connections(), 1);
  ask_together(8);
  EXPECT_TRUE(eventually([&] { return server_.num_connections() <= 2; })) << "no more than two are kept";
}

TEST_F(ClientTest, AKeptConnectionThatItsServerClosedIsReplaced) {
  const Client client(threads_, {.max_idle_connections = 4});
  uint16_t port = 0;
  for (int life = 0; life < 3; life++) {
    Server server(threads_, {.host = "127.0.0.1", .port = port});
    server.route("GET", "/", [](const Request&) { return Response(); });
    const Status started = server.start();
    if (!started && life > 0) GTEST_SKIP() << "another program has taken the port: " << started.error().message;
    ASSERT_TRUE(started) << started.error().message;
    port = server.port();
    for (int request = 0; request < 3; request++) EXPECT_TRUE(client.fetch({.url = url(server, "/")}));
  }
}

// A server that reads a request on a kept connection and closes it without a word, as one whose time was up.
TEST_F(ClientTest, ARequestThatMetTheEndOfItsConnectionIsSentAgainOverANewOne) {
  boost::asio::io_context context;
  boost::asio::ip::tcp::acceptor acceptor(context, {boost::asio::ip::make_address("127.0.0.1"), 0});
  const auto address = parse_url("http://127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()));
  std::jthread peer([&] {
    char request[1024];
    boost::system::error_code ignored;
    for (int connection = 0; connection < 2; connection++) {
      auto socket = acceptor.accept();
      socket.read_some(boost::asio::buffer(request), ignored);
      boost::asio::write(socket, boost::asio::buffer(std::string("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")),
                         ignored);
      if (connection == 0) socket.read_some(boost::asio::buffer(request), ignored);
    }
  });
  const Client client(threads_, {.max_idle_connections = 1});
  EXPECT_TRUE(client.fetch({.url = *address}));
  EXPECT_TRUE(client.fetch({.url = *address}));
}

TEST_F(ClientTest, InterimAnswersAreWaitedOut) {
  boost::asio::io_context context;
  boost::asio::ip::tcp::acceptor acceptor(context, {boost::asio::ip::make_address("127.0.0.1"), 0});
  const auto address = parse_url("http://127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()));
  std::jthread peer([&] {
    auto socket = acceptor.accept();
    char request[1024];
    socket.read_some(boost::asio::buffer(request));
    boost::asio::write(socket,
                       boost::asio::buffer(std::string("HTTP/1.1 100 Continue\r\n\r\n"
                                                       "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
                                                       "HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\nabc")));
  });
  const auto response = Client(threads_).fetch({.url = *address});
  ASSERT_TRUE(response) << response.error().message;
  EXPECT_EQ(response->status, 201);
  EXPECT_EQ(response->body, "abc");
  EXPECT_FALSE(response->headers.contains("Link"));
}

TEST_F(ClientTest, SurvivesAnswersThatAreNotHttp) {
  boost::asio::io_context context;
  boost::asio::ip::tcp::acceptor acceptor(context, {boost::asio::ip::make_address("127.0.0.1"), 0});
  const auto address = parse_url("http://127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()));
  for (const std::string& answer : {std::string(), std::string("SSH-2.0-x\r\n"), std::string(100'000, 'x'),
                                    std::string("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
                                    std::string("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
                                    std::string("HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n"),
                                    std::string("HTTP/1.1 700 OK\r\nContent-Length: 0\r\n\r\n"),
                                    std::string("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
                                    std::string("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
                                    std::string("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n")}) {
    std::jthread peer([&] {
      auto socket = acceptor.accept();
      boost::system::error_code ignored;
      char request[1024];
      socket.read_some(boost::asio::buffer(request), ignored);
      boost::asio::write(socket, boost::asio::buffer(answer), ignored);
    });
    const auto response = Client(threads_).fetch({.url = *address});
    ASSERT_FALSE(response) << answer.substr(0, 80);
    EXPECT_EQ(response.error().code, ErrorCode::kUnavailable);
  }
}

TEST(Url, IsTakenApart) {
  const auto plain = parse_url("http://localhost:8000/v1?x=1#part");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->host, "localhost");
  EXPECT_EQ(plain->port, 8000);
  EXPECT_EQ(plain->target, "/v1?x=1");
  const auto v6 = parse_url("http://[::1]");
  ASSERT_TRUE(v6);
  EXPECT_EQ(v6->host, "::1");
  EXPECT_EQ(v6->authority(), "[::1]");
  EXPECT_EQ(v6->target, "/");
}

TEST(Url, WhatIsNoAddressIsRefused) {
  for (const char* text : {"", "localhost:8000", "ftp://a", "http://", "http://:80", "http://a:", "http://a:0",
                           "http://a:99999", "http://a:8x", "http://[::1", "http://a b", "http://user@a"})
    EXPECT_FALSE(parse_url(text)) << text;
}

TEST(Sse, EventsSurviveBeingCutAnywhere) {
  const std::string stream = ": hello\n" + format_sse("one\ntwo") + "event: error\r\ndata:three\r\n\r\n" +
                             "data: four\r\rid: 7\n\n" + "data\n\n";
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    SseParser parser;
    std::vector<SseEvent> events;
    for (size_t at = 0; at < stream.size();) {
      const size_t size = 1 + random() % 9;
      const auto some = parser.add(std::string_view(stream).substr(at, size));
      ASSERT_TRUE(some);
      events.insert(events.end(), some->begin(), some->end());
      at += size;
    }
    ASSERT_EQ(events.size(), 4u);
    EXPECT_EQ(events[0].data, "one\ntwo");
    EXPECT_EQ(events[1].data, "three");
    EXPECT_EQ(events[1].event, "error");
    EXPECT_EQ(events[2].data, "four");
    EXPECT_EQ(events[3].data, "");
  }
}

TEST(Sse, AnEventWithoutAnEndIsGivenUp) {
  SseParser parser(1000);
  EXPECT_TRUE(parser.add("data: " + std::string(900, 'x')));
  EXPECT_FALSE(parser.add(std::string(200, 'x')));
}

}  // namespace
}  // namespace cachalot::http
