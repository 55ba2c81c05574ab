#include "http/server.h"

#include <gmock/gmock.h>

#include <atomic>
#include <random>
#include <thread>

#include "http/loopback_test_util.h"
#include "http/sse.h"

namespace cachalot::http {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

bool eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 500; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return false;
}

class ServerTest : public testing::Test {
 protected:
  ServerTest() { options_.host = "127.0.0.1"; }

  // `prepare` may add routes and hooks.
  Server& start(const std::function<void(Server&)>& prepare = {}) {
    server_ = std::make_unique<Server>(threads_, options_);
    server_->route("GET", "/hello", [](const Request& request, const Responder& responder) {
      responder.respond(Response::text(200, "hello " + request.query));
    });
    server_->route("POST", "/echo", [](const Request& request, const Responder& responder) {
      responder.respond(Response::text(200, request.body));
    });
    server_->route("GET", "/files/*", [](const Request& request, const Responder& responder) {
      responder.respond(Response::text(200, request.path));
    });
    server_->route("GET", "/kept",
                   [this](const Request&, Responder responder) { kept_.set_value(std::move(responder)); });
    if (prepare) prepare(*server_);
    EXPECT_TRUE(server_->start());
    return *server_;
  }
  RawClient connect() { return RawClient(server_->port()); }
  // The handle of the request to /kept, once it has come.
  Responder kept() {
    auto future = kept_.get_future();
    EXPECT_EQ(future.wait_for(std::chrono::seconds(5)), std::future_status::ready);
    return future.get();
  }
  std::string answer_to(std::string_view bytes) {
    RawClient client = connect();
    client.send(bytes);
    return client.read_to_end();
  }

  IoThreads threads_{2};
  ServerOptions options_;
  std::promise<Responder> kept_;
  std::unique_ptr<Server> server_;
};

TEST_F(ServerTest, AnswersOverOneConnectionAgainAndAgain) {
  start();
  RawClient client = connect();
  for (int i = 0; i < 3; ++i) {
    client.send("GET /hello?x=" + std::to_string(i) + " HTTP/1.1\r\nHost: a\r\n\r\n");
    const std::string response = client.read_response();
    EXPECT_THAT(response, StartsWith("HTTP/1.1 200 OK\r\n"));
    EXPECT_THAT(response, EndsWith("hello x=" + std::to_string(i)));
  }
  EXPECT_EQ(server_->num_connections(), 1);
}

TEST_F(ServerTest, ReadsBodiesByLengthAndInChunks) {
  start();
  RawClient client = connect();
  client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde");
  EXPECT_THAT(client.read_response(), EndsWith("\r\n\r\nabcde"));
  client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
  client.send("4\r\ndefg\r\n0\r\n\r\n");
  EXPECT_THAT(client.read_response(), EndsWith("\r\n\r\nabcdefg"));
}

TEST_F(ServerTest, AnswersPipelinedRequestsInOrder) {
  start();
  std::string requests;
  for (int i = 0; i < 50; ++i)
    requests += "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n" + std::to_string(10 + i);
  RawClient client = connect();
  client.send(requests);
  for (int i = 0; i < 50; ++i) EXPECT_THAT(client.read_response(), EndsWith("\r\n\r\n" + std::to_string(10 + i)));
}

TEST_F(ServerTest, RequestsThatComeDuringAnAnswerWaitForItsEnd) {
  start();
  RawClient client = connect();
  client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
  const Responder responder = kept();
  client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  std::this_thread::sleep_for(milliseconds(30));
  responder.respond(Response::text(200, "first"));
  EXPECT_THAT(client.read_response(), EndsWith("first"));
  EXPECT_THAT(client.read_response(), EndsWith("hello "));
}

TEST_F(ServerTest, UnknownPathsAndMethodsAreToldApart) {
  start();
  RawClient client = connect();
  client.send("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(client.read_response(), StartsWith("HTTP/1.1 404 Not Found\r\n"));
  client.send("DELETE /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  const std::string response = client.read_response();
  EXPECT_THAT(response, StartsWith("HTTP/1.1 405 Method Not Allowed\r\n"));
  EXPECT_THAT(response, HasSubstr("Allow: GET, HEAD, OPTIONS\r\n"));
  client.send("GET /files/a%20b/c HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(client.read_response(), EndsWith("/files/a b/c"));
}

TEST_F(ServerTest, HeadHasTheLengthButNoBody) {
  start();
  RawClient client = connect();
  client.send("HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(client.read_until("\r\n\r\n"), HasSubstr("Content-Length: 6\r\n"));
  EXPECT_THAT(client.read_to_end(), StartsWith("HTTP/1.1 200 OK\r\n"));
}

TEST_F(ServerTest, OptionsTellsABrowserWhatItMaySend) {
  start();
  RawClient client = connect();
  client.send(
      "OPTIONS /echo HTTP/1.1\r\nHost: a\r\nOrigin: http://x\r\nAccess-Control-Request-Headers: authorization\r\n\r\n");
  const std::string response = client.read_until("\r\n\r\n");
  EXPECT_THAT(response, StartsWith("HTTP/1.1 204 No Content\r\n"));
  EXPECT_THAT(response, HasSubstr("Access-Control-Allow-Origin: *\r\n"));
  EXPECT_THAT(response, HasSubstr("Access-Control-Allow-Headers: authorization\r\n"));
  EXPECT_THAT(response, HasSubstr("Access-Control-Allow-Methods: OPTIONS, POST\r\n"));
}

TEST_F(ServerTest, TooLargeABodyIsRefusedBeforeItIsRead) {
  options_.max_body_bytes = 100;
  start();
  EXPECT_THAT(answer_to("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n"), StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(answer_to("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n60\r\n" +
                        std::string(96, 'x') + "\r\n60\r\n" + std::string(96, 'x') + "\r\n0\r\n\r\n"),
              AllOf(StartsWith("HTTP/1.1 413 "), HasSubstr("the request's body is larger than 100 bytes")));
}

TEST_F(ServerTest, ARefusalReachesAClientThatIsStillSending) {
  options_.max_body_bytes = 1000;
  start();
  RawClient client = connect();
  client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n");
  client.send(std::string(4'000'000, 'x'));
  EXPECT_THAT(client.read_to_end(), StartsWith("HTTP/1.1 413 "));
}

TEST_F(ServerTest, TooLargeAHeaderIsRefused) {
  options_.max_header_bytes = 4096;
  start();
  EXPECT_THAT(answer_to("GET /hello HTTP/1.1\r\nHost: a\r\nX: " + std::string(5000, 'x') + "\r\n\r\n"),
              StartsWith("HTTP/1.1 431 "));
}

TEST_F(ServerTest, ExpectationsOfAContinueAreMetOrRefused) {
  start();
  RawClient client = connect();
  client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("abc");
  EXPECT_THAT(client.read_response(), EndsWith("abc"));
  EXPECT_THAT(answer_to("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"),
              StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(answer_to("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: miracles\r\n\r\n"),
              StartsWith("HTTP/1.1 417 "));
}

TEST_F(ServerTest, RequestsOfUncertainLengthAreRefused) {
  start();
  const std::string line = "POST /echo HTTP/1.1\r\nHost: a\r\n";
  const std::vector<std::string> heads = {
      "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
      "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
      "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
      "Transfer-Encoding: gzip\r\n",
      "Transfer-Encoding: chunked, identity\r\n",
      "Transfer-Encoding: xchunked\r\n",
      "Content-Length: 3\r\nContent-Length: 4\r\n",
      "Content-Length: 3\r\nContent-Length: 3\r\n",
      "Content-Length: -3\r\n",
      "Content-Length: +3\r\n",
      "Content-Length: 3 4\r\n",
      "Content-Length: 99999999999999999999999\r\n",
      "Content-Length : 3\r\n",
  };
  for (const std::string& fields : heads) {
    const std::string answer = answer_to(line + fields + "\r\nabcGET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_THAT(answer, testing::ContainsRegex("^HTTP/1.1 (400|413|501) ")) << fields;
    EXPECT_THAT(answer, Not(HasSubstr("hello"))) << fields;
  }
  EXPECT_THAT(answer_to("POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
              StartsWith("HTTP/1.1 400 "));
}

TEST_F(ServerTest, MalformedHeadsAreRefused) {
  start();
  for (const char* bytes : {"GET /hello HTTP/1.1\r\n\r\n", "GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
                            "GET hello HTTP/1.1\r\nHost: a\r\n\r\n", "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
                            "GET /hello HTTP/1.1\r\nHo st: a\r\n\r\n", "\x16\x03\x01\x02\r\n\r\n"})
    EXPECT_THAT(answer_to(bytes), StartsWith("HTTP/1.1 400 ")) << bytes;
}

TEST_F(ServerTest, SurvivesRandomBytes) {
  start();
  std::mt19937 random(7);
  const std::string valid = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
  for (int i = 0; i < 300; ++i) {
    std::string bytes = valid;
    for (int edits = 1 + static_cast<int>(random() % 4); edits > 0; --edits) {
      const size_t at = random() % bytes.size();
      if (random() % 3 == 0)
        bytes.erase(at, 1 + random() % 8);
      else
        bytes[at] = static_cast<char>(random());
    }
    RawClient client = connect();
    client.send(bytes);
    if (i % 2) client.reset();
  }
  RawClient client = connect();
  client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(client.read_response(), StartsWith("HTTP/1.1 200 OK\r\n"));
}

TEST_F(ServerTest, StreamsInChunksAndKeepsTheConnection) {
  start();
  RawClient client = connect();
  client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
  const Responder responder = kept();
  responder.begin(200, {{"Content-Type", "text/event-stream"}});
  EXPECT_THAT(client.read_until("\r\n\r\n"), HasSubstr("Transfer-Encoding: chunked\r\n"));
  EXPECT_TRUE(responder.write(format_sse("one")));
  EXPECT_EQ(client.read_until("one\n\n\r\n"), "b\r\ndata: one\n\n\r\n");
  std::promise<void> written;
  EXPECT_TRUE(responder.write(format_sse("two"), [&] { written.set_value(); }));
  EXPECT_EQ(written.get_future().wait_for(std::chrono::seconds(5)), std::future_status::ready);
  responder.end();
  EXPECT_EQ(client.read_until("0\r\n\r\n"), "b\r\ndata: two\n\n\r\n0\r\n\r\n");
  client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(client.read_response(), EndsWith("hello "));
}

TEST_F(ServerTest, AStreamOfAKnownLengthNeedsNoChunks) {
  start([](Server& server) {
    server.route("GET", "/known", [](const Request&, const Responder& responder) {
      responder.begin(200, {{"Content-Length", "8"}});
      responder.write("half");
      responder.write("half");
      responder.end();
    });
    server.route("GET", "/short", [](const Request&, const Responder& responder) {
      responder.begin(200, {{"Content-Length", "8"}});
      responder.write("half", [responder] { responder.abort(); });
    });
  });
  RawClient client = connect();
  for (int request = 0; request < 2; request++) {
    client.send("GET /known HTTP/1.1\r\nHost: x\r\n\r\n");
    const std::string answer = client.read_response();
    EXPECT_THAT(answer, EndsWith("\r\n\r\nhalfhalf"));
    EXPECT_THAT(answer, Not(HasSubstr("chunked")));
  }
  EXPECT_THAT(answer_to("GET /short HTTP/1.1\r\nHost: x\r\n\r\n"), Not(HasSubstr("halfhalf")));
}

// A handler that pulls what is left of a body, and answers with its size.
class Puller : public std::enable_shared_from_this<Puller> {
 public:
  Puller(Request request, Responder responder)
      : source_(request.more_body), num_bytes_(request.body.size()), responder_(std::move(responder)) {}
  void pull() {
    if (!source_) return responder_.respond(Response::text(200, std::to_string(num_bytes_)));
    source_->read([self = shared_from_this()](Result<std::string> piece) {
      if (!piece) {
        const bool is_too_large = piece.error().code == ErrorCode::kTooLarge;
        return self->responder_.respond(Response::text(is_too_large ? 413 : 400, piece.error().message));
      }
      self->num_bytes_ += piece->size();
      if (piece->empty()) self->source_.reset();
      self->pull();
    });
  }

 private:
  std::shared_ptr<BodySource> source_;
  size_t num_bytes_;
  const Responder responder_;
};

TEST_F(ServerTest, AnUploadsHandlerPullsWhatIsNotBuffered) {
  options_.max_buffered_body_bytes = 1000;
  options_.max_body_bytes = 1 << 20;
  std::atomic<int> num_pulled = 0;
  start([&](Server& server) {
    server.route_upload("POST", "/size", [&](Request request, Responder responder) {
      if (request.more_body) num_pulled++;
      std::make_shared<Puller>(std::move(request), std::move(responder))->pull();
    });
    server.route_upload("POST", "/refused", [](const Request&, const Responder& responder) {
      responder.respond(Response::text(403, "no"));
    });
  });
  RawClient client = connect();
  const std::string head = "POST /size HTTP/1.1\r\nHost: x\r\n";
  const auto send = [&](size_t size) {
    client.send(head + "Content-Length: " + std::to_string(size) + "\r\n\r\n" + std::string(size, 'x'));
    return client.read_response();
  };
  EXPECT_THAT(send(500), EndsWith("\r\n\r\n500"));
  EXPECT_EQ(num_pulled, 0);
  for (const size_t size : {500'000, 70'000, 900'000})
    EXPECT_THAT(send(size), EndsWith("\r\n\r\n" + std::to_string(size)));
  EXPECT_EQ(num_pulled, 3);
  EXPECT_THAT(send(20), EndsWith("\r\n\r\n20")) << "the connection lives on";

  const std::string chunk = "2710\r\n" + std::string(10'000, 'x') + "\r\n";
  client.send(head + "Transfer-Encoding: chunked\r\n\r\n");
  for (int idx = 0; idx < 5; idx++) client.send(chunk);
  client.send("0\r\n\r\n");
  EXPECT_THAT(client.read_response(), EndsWith("\r\n\r\n50000"));

  client.send(head + "Transfer-Encoding: chunked\r\n\r\n" + chunk + "zz\r\n");
  EXPECT_THAT(client.read_to_end(), StartsWith("HTTP/1.1 400"));
  RawClient endless = connect();
  endless.send(head + "Transfer-Encoding: chunked\r\n\r\n");
  for (int idx = 0; idx < 105; idx++) endless.send(chunk);
  EXPECT_THAT(endless.read_to_end(),
              AllOf(StartsWith("HTTP/1.1 413"), HasSubstr("the request's body is larger than 1048576 bytes")));
  RawClient refused = connect();
  refused.send("POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n" + std::string(5'000, 'x'));
  EXPECT_THAT(refused.read_until("no"), StartsWith("HTTP/1.1 403"));
}

TEST_F(ServerTest, AnAbortedStreamDoesNotLookComplete) {
  start();
  RawClient client = connect();
  client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
  Responder responder = kept();
  responder.begin(200, {});
  responder.write("half", {});
  responder.abort();
  const std::string received = client.read_to_end();
  EXPECT_THAT(received, EndsWith("4\r\nhalf\r\n"));
}

TEST_F(ServerTest, ADroppedRequestGetsA500) {
  start();
  RawClient client = connect();
  client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
  kept();
  EXPECT_THAT(client.read_response(), StartsWith("HTTP/1.1 500 "));
}

TEST_F(ServerTest, AnHttp10ClientGetsAStreamThatEndsWithTheConnection) {
  start();
  RawClient client = connect();
  client.send("GET /kept HTTP/1.0\r\n\r\n");
  const Responder responder = kept();
  responder.begin(200, {});
  responder.write("all", {});
  responder.end();
  EXPECT_THAT(client.read_to_end(), EndsWith("\r\n\r\nall"));
}

TEST_F(ServerTest, TellsTheHandlerThatTheClientWentAwayWhileItWaits) {
  start();
  for (const bool reset : {false, true}) {
    kept_ = {};
    RawClient client = connect();
    client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
    const Responder responder = kept();
    std::promise<void> gone;
    responder.on_close([&] { gone.set_value(); });
    reset ? client.reset() : client.close();
    EXPECT_EQ(gone.get_future().wait_for(std::chrono::seconds(5)), std::future_status::ready);
    EXPECT_TRUE(responder.closed());
    responder.respond(Response::text(200, "too late"));
  }
  EXPECT_TRUE(eventually([&] { return server_->num_connections() == 0; }));
}

TEST_F(ServerTest, ACompleteAnswerIsNotReportedAsGone) {
  start();
  RawClient client = connect();
  client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
  const Responder responder = kept();
  std::atomic<bool> gone = false;
  responder.on_close([&] { gone = true; });
  responder.respond(Response::text(200, "done"));
  EXPECT_THAT(client.read_response(), EndsWith("done"));
  client.close();
  EXPECT_TRUE(eventually([&] { return server_->num_connections() == 0; }));
  EXPECT_FALSE(gone);
}

TEST_F(ServerTest, CutsAClientThatReadsTooSlowlyWithoutBlockingTheWriter) {
  options_.max_queued_bytes = 1 << 20;
  start();
  RawClient client = connect();
  client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
  const Responder responder = kept();
  std::promise<void> gone;
  responder.on_close([&] { gone.set_value(); });
  responder.begin(200, {});
  size_t num_bytes = 0;
  while (num_bytes < 64 << 20 && responder.write(std::string(64 << 10, 'x'))) num_bytes += 64 << 10;
  EXPECT_LT(num_bytes, 32 << 20);
  EXPECT_EQ(gone.get_future().wait_for(std::chrono::seconds(5)), std::future_status::ready);
  EXPECT_TRUE(eventually([&] { return server_->num_connections() == 0; }));
}

TEST_F(ServerTest, CutsAClientThatReadsNothingForTooLong) {
  options_.write_timeout = milliseconds(100);
  start();
  RawClient client = connect();
  client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
  const Responder responder = kept();
  responder.respond(Response::text(200, std::string(64 << 20, 'x')));
  EXPECT_TRUE(eventually([&] { return responder.closed(); }));
}

TEST_F(ServerTest, ClosesConnectionsThatAreIdleOrSlowToAsk) {
  options_.idle_timeout = options_.header_timeout = options_.body_timeout = milliseconds(100);
  start();
  for (const char* bytes : {"", "GET /hel", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab"})
    EXPECT_EQ(answer_to(bytes), "") << bytes;
}

TEST_F(ServerTest, MoreConnectionsThanAllowedWaitUntilOneEnds) {
  options_.max_connections = 2;
  start();
  RawClient idle = connect(), busy = connect();
  idle.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(idle.read_response(), StartsWith("HTTP/1.1 200 OK\r\n"));
  busy.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
  const Responder responder = kept();
  RawClient third = connect();
  third.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(third.read_response(), StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_EQ(idle.read_to_end(), "");  // it made room
  responder.respond(Response::text(200, "still here"));
  EXPECT_THAT(busy.read_response(), EndsWith("still here"));
}

TEST_F(ServerTest, TheHeadCheckRefusesBeforeTheBodyIsRead) {
  start([](Server& server) {
    server.set_head_check([](const Request& head) -> std::optional<Response> {
      if (head.headers.contains("authorization")) return std::nullopt;
      return Response::text(401, "who are you?");
    });
  });
  EXPECT_THAT(answer_to("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n"), StartsWith("HTTP/1.1 401 "));
  RawClient client = connect();
  client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(client.read_response(), StartsWith("HTTP/1.1 401 "));
  client.send("GET /hello HTTP/1.1\r\nHost: a\r\nAuthorization: me\r\n\r\n");
  EXPECT_THAT(client.read_response(), StartsWith("HTTP/1.1 200 "));
}

TEST_F(ServerTest, DrainLetsARunningRequestFinish) {
  start();
  RawClient idle = connect(), client = connect();
  client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
  const Responder responder = kept();
  responder.begin(200, {});
  auto drained = std::async(std::launch::async, [&] { return server_->drain(std::chrono::seconds(5)); });
  EXPECT_EQ(idle.read_to_end(), "");
  responder.write("late but whole", {});
  responder.end();
  EXPECT_THAT(client.read_to_end(), EndsWith("e\r\nlate but whole\r\n0\r\n\r\n"));
  client.close();
  EXPECT_TRUE(drained.get());
  EXPECT_TRUE(eventually([this] {  // the listener closes on a strand of its own
    try {
      return connect(), false;
    } catch (const std::exception&) {
      return true;
    }
  }));
}

TEST_F(ServerTest, DrainClosesWhatDoesNotFinishInTime) {
  start();
  RawClient client = connect();
  client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
  const Responder responder = kept();
  std::promise<void> gone;
  responder.on_close([&] { gone.set_value(); });
  EXPECT_FALSE(server_->drain(milliseconds(50)));
  EXPECT_EQ(gone.get_future().wait_for(std::chrono::seconds(5)), std::future_status::ready);
  EXPECT_EQ(server_->num_connections(), 0);
}

TEST_F(ServerTest, AHandlerThatThrowsCostsOnlyItsRequest) {
  start([](Server& server) {
    server.route("GET", "/throws", [](const Request&, const Responder&) { throw std::bad_alloc(); });
  });
  RawClient client = connect();
  client.send("GET /throws HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(client.read_response(), StartsWith("HTTP/1.1 500 "));
  EXPECT_THAT(client.read_response(), StartsWith("HTTP/1.1 200 "));
}

TEST_F(ServerTest, ListensOnIpv6AndNamesAPortThatIsTaken) {
  options_.host = "::1";
  Server& server = start();
  options_.port = server.port();
  Server second(threads_, options_);
  const Status status = second.start();
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("cannot listen on [::1]:" + std::to_string(server.port())));
}

TEST(ResponseHead, ValuesCannotStartFieldsOfTheirOwn) {
  EXPECT_EQ(format_response_head(200, {{"X", "a\r\nSet-Cookie: b"}}), "HTTP/1.1 200 OK\r\nX: a  Set-Cookie: b\r\n\r\n");
}

}  // namespace
}  // namespace cachalot::http
