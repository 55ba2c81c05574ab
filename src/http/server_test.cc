#include "http/server.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <atomic>
#include <random>
#include <thread>

#include "base/process_test_util.h"
#include "http/loopback_test_util.h"
#include "http/message.h"

namespace cachalot::http {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class ServerTest : public testing::Test {
 protected:
  ServerTest() {
    options_.host = "127.0.0.1";
    options_.door.allowed_hosts = {"*"};
  }

  // `prepare` may add routes and hooks.
  Server& start(const std::function<void(Server&)>& prepare = {}) {
    server_ = std::make_unique<Server>(threads_, options_);
    server_->route("GET", "/hello", [](const Request& request) {
      const size_t query = std::min(request.target.find('?'), request.target.size() - 1);
      return Response::text(200, "hello " + request.target.substr(query + 1));
    });
    server_->route("POST", "/echo", [](const Request& request) { return Response::text(200, request.body); });
    server_->route("GET", "/files/*", [](const Request& request) { return Response::text(200, request.path); });
    for (const char* method : {"GET", "POST"})
      server_->route(method, "/kept", Responder::of([this](const Request&, Responder responder) {
                       kept_.set_value(std::move(responder));
                     }));
    if (prepare) prepare(*server_);
    EXPECT_TRUE(server_->start());
    return *server_;
  }
  RawClient connect() { return RawClient(server_->port()); }
  // The handle of the request to /kept, once it has come.
  Responder kept() {
    auto future = kept_.get_future();
    EXPECT_EQ(future.wait_for(kTestPatience), std::future_status::ready);
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

TEST_F(ServerTest, PagesOfOtherOriginsMayNothingUnlessTheyAreNamed) {
  start();
  constexpr std::string_view kEcho = "POST /echo HTTP/1.1\r\nHost: me:8\r\nContent-Length: 0\r\nConnection: close\r\n";
  const auto asks = [&](const std::string& fields) { return answer_to(std::string(kEcho) + fields + "\r\n"); };
  for (const char* origin : {"http://evil.example", "null", "x", "http://me:8.evil.example", "https://me:80"})
    EXPECT_THAT(asks(fmt::format("Origin: {}\r\n", origin)),
                AllOf(StartsWith("HTTP/1.1 403 "), HasSubstr("--allowed-o"), Not(HasSubstr("Access-Control"))))
        << origin;
  EXPECT_THAT(asks("Origin: http://me:8\r\n"), AllOf(StartsWith("HTTP/1.1 200 "), Not(HasSubstr("Access-Control"))));
  EXPECT_THAT(asks("Origin: https://front.example\r\nSec-Fetch-Site: same-origin\r\n"), StartsWith("HTTP/1.1 200 "));
  const std::string preflight = answer_to(
      "OPTIONS /echo HTTP/1.1\r\nHost: me:8\r\nOrigin: http://x\r\nAccess-Control-Request-Method: POST\r\n"
      "Connection: close\r\n\r\n");
  EXPECT_THAT(preflight, AllOf(StartsWith("HTTP/1.1 403 "), Not(HasSubstr("Access-Control"))));
}

TEST_F(ServerTest, NamedOriginsMayAskAsTheyAreAllowedTo) {
  options_.door.cors = {.origins = {"https://chat.example"}, .headers = {"authorization", "content-type"}};
  start();
  const auto asks = [&](std::string_view method, const std::string& fields) {
    return answer_to(fmt::format("{} /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{}\r\n", method, fields));
  };
  const std::string ours = "Origin: https://chat.example\r\n";
  EXPECT_THAT(asks("POST", ours + "Content-Length: 0\r\n"),
              AllOf(StartsWith("HTTP/1.1 200 "), HasSubstr("Vary: Origin\r\n"),
                    HasSubstr("Access-Control-Allow-Origin: https://chat.example\r\n"), Not(HasSubstr("Credentials"))));
  EXPECT_THAT(asks("OPTIONS", ours + "Access-Control-Request-Headers: x-other\r\n"),
              AllOf(StartsWith("HTTP/1.1 204 "), HasSubstr("Access-Control-Allow-Methods: OPTIONS, POST\r\n"),
                    HasSubstr("Access-Control-Allow-Headers: authorization, content-type\r\n")));
  EXPECT_THAT(asks("POST", "Origin: https://other.example\r\nContent-Length: 0\r\n"), StartsWith("HTTP/1.1 403 "));
  EXPECT_THAT(asks("POST", "Content-Length: 0\r\n"), Not(HasSubstr("Access-Control")));
}

TEST_F(ServerTest, AllOriginsAreNamedByAStar) {
  options_.door.cors.origins = {"*"};
  start();
  const std::string ask =
      "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\nOrigin: null\r\n\r\n";
  EXPECT_THAT(answer_to(ask), HasSubstr("Access-Control-Allow-Origin: *\r\n"));
}

TEST_F(ServerTest, OnLoopbackANameThatWasMadeToMeanThisMachineIsRefused) {
  options_.door.allowed_hosts = {"proxy.example"};
  start();
  const auto asks = [&](std::string_view host) {
    return answer_to(fmt::format("GET /hello HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", host));
  };
  for (const char* host : {"evil.example", "evil.example:80", "localhost.evil.example", "notlocalhost", "10.0.0.1",
                           "127.0.0.1.evil.example"})
    EXPECT_THAT(asks(host), AllOf(StartsWith("HTTP/1.1 403 "), HasSubstr("--allowed-hosts"))) << host;
  for (const char* host : {"localhost", "LocalHost:1234", "127.0.0.1:80", "127.1.2.3", "[::1]:80", "me.localhost",
                           "proxy.example", "Proxy.Example:443"})
    EXPECT_THAT(asks(host), StartsWith("HTTP/1.1 200 ")) << host;
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

TEST_F(ServerTest, MalformedHeadsAreRefusedAtOnce) {
  start();
  const std::string line = "GET /hello HTTP/1.1\r\n";
  using namespace std::string_literals;
  for (const std::string& bytes :
       {line + "\r\n", line + "Host: a\r\nHost: b\r\n\r\n", "GET hello HTTP/1.1\r\nHost: a\r\n\r\n"s,
        "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n"s, line + "Ho st: a\r\n\r\n", "\x16\x03\x01\x02"s,
        "\x16\x03\x01\x02\r\n\r\n"s, "GET /hello HTTP/1.1\nHost: a\n"s, line + "Host: a\n\n",
        line + "Host: a\r\nX: a\rb\r\n\r\n", line + "Host: a\r\nX: 1\r\n 2\r\n\r\n",
        line + "Host: a\r\nX: 1\r\n\t2\r\n\r\n", line + "Host: a\r\nX: \0\r\n\r\n"s, line + "Host: a\r\nX : 1\r\n\r\n",
        line + "Host: a\r\n: 1\r\n\r\n"})
    EXPECT_THAT(answer_to(bytes), AllOf(StartsWith("HTTP/1.1 400 "), HasSubstr("Connection: close\r\n"))) << bytes;
  EXPECT_THAT(answer_to("\r\nGET /hello HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.1 200 ")) << "an empty line before it";
}

TEST_F(ServerTest, ChunksThatOthersMayReadOtherwiseAreRefused) {
  start();
  for (const char* chunk : {"3;x=1\r\nabc\r\n0\r\n\r\n", "3;x\r\nabc\r\n0\r\n\r\n", "3\nabc\r\n0\r\n\r\n",
                            "+3\r\nabc\r\n0\r\n\r\n", "0x3\r\nabc\r\n0\r\n\r\n", " 3\r\nabc\r\n0\r\n\r\n",
                            "3\r\nabcd\r\n0\r\n\r\n", "ffffffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
                            "3\r\nabc\r\n0;x\r\n\r\n", "-1\r\nabc\r\n0\r\n\r\n", "\r\nabc\r\n0\r\n\r\n"}) {
    const std::string answer = answer_to("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" +
                                         std::string(chunk) + "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_THAT(answer, AllOf(StartsWith("HTTP/1.1 400 "), HasSubstr("Connection: close\r\n"))) << chunk;
    EXPECT_THAT(answer, Not(HasSubstr("hello"))) << chunk;
  }
  EXPECT_THAT(answer_to("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff0\r\nabc"),
              StartsWith("HTTP/1.1 413 "));
}

TEST_F(ServerTest, PathsAreReadInOneWayOnly) {
  start();
  const auto answer_to_path = [&](const std::string& path) {
    return answer_to("GET " + path + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  };
  for (const char* path : {"/files/../hello", "/files/./a", "/files/%2e%2e/hello", "/files/%2E%2e%2fhello", "/..", "/.",
                           "/files/a/..", "/files/a%00b", "/files/a%0ab", "/files/a%7f", "/files%2f..%2fhello"})
    EXPECT_THAT(answer_to_path(path), StartsWith("HTTP/1.1 400 ")) << path;
  EXPECT_THAT(answer_to_path("//hello"), EndsWith("hello "));
  EXPECT_THAT(answer_to_path("/files//a///b"), EndsWith("\r\n/files/a/b"));
  EXPECT_THAT(answer_to_path("/files/..a/b..?x=/../"), EndsWith("\r\n/files/..a/b.."));
  EXPECT_THAT(answer_to_path("/nowhere\xff"), AllOf(StartsWith("HTTP/1.1 404 "), HasSubstr("'/nowhere\\xff'")));
}

TEST_F(ServerTest, AnEncodedBodyIsRefusedWithTheEncodingsThatAreTaken) {
  start();
  for (const char* coding : {"gzip", "br", "zstd, identity", "x"})
    EXPECT_THAT(answer_to("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Encoding: " + std::string(coding) +
                          "\r\nContent-Length: 3\r\n\r\nabc"),
                AllOf(StartsWith("HTTP/1.1 415 "), HasSubstr("Accept-Encoding: identity\r\n"), HasSubstr(coding)));
  EXPECT_THAT(answer_to("POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Encoding: Identity\r\n"
                        "Content-Length: 3\r\n\r\nabc"),
              StartsWith("HTTP/1.1 200 "));
}

TEST_F(ServerTest, AClientThatClosesItsHalfGetsItsAnswer) {
  start();
  RawClient quick = connect();
  quick.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
  quick.close_half();
  EXPECT_THAT(quick.read_to_end(), AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), EndsWith("\r\n\r\nabc")));
  for (const bool streams : {false, true}) {
    kept_ = {};
    RawClient client = connect();
    client.send("POST /kept HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    client.close_half();
    const Responder responder = kept();
    std::this_thread::sleep_for(milliseconds(100));
    EXPECT_FALSE(responder.closed());
    if (streams) {
      responder.begin(200, {});
      responder.write("late");
      std::this_thread::sleep_for(milliseconds(50));
      responder.end();
    } else {
      responder.respond(Response::text(200, "late"));
    }
    const std::string answer = client.read_to_end();
    EXPECT_THAT(answer, AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), HasSubstr("late"))) << streams;
    EXPECT_EQ(answer.find("HTTP/1.1", 1), answer.npos) << answer;
  }
  RawClient both = connect();
  both.send("GET /hello?1 HTTP/1.1\r\nHost: a\r\n\r\nGET /hello?2 HTTP/1.1\r\nHost: a\r\n\r\n");
  both.close_half();
  EXPECT_THAT(both.read_to_end(), AllOf(HasSubstr("hello 1"), HasSubstr("hello 2")));
}

// The end of what a client says comes while its request is answered: it is not waited for again.
TEST_F(ServerTest, AHalfClosedConnectionEndsBehindWhatWasAsked) {
  start();
  for (const std::string_view begun :
       {"", "GET /hel", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab"}) {
    kept_ = {};
    RawClient client = connect();
    client.send(fmt::format("POST /kept HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc{}", begun));
    client.close_half();
    const Responder responder = kept();
    std::this_thread::sleep_for(milliseconds(50));
    responder.respond(Response::text(200, "late"));
    EXPECT_THAT(client.read_to_end(), AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), HasSubstr("late"))) << begun;
  }
}

TEST_F(ServerTest, SaysHowLongAConnectionMayBeIdle) {
  options_.idle_timeout = std::chrono::seconds(7);
  start();
  RawClient client = connect();
  client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(client.read_response(), HasSubstr("\r\nKeep-Alive: timeout=7\r\n"));
  client.send("GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(client.read_response(), Not(HasSubstr("Keep-Alive")));
}

TEST_F(ServerTest, BodiesInFlightHaveABudget) {
  options_.max_body_bytes_in_flight = 1 << 20;
  options_.budget_patience = milliseconds(0);
  std::promise<std::pair<Request, Responder>> holds;
  start([&](Server& server) {
    server.route("POST", "/held", Responder::of([&](Request request, Responder responder) {
                   holds.set_value({std::move(request), std::move(responder)});
                 }));
  });
  const std::string fields = " HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 700000\r\n\r\n";
  const std::string echo = "POST /echo" + fields + std::string(700'000, 'x');
  // Who has its answer finds the bytes given back.
  for (int round = 0; round < 20; ++round) ASSERT_THAT(answer_to(echo), StartsWith("HTTP/1.1 200 ")) << round;
  RawClient holder = connect();
  holder.send("POST /held" + fields + std::string(700'000, 'x'));
  std::optional<std::pair<Request, Responder>> held = holds.get_future().get();
  EXPECT_THAT(answer_to(echo), AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr("Retry-After: "),
                                     HasSubstr("Connection: close\r\n"), HasSubstr("1048576")));
  RawClient small = connect();
  small.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n" + std::string(50'000, 'x'));
  EXPECT_THAT(small.read_response(), StartsWith("HTTP/1.1 200 ")) << "small ones always pass";
  held->first = {};
  EXPECT_THAT(answer_to(echo), StartsWith("HTTP/1.1 200 "));
  held->second.respond(Response::text(200, "held"));
  EXPECT_THAT(holder.read_to_end(), EndsWith("held"));
}

TEST_F(ServerTest, HalfSentHeadsTakeNobodysPlace) {
  options_.max_connections = 20;
  options_.num_reserved_connections = 4;
  start([](Server& server) {
    server.route("GET", "/health", [](const Request&) { return Response::text(200, "well"); });
  });
  RawClient known = connect();
  known.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(known.read_response(), EndsWith("well"));
  std::vector<std::unique_ptr<RawClient>> slow;
  for (int idx = 0; idx < 100; ++idx) {
    slow.push_back(std::make_unique<RawClient>(server_->port()));
    slow.back()->send("GET /hello HT");
  }
  OwnTime time;
  for (const char* path : {"/health", "/hello"}) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_THAT(answer_to("GET " + std::string(path) + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
                StartsWith("HTTP/1.1 200 "));
    EXPECT_LT(time.since(start), milliseconds(1500)) << path;
  }
  EXPECT_LE(server_->num_connections(), 24);
  known.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(known.read_response(), EndsWith("well")) << "who has been of use goes last";
  EXPECT_EQ(slow.front()->read_to_end(), "") << "the oldest made room";
}

TEST_F(ServerTest, WhereAllConnectionsAreBusyThereIsRoomForHealthAndARefusalForOthers) {
  options_.max_connections = 2;
  std::mutex mutex;
  std::vector<Responder> busy;
  start([&](Server& server) {
    server.route("GET", "/health", [](const Request&) { return Response::text(200, "well"); });
    server.route("GET", "/busy", Responder::of([&](const Request&, Responder responder) {
                   const std::lock_guard lock(mutex);
                   busy.push_back(std::move(responder));
                 }));
  });
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int idx = 0; idx < 2; ++idx) {
    clients.push_back(std::make_unique<RawClient>(server_->port()));
    clients.back()->send("GET /busy HTTP/1.1\r\nHost: a\r\n\r\n");
  }
  EXPECT_TRUE(eventually([&] {
    const std::lock_guard lock(mutex);
    return busy.size() == 2;
  }));
  const std::string end = " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
  EXPECT_THAT(answer_to("GET /health" + end), StartsWith("HTTP/1.1 200 "));
  // Its connection, as long as it is there, makes room for the next.
  EXPECT_TRUE(eventually([&] { return server_->num_connections() == 2; }));
  EXPECT_THAT(answer_to("GET /hello" + end), AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr("Retry-After: ")));
  for (const Responder& responder : busy) responder.respond(Response::text(200, "done"));
  for (const auto& client : clients) EXPECT_THAT(client->read_response(), EndsWith("done"));
}

TEST_F(ServerTest, AStreamOfEventsThatTheDrainCutsEndsWithAnError) {
  start();
  RawClient client = connect();
  client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
  const Responder responder = kept();
  responder.begin(200, {{"Content-Type", "text/event-stream"}});
  responder.write("data: 1\n\n");
  client.read_until("data: 1\n\n");
  EXPECT_FALSE(server_->drain(milliseconds(50)));
  EXPECT_THAT(client.read_to_end(), AllOf(HasSubstr("data: the server is shutting down; the answer is incomplete"),
                                          Not(HasSubstr("\r\n0\r\n"))));
}

TEST_F(ServerTest, TheDrainHasAWordForAClientThatHasSentAsMuchAsIsKept) {
  start();
  RawClient client = connect();
  client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
  const Responder responder = kept();
  const std::string next = "GET /kept HTTP/1.1\r\nX: ";
  client.send(next + std::string((64 << 10) - next.size(), 'x'));  // as many bytes as are kept
  std::this_thread::sleep_for(milliseconds(100));                  // until they have been read
  EXPECT_FALSE(server_->drain(milliseconds(50)));
  EXPECT_THAT(client.read_to_end(), AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr("the server is shutting down")));
}

// Its last event, where it is cut, would not fit.
TEST_F(ServerTest, AStreamOfEventsHasNoLength) {
  start();
  RawClient client = connect();
  client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
  const Responder responder = kept();
  responder.begin(200, {{"Content-Type", "text/event-stream"}, {"Content-Length", "20"}});
  responder.write("data: 1\n\n");
  EXPECT_THAT(client.read_until("\r\n\r\n"),
              AllOf(HasSubstr("Transfer-Encoding: chunked\r\n"), Not(HasSubstr("Content-Length"))));
  responder.abort();
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
  responder.write(format_sse("one"));
  EXPECT_EQ(client.read_until("one\n\n\r\n"), "b\r\ndata: one\n\n\r\n");
  std::promise<void> written;
  responder.write(format_sse("two"), [&] { written.set_value(); });
  EXPECT_EQ(written.get_future().wait_for(kTestPatience), std::future_status::ready);
  responder.end();
  EXPECT_EQ(client.read_until("0\r\n\r\n"), "b\r\ndata: two\n\n\r\n0\r\n\r\n");
  client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(client.read_response(), EndsWith("hello "));
}

TEST_F(ServerTest, AStreamOfAKnownLengthNeedsNoChunks) {
  start([](Server& server) {
    server.route("GET", "/known", [](ServerCall& call) -> awaitable<void> {
      call.begin(200, {{"Content-Length", "8"}});
      co_await call.send("half");
      co_await call.end("half");
    });
    server.route("GET", "/short", [](ServerCall& call) -> awaitable<void> {
      call.begin(200, {{"Content-Length", "8"}});
      co_await call.end("half");
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

// Pulls what is left of a body, and answers with its size.
awaitable<void> answer_with_size(ServerCall& call) {
  size_t num_bytes = call.request.body.size();
  for (;;) {
    Result<std::string> piece = co_await call.read();
    if (!piece) {
      const bool is_too_large = piece.error().code == ErrorCode::kTooLarge;
      co_return co_await call.respond(Response::text(is_too_large ? 413 : 400, piece.error().message));
    }
    if (piece->empty()) break;
    num_bytes += piece->size();
  }
  co_await call.respond(Response::text(200, std::to_string(num_bytes)));
}

TEST_F(ServerTest, AnUploadsHandlerPullsWhatIsNotBuffered) {
  options_.max_buffered_body_bytes = 1000;
  options_.max_body_bytes = 1 << 20;
  start([&](Server& server) {
    server.route_upload("POST", "/size", answer_with_size);
    server.route_upload("POST", "/refused",
                        [](ServerCall& call) -> awaitable<void> { co_await call.respond(Response::text(403, "no")); });
  });
  RawClient client = connect();
  const std::string head = "POST /size HTTP/1.1\r\nHost: x\r\n";
  const auto send = [&](size_t size) {
    client.send(head + "Content-Length: " + std::to_string(size) + "\r\n\r\n" + std::string(size, 'x'));
    return client.read_response();
  };
  EXPECT_THAT(send(500), EndsWith("\r\n\r\n500"));
  for (const size_t size : {500'000, 70'000, 900'000})
    EXPECT_THAT(send(size), EndsWith("\r\n\r\n" + std::to_string(size)));
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
  EXPECT_THAT(refused.read_until("no"), AllOf(StartsWith("HTTP/1.1 403"), HasSubstr("Connection: close\r\n")));
}

// Timers, reads and ends of uploads meet on several threads; for AddressSanitizer and ThreadSanitizer.
TEST_F(ServerTest, AnUploadThatTricklesHasNoMoreTimeThanAnotherBody) {
  options_.max_buffered_body_bytes = 10;
  options_.body_timeout = milliseconds(200);
  std::promise<ErrorCode> ended;
  start([&](Server& server) {
    server.route_upload("POST", "/upload", [&](ServerCall& call) -> awaitable<void> {
      Result<std::string> piece;
      do piece = co_await call.read();
      while (piece && !piece->empty());
      ended.set_value(piece ? ErrorCode::kInternal : piece.error().code);
    });
  });
  RawClient client = connect();
  client.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + std::string(20, 'x'));
  std::future<ErrorCode> end = ended.get_future();
  for (int idx = 0; idx < 200 && end.wait_for(milliseconds(20)) != std::future_status::ready; idx++) client.send("x");
  ASSERT_EQ(end.wait_for(milliseconds(0)), std::future_status::ready);
  EXPECT_EQ(end.get(), ErrorCode::kDeadlineExceeded);
}

TEST_F(ServerTest, UploadsThatAreBrokenOffLeaveNothingBehind) {
  options_.max_buffered_body_bytes = 1000;
  options_.body_timeout = milliseconds(20);
  start([](Server& server) { server.route_upload("POST", "/size", answer_with_size); });
  std::atomic<bool> stop = false;
  std::vector<std::jthread> clients;
  for (unsigned idx = 0; idx < 4; ++idx)
    clients.emplace_back([&, idx] {
      std::mt19937 random(idx);
      while (!stop) {
        RawClient client = connect();
        client.send("POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" +
                    std::string(random() % 5000, 'x'));
        if (random() % 2) std::this_thread::sleep_for(milliseconds(random() % 25));
        if (random() % 2) client.reset();
      }
    });
  std::this_thread::sleep_for(std::chrono::seconds(2));
  stop = true;
  clients.clear();
  EXPECT_TRUE(eventually([&] { return server_->num_connections() == 0; }));
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
    EXPECT_EQ(gone.get_future().wait_for(kTestPatience), std::future_status::ready);
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

TEST_F(ServerTest, AClientThatReadsSlowlySlowsItsHandlerAndIsCutWhenItStops) {
  options_.write_timeout = milliseconds(200);
  start();
  RawClient client = connect();
  client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
  const Responder responder = kept();
  std::promise<void> gone;
  responder.on_close([&] { gone.set_value(); });
  responder.begin(200, {});
  std::atomic<size_t> num_written = 0;
  std::function<void()> write_more = [&] {
    if ((num_written += 64 << 10) < 64 << 20) responder.write(std::string(64 << 10, 'x'), write_more);
  };
  write_more();
  EXPECT_EQ(gone.get_future().wait_for(kTestPatience), std::future_status::ready);
  EXPECT_LT(num_written, 32 << 20);
  EXPECT_TRUE(eventually([&] { return server_->num_connections() == 0; }));
}

TEST_F(ServerTest, CutsAClientThatReadsNothingForTooLong) {
  options_.write_timeout = milliseconds(100);
  start();
  RawClient client = connect();
  client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
  const Responder responder = kept();
  responder.respond(Response::text(200, std::string(16 << 20, 'x')));  // sockets hold less
  EXPECT_TRUE(eventually([&] { return responder.closed(); }));
}

TEST_F(ServerTest, ClosesConnectionsThatAreIdleOrSlowToAsk) {
  options_.idle_timeout = options_.header_timeout = options_.body_timeout = milliseconds(100);
  start();
  EXPECT_EQ(answer_to(""), "");
  for (const char* bytes : {"GET /hel", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab"})
    EXPECT_THAT(answer_to(bytes), AllOf(StartsWith("HTTP/1.1 408 Request Timeout\r\n"),
                                        HasSubstr("Connection: close\r\n"), HasSubstr("within 0.1 s")))
        << bytes;
  RawClient idle = connect();
  idle.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  idle.read_response();
  EXPECT_EQ(idle.read_to_end(), "");
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

// Whose answer has come, but for the thread that is still to see that it is through, holds no place; nor does a
// connection that was told to make room and is not gone yet.
TEST_F(ServerTest, WhoIsAnsweredOrToldToLeaveHoldsNoPlace) {
  constexpr std::string_view kAsk = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n",
                             kAskOnce = "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
  options_.max_connections = 2;
  start();
  RawClient busy = connect();
  busy.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
  const Responder responder = kept();
  for (int round = 0; round < 300; ++round) {
    RawClient first = connect();
    first.send(round % 2 == 0 ? kAsk : kAskOnce);
    ASSERT_THAT(first.read_response(), StartsWith("HTTP/1.1 200 OK\r\n")) << round;
    RawClient second = connect();
    second.send(std::string(kAsk) + std::string(kAsk));
    ASSERT_THAT(second.read_response(), StartsWith("HTTP/1.1 200 OK\r\n")) << round;
    ASSERT_THAT(second.read_response(), StartsWith("HTTP/1.1 200 OK\r\n")) << round;
  }
  responder.respond(Response::text(200, "still here"));
  EXPECT_THAT(busy.read_response(), EndsWith("still here"));
}

TEST_F(ServerTest, TheHeadCheckRefusesBeforeTheBodyIsRead) {
  start([](Server& server) {
    server.set_head_check([](const Request& head) -> std::expected<std::shared_ptr<Visit>, Response> {
      if (head.headers.contains("authorization")) return nullptr;
      return std::unexpected(Response::text(401, "who are you?"));
    });
  });
  EXPECT_THAT(answer_to("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n"), StartsWith("HTTP/1.1 401 "));
  RawClient client = connect();
  client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(client.read_response(), StartsWith("HTTP/1.1 401 "));
  client.send("GET /hello HTTP/1.1\r\nHost: a\r\nAuthorization: me\r\n\r\n");
  EXPECT_THAT(client.read_response(), StartsWith("HTTP/1.1 200 "));
}

TEST_F(ServerTest, TheObserverHearsOfEachRequestThatIsOver) {
  std::mutex mutex;
  std::vector<std::string> lines;
  start([&](Server& server) {
    server.route("POST", "/told/*", [](ServerCall& call) -> awaitable<void> {
      call.id = "req-7";
      call.story = "two tokens";
      const Request request = std::move(call.request);
      co_await call.respond(Response::text(201, "made"));
    });
    server.set_observer([&](const ServedRequest& served) {
      const std::lock_guard lock(mutex);
      lines.push_back(fmt::format("{} {} {} {} {} {} {}", served.id, served.method, served.path, served.route,
                                  served.status, served.num_body_bytes, served.is_whole));
      EXPECT_LT(served.seconds, 60);
      if (served.status == 201) {
        EXPECT_THAT(access_line(served), testing::MatchesRegex("127[.0-9:]* POST '/told/it' 201, 4 bytes in "
                                                               "[.0-9]* s; two tokens"));
      }
    });
  });
  const auto ask = [&](const std::string& head) {
    return answer_to(head + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  };
  ask("POST /told/it");
  ask("GET /nowhere");
  ask("POST /hello");
  RawClient client = connect();
  client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
  client.read_response();
  // What is refused by its head, or while its body comes.
  answer_to("POST /echo?a=b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc");
  answer_to("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n");
  RawClient gone = connect();
  gone.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
  const Responder responder = kept();
  gone.reset();
  ASSERT_TRUE(eventually([&] {
    const std::lock_guard lock(mutex);
    return lines.size() == 7;
  }));
  EXPECT_THAT(lines, testing::UnorderedElementsAre(
                         "req-7 POST /told/it /told/* 201 4 true", " GET /nowhere  404 23 true",
                         " POST /hello  405 30 true", " POST /echo /echo 200 3 true", " GET /kept /kept 499 0 false",
                         testing::StartsWith(" POST /echo  400 "), testing::StartsWith(" POST /echo /echo 400 ")));
}

TEST_F(ServerTest, DrainLetsARunningRequestFinish) {
  start();
  RawClient idle = connect(), client = connect();
  client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
  const Responder responder = kept();
  responder.begin(200, {});
  auto drained = std::async(std::launch::async, [&] { return server_->drain(kTestPatience); });
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
  EXPECT_EQ(gone.get_future().wait_for(kTestPatience), std::future_status::ready);
  EXPECT_EQ(server_->num_connections(), 0);
}

TEST_F(ServerTest, AHandlerThatThrowsCostsOnlyItsRequest) {
  start([](Server& server) {
    server.route("GET", "/throws", [](const Request&) -> Response { throw std::bad_alloc(); });
    server.route("POST", "/throws", [](ServerCall& call) -> awaitable<void> {
      co_await call.read();
      throw std::bad_alloc();
    });
  });
  RawClient client = connect();
  client.send("GET /throws HTTP/1.1\r\nHost: a\r\n\r\n");
  client.send("POST /throws HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
  client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(client.read_response(), StartsWith("HTTP/1.1 500 "));
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
