#include "router/running_router.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/json/parse.hpp>
#include <future>
#include <thread>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "base/ports.h"
#include "base/process_test_util.h"
#include "http/certificate_test_util.h"
#include "http/client.h"
#include "http/loopback_test_util.h"
#include "http/tls.h"
#include "openai/api_server.h"
#include "openai/fake_service_test_util.h"
#include "router/fake_replica_test_util.h"

namespace cachalot::router {
namespace {

using http::eventually;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using testing::AllOf;
using testing::AnyOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class RouterTest : public testing::Test {
 protected:
  RouterTest() {
    options_.host = "127.0.0.1";
    options_.port = 0;
    options_.health_interval = milliseconds(20);
    options_.health_timeout = seconds(10);  // where silence is not what it is about
    options_.slow_start = seconds(0);
  }
  ~RouterTest() override {
    if (router_) router_->stop(steady_clock::now());
  }

  FakeReplica& add_replica(uint16_t port = 0) {
    replicas_.push_back(std::make_unique<FakeReplica>(threads_, "replica " + std::to_string(replicas_.size()), port));
    EXPECT_TRUE(replicas_.back()->is_listening);
    options_.server_urls.push_back(replicas_.back()->url());
    return *replicas_.back();
  }
  FakeReplica& replica(size_t idx) { return *replicas_[idx]; }
  // With all replicas up, unless fewer are meant to come.
  void start(std::optional<size_t> num_up = std::nullopt) {
    auto router = RunningRouter::start(options_);
    ASSERT_TRUE(router) << router.error().message;
    router_ = std::move(*router);
    EXPECT_TRUE(eventually([&] { return this->num_up() == num_up.value_or(replicas_.size()); }));
  }
  http::Url url(const std::string& target) {
    return *http::parse_url("http://127.0.0.1:" + std::to_string(router_->port()) + target);
  }
  http::Response get(const std::string& target) { return *client_.fetch({.url = url(target)}); }
  http::Response complete(http::Headers headers = {}, std::string body = R"({"prompt": "hello"})") {
    const auto response = client_.fetch(
        {.method = "POST", .url = url("/v1/completions"), .headers = std::move(headers), .body = std::move(body)});
    return response ? *response : http::Response::text(0, response.error().message);
  }
  boost::json::value status_of_replicas() { return boost::json::parse(get("/replicas").body).at("replicas"); }
  size_t num_up() {
    size_t num_up = 0;
    const boost::json::value status = status_of_replicas();
    for (const auto& replica : status.as_array()) num_up += replica.at("healthy").as_bool() ? 1 : 0;
    return num_up;
  }

  http::IoThreads threads_{2};
  http::Client client_{threads_};
  RouterOptions options_;
  std::vector<std::unique_ptr<FakeReplica>> replicas_;
  std::unique_ptr<RunningRouter> router_;
};

TEST_F(RouterTest, PassesRequestsOnAndAnswersBack) {
  add_replica().on_completion = [](const http::Request& request, const http::Responder& responder) {
    responder.respond({201, {{"Content-Type", "text/x"}, {"X-Own", "1"}}, request.body + "!"});
  };
  start();
  const auto answer = complete({{"X-Test", "t"}}, "body");
  EXPECT_EQ(answer.status, 201);
  EXPECT_EQ(answer.body, "body!");
  EXPECT_EQ(answer.headers.find("X-Own"), "1");
  EXPECT_EQ(answer.headers.find("Content-Length"), "5");
  const http::Request seen = replica(0).last_request();
  EXPECT_EQ(seen.headers.find("X-Test"), "t");
  EXPECT_EQ(seen.headers.find("X-Forwarded-For"), "127.0.0.1");
  EXPECT_EQ(seen.headers.find("X-Request-Id"), answer.headers.find("X-Request-Id"));
  EXPECT_EQ(complete({{"X-Request-Id", "mine"}}).headers.find("X-Request-Id"), "mine");
  EXPECT_EQ(replica(0).last_request().headers.find("X-Request-Id"), "mine");
}

TEST_F(RouterTest, ThePageIsOpenAndItsEventsWantTheKey) {
  options_.api_keys = {"key"};
  options_.model = "nano";
  add_replica().state = R"({"version": 1, "phase": "ready", "running": 3, "ranks": [{"rank": 5, "phase": "ready"}]})";
  add_replica();
  auto router = RunningRouter::start(options_);
  ASSERT_TRUE(router);
  router_ = std::move(*router);
  EXPECT_EQ(get("/").status, 200);
  EXPECT_EQ(get("/page/app.js").status, 200);
  EXPECT_EQ(get("/cluster/events").status, 401);
  http::RawClient client(router_->port());
  client.send("GET /cluster/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer key\r\n\r\n");
  EXPECT_THAT(client.read_until("event: hello\n"), Not(HasSubstr("closed")));
  EXPECT_THAT(client.read_until("\n\n"), AllOf(HasSubstr(R"("kind":"router")"), HasSubstr(R"("model":"nano")")));
  // Each replica as it tells of itself; one that does not, as the router knows it.
  for (;;) {
    ASSERT_THAT(client.read_until("event: state\ndata: "), Not(HasSubstr("closed")));
    const boost::json::value state = boost::json::parse(client.read_until("\n\n"));
    const boost::json::array& replicas = state.at("replicas").as_array();
    ASSERT_EQ(replicas.size(), 2);
    if (replicas[0].at("ranks").as_array().empty() || replicas[1].at("state") != "up") continue;
    EXPECT_EQ(replicas[0].at("ranks").at(0).at("rank"), 5);
    EXPECT_EQ(replicas[0].at("running"), 3);
    EXPECT_EQ(replicas[1].at("url").as_string(), replica(1).url());
    EXPECT_TRUE(replicas[1].at("ranks").as_array().empty());
    break;
  }
  // Who watches holds up nobody's end.
  const auto began = steady_clock::now();
  router_->stop(began + seconds(60));
  EXPECT_LT(steady_clock::now() - began, seconds(30));
}

TEST_F(RouterTest, WhatIsStoredIsAskedForWhereItIs) {
  const std::string marks[] = {std::string(16, 'a'), std::string(16, 'b')};
  for (const std::string& mark : marks)
    add_replica().load =
        R"({"running": 0, "waiting": 0, "pending_tokens": 0, "kv_usage": 0, "instance": ")" + mark + "\"}";
  start();
  const auto id_at = [&](const std::string& mark) { return "resp_" + mark + std::string(32, '0'); };
  const auto go_on_from = [&](const std::string& id) {
    return *client_.fetch({.method = "POST",
                           .url = url("/v1/responses"),
                           .body = R"({"input": "a", "previous_response_id": ")" + id + "\"}"});
  };
  for (int time = 0; time < 3; time++) {
    for (size_t idx = 0; idx < 2; idx++) {
      const std::string name = "replica " + std::to_string(idx);
      EXPECT_EQ(go_on_from(id_at(marks[idx])).body, name);
      EXPECT_EQ(get("/v1/responses/" + id_at(marks[idx])).body, name);
      EXPECT_EQ(get("/v1/responses/" + id_at(marks[idx]) + "/input_items?limit=1").body, name);
    }
  }
  const auto is_gone = [&](const std::string& mark) {
    const http::Response refusal = go_on_from(id_at(mark)), missing = get("/v1/responses/" + id_at(mark));
    EXPECT_EQ(refusal.status, 404);
    EXPECT_THAT(refusal.body, AllOf(HasSubstr("\"previous_response_not_found\""), HasSubstr("is gone")));
    EXPECT_EQ(missing.status, 404);
    EXPECT_THAT(missing.body, HasSubstr("\"response_not_found\""));
  };
  is_gone(std::string(16, 'c'));
  EXPECT_EQ(go_on_from("resp_1").status, 200) << "an id of others is any replica's to refuse";
  replicas_[1].reset();
  is_gone(marks[1]);
  EXPECT_TRUE(eventually([&] { return num_up() == 1; }));
  is_gone(marks[1]);
  EXPECT_EQ(go_on_from(id_at(marks[0])).body, "replica 0");
}

TEST_F(RouterTest, ServersThatMarkNothingGetWhatTheyMayHave) {
  add_replica();
  start();
  EXPECT_EQ(get("/v1/responses/resp_" + std::string(48, 'a')).body, "replica 0");
}

TEST_F(RouterTest, RefusesAnthropicsClientsInTheirForm) {
  add_replica();
  options_.api_keys = {"secret"};
  router_ = RunningRouter::start(options_).value();
  const auto send = [&](http::Headers headers) {
    return *client_.fetch({.method = "POST", .url = url("/v1/messages"), .headers = std::move(headers), .body = "{}"});
  };
  EXPECT_THAT(send({}).body, StartsWith(R"({"type":"error","error":{"type":"authentication_error")"));
  EXPECT_TRUE(eventually([&] { return send({{"x-api-key", "secret"}}).body == "replica 0"; }));
}

TEST_F(RouterTest, PathsOutsideTheApiAreUnknown) {
  add_replica();
  start();
  EXPECT_THAT(get("/v1/models").body, HasSubstr("replica 0"));
  EXPECT_EQ(get("/v1/nothing").status, 404);
  EXPECT_EQ(get("/nothing").status, 404);
  EXPECT_THAT(get("/nothing").body, HasSubstr("\"error\""));
  EXPECT_EQ(get("/v1/completions").status, 405) << "the replica's own word";
}

TEST_F(RouterTest, EventsComeOneByOne) {
  std::promise<http::Responder> asked;
  add_replica().on_completion = [&](const http::Request&, http::Responder responder) {
    responder.begin(200, {{"Content-Type", "text/event-stream"}});
    responder.write("data: 0\n\n");
    asked.set_value(std::move(responder));
  };
  start();
  http::BlockingCall call(threads_, client_, {.method = "POST", .url = url("/v1/completions"), .body = "{}"});
  const http::Responder responder = asked.get_future().get();
  const auto head = call.head();
  ASSERT_TRUE(head);
  EXPECT_EQ(head->headers.find("Content-Type"), "text/event-stream");
  EXPECT_EQ(call.read(), "data: 0\n\n");
  for (const std::string event : {"data: 1\n\n", "data: 2\n\n"}) {
    responder.write(event);
    EXPECT_EQ(call.read(), event);
  }
  responder.end();
  EXPECT_EQ(call.read(), "");
}

TEST_F(RouterTest, ASlowClientSlowsTheReplica) {
  std::atomic<size_t> num_sent = 0;
  std::promise<http::Responder> asked;
  add_replica().on_completion = [&](const http::Request&, http::Responder responder) {
    responder.begin(200, {});
    asked.set_value(std::move(responder));
  };
  start();
  http::RawClient client(router_->port());
  client.send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
  const http::Responder responder = asked.get_future().get();
  // Writes as the router takes: at most a megabyte that it has not taken.
  std::function<void()> write_more = [&] {
    if (num_sent >= (64 << 20)) return responder.end();
    num_sent += 64 << 10;
    responder.write(std::string(64 << 10, 'x'), write_more);
  };
  write_more();
  size_t before = 0;
  EXPECT_TRUE(eventually([&] {
    std::this_thread::sleep_for(milliseconds(100));
    return std::exchange(before, num_sent.load()) == num_sent;
  }));
  EXPECT_LT(num_sent, 40u << 20) << "sockets' buffers are all there is";
  EXPECT_GT(client.read_to_end().size(), 64u << 20);
}

TEST_F(RouterTest, LargeRequestsPassWithoutBeingHeldWhole) {
  add_replica().on_completion = [](const http::Request& request, const http::Responder& responder) {
    responder.respond(http::Response::text(200, std::to_string(request.body.size())));
  };
  start();
  EXPECT_EQ(complete({}, std::string(20 << 20, 'x')).body, std::to_string(20 << 20));
  http::RawClient client(router_->port());
  client.send(
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int idx = 0; idx < 30; idx++) client.send("186a0\r\n" + std::string(100'000, 'x') + "\r\n");
  client.send("0\r\n\r\n");
  EXPECT_THAT(client.read_to_end(), EndsWith("\r\n\r\n3000000"));
}

// Refused at once where the length is known, and in the middle where it is not: in the same words.
TEST_F(RouterTest, TooLargeARequestIsRefusedWithOrWithoutALength) {
  add_replica();
  options_.max_body_bytes = 3 << 20;
  start();
  const std::string too_large((3 << 20) + 1, 'x');
  const auto declared = complete({}, too_large);
  EXPECT_EQ(declared.status, 413);
  EXPECT_THAT(declared.body, HasSubstr("the request's body is larger than 3145728 bytes"));
  http::RawClient client(router_->port());
  client.send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (size_t sent = 0; sent < too_large.size(); sent += 100'000)
    client.send("186a0\r\n" + std::string(100'000, 'x') + "\r\n");
  const std::string chunked = client.read_to_end();
  EXPECT_THAT(chunked, AllOf(StartsWith("HTTP/1.1 413 "), HasSubstr("Connection: close\r\n")));
  EXPECT_THAT(chunked, EndsWith(declared.body));
  EXPECT_EQ(replica(0).num_requests, 0) << "it saw no whole request";
}

TEST_F(RouterTest, AClientThatGoesAwayEndsItsRequest) {
  std::promise<void> gone;
  std::promise<http::Responder> asked;
  add_replica().on_completion = [&](const http::Request&, http::Responder responder) {
    responder.on_close([&] { gone.set_value(); });
    asked.set_value(std::move(responder));
  };
  start();
  {
    http::RawClient client(router_->port());
    client.send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    asked.get_future().wait();
  }
  EXPECT_EQ(gone.get_future().wait_for(http::kTestPatience), std::future_status::ready);
  EXPECT_TRUE(eventually([&] { return status_of_replicas().at(0).at("in_flight").as_int64() == 0; }));
}

TEST_F(RouterTest, SpreadsRequestsAndKeepsConnectionsToReplicas) {
  add_replica();
  add_replica();
  start();
  for (int request = 0; request < 40; request++) EXPECT_EQ(complete().status, 200);
  EXPECT_EQ(replica(0).num_requests, 20);
  EXPECT_LE(replica(0).num_connections(), 3) << "one for requests, one for health, one for what the page shows";
}

TEST_F(RouterTest, ARequestThatNobodyAnsweredYetGoesToAnotherReplica) {
  for (int idx = 0; idx < 3; idx++) add_replica();
  replica(0).on_completion = [](const http::Request&, const http::Responder& responder) {
    responder.respond(http::Response::text(500, "broken"));
  };
  replica(1).on_completion = [](const http::Request&, const http::Responder& responder) {
    responder.begin(200, {{"Content-Type", "text/event-stream"}});
    responder.abort();
  };
  start();
  for (int request = 0; request < 9; request++) EXPECT_EQ(complete().body, "replica 2");
}

TEST_F(RouterTest, TheLastAnswerStandsWhereNoReplicaDoesBetter) {
  for (int idx = 0; idx < 2; idx++)
    add_replica().on_completion = [](const http::Request&, const http::Responder& responder) {
      responder.respond({503, {{"Retry-After", "7"}, {"Content-Type", "text/x"}}, "full"});
    };
  start();
  const auto answer = complete();
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.body, "full");
  EXPECT_EQ(answer.headers.find("Retry-After"), "7");
  EXPECT_EQ(replica(0).num_requests + replica(1).num_requests, 2);
  EXPECT_EQ(num_up(), 2u) << "a refusal is no failure";
}

TEST_F(RouterTest, AnAnswerThatBreaksOffNeverLooksComplete) {
  FakeReplica& replica = add_replica();
  replica.on_completion = [](const http::Request&, const http::Responder& responder) {
    responder.begin(200, {{"Content-Type", "text/event-stream"}});
    responder.write("data: 1\n\ndata: half", [responder] { responder.abort(); });
  };
  start();
  const std::string request = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
  http::RawClient client(router_->port());
  client.send(request);
  const std::string events = client.read_to_end();
  EXPECT_THAT(events, HasSubstr("data: 1\n\n"));
  EXPECT_THAT(events, HasSubstr("\ndata: {\"error\""));
  EXPECT_THAT(events, AllOf(Not(HasSubstr("half")), Not(HasSubstr("[DONE]")), Not(EndsWith("0\r\n\r\n"))));

  replica.on_completion = [](const http::Request&, const http::Responder& responder) {
    responder.begin(200, {{"Content-Length", "100"}});
    responder.write("half", [responder] { responder.abort(); });
  };
  const auto answer = client_.fetch({.method = "POST", .url = url("/v1/completions")});
  EXPECT_FALSE(answer);
  EXPECT_THAT(get("/metrics").body,
              HasSubstr("cachalot:router_broken_answers_total{replica=\"" + replica.url() + "\"} 2"));
}

// Of a replica that answers with the very bytes of a request's body.
TEST_F(RouterTest, AnAnswerThatHttpDoesNotKnowCostsItsRequestOnly) {
  boost::asio::io_context context;
  boost::asio::ip::tcp::acceptor acceptor(context, {boost::asio::ip::make_address("127.0.0.1"), 0});
  options_.server_urls.push_back("http://127.0.0.1:" + std::to_string(acceptor.local_endpoint().port()));
  std::jthread odd([&](const std::stop_token& stopped) {
    while (!stopped.stop_requested()) {  // a question after health comes soon
      auto socket = acceptor.accept();
      boost::system::error_code ignored;
      std::string request;
      boost::asio::read_until(socket, boost::asio::dynamic_buffer(request), "\r\n\r\n", ignored);
      std::string answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
      if (const size_t length = request.find("Content-Length: "); length != request.npos) {
        answer = request.substr(request.find("\r\n\r\n") + 4);
        answer.resize(leading_number<size_t>(std::string_view(request).substr(length + 16)));
        const size_t num_read = request.size() - request.find("\r\n\r\n") - 4;
        boost::asio::read(socket, boost::asio::buffer(answer.data() + num_read, answer.size() - num_read), ignored);
      }
      boost::asio::write(socket, boost::asio::buffer(answer), ignored);
    }
  });
  start(1);
  for (const std::string status : {"000", "101", "700", "999"}) {
    EXPECT_EQ(complete({}, "HTTP/1.1 " + status + " odd\r\nContent-Length: 2\r\n\r\nab").status, 503) << status;
    EXPECT_TRUE(eventually([&] { return num_up() == 1; }));
  }
  const std::string good = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
  EXPECT_EQ(complete({}, "HTTP/1.1 103 Early Hints\r\n\r\n" + good).body, "ab");
  // What is said of a break would not fit into the length that was announced.
  const std::string broken =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 20\r\n\r\ndata: 1\n\n";
  http::RawClient client(router_->port());
  client.send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + std::to_string(broken.size()) +
              "\r\n\r\n" + broken);
  EXPECT_THAT(client.read_to_end(),
              AllOf(HasSubstr("data: 1\n\n"), HasSubstr("data: {\"error\""), Not(HasSubstr("Content-Length"))));
  odd.request_stop();
}

TEST_F(RouterTest, ASilentReplicaIsLeftAndItsUnansweredRequestsAreAnsweredElsewhere) {
  std::vector<http::Responder> stuck;
  options_.health_timeout = seconds(1);
  for (int idx = 0; idx < 2; idx++) add_replica();
  replica(0).on_completion = [&](const http::Request&, http::Responder responder) {
    stuck.push_back(std::move(responder));
    replica(0).is_mute = true;
  };
  start();
  OwnTime time;
  const auto start = steady_clock::now();
  EXPECT_EQ(complete().body, "replica 1");
  EXPECT_EQ(complete().body, "replica 1");
  EXPECT_LT(time.since(start), seconds(2));
  EXPECT_EQ(stuck.size(), 1u);
  EXPECT_EQ(get("/health").status, 200);
  replica(1).is_mute = true;
  EXPECT_TRUE(eventually([&] { return get("/health").status == 503; }));
  const auto answer = complete();
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.find("Retry-After"), "1");
  replica(0).is_mute = replica(1).is_mute = false;
  EXPECT_TRUE(eventually([&] { return num_up() == 2; }));
}

TEST_F(RouterTest, AStreamOfASilentReplicaEndsWithAnErrorAfterItsGrace) {
  std::vector<http::Responder> stuck;
  options_.stream_grace = options_.revival_grace = seconds(0);
  options_.health_timeout = seconds(1);
  FakeReplica& replica = add_replica();
  replica.on_completion = [&](const http::Request&, http::Responder responder) {
    responder.begin(200, {{"Content-Type", "text/event-stream"}});
    responder.write("data: 1\n\n");
    stuck.push_back(std::move(responder));
    replica.is_mute = true;
  };
  start();
  http::BlockingCall call(threads_, client_, {.method = "POST", .url = url("/v1/completions")});
  ASSERT_TRUE(call.head());
  EXPECT_EQ(call.read(), "data: 1\n\n");
  const auto last = call.read();
  ASSERT_TRUE(last);
  EXPECT_THAT(*last, HasSubstr("\"error\""));
  EXPECT_FALSE(call.read()) << "the stream is not complete";
}

TEST_F(RouterTest, AReplicaThatSaysItIsUnwellGetsNoMoreButFinishesWhatItHas) {
  std::promise<http::Responder> asked;
  for (int idx = 0; idx < 2; idx++) add_replica();
  replica(0).on_completion = [&](const http::Request&, http::Responder responder) {
    asked.set_value(std::move(responder));
  };
  start();
  http::BlockingCall call(
      threads_, client_, {.method = "POST", .url = url("/v1/completions"), .headers = {{"X-data-parallel-rank", "0"}}});
  const http::Responder responder = asked.get_future().get();
  replica(0).health_status = 503;
  EXPECT_TRUE(eventually([&] { return num_up() == 1; }));
  for (int request = 0; request < 4; request++) EXPECT_EQ(complete().body, "replica 1");
  responder.respond(http::Response::text(200, "done"));
  ASSERT_TRUE(call.head());
  EXPECT_EQ(call.read(), "done");
}

TEST_F(RouterTest, AReplicaMayBeNamed) {
  for (int idx = 0; idx < 3; idx++) add_replica();
  start();
  for (int idx = 0; idx < 3; idx++)
    EXPECT_EQ(complete({{"X-data-parallel-rank", std::to_string(idx)}}).body, "replica " + std::to_string(idx));
  for (const char* wrong : {"3", "-1", "x", ""}) {
    const auto answer = complete({{"X-data-parallel-rank", wrong}});
    EXPECT_EQ(answer.status, 400) << wrong;
    EXPECT_THAT(answer.body, HasSubstr("0 to 2"));
  }
  replica(1).health_status = 503;
  EXPECT_TRUE(eventually([&] { return num_up() == 2; }));
  EXPECT_EQ(complete({{"X-data-parallel-rank", "1"}}).status, 503);
}

TEST_F(RouterTest, ReplicasMayComeLaterAndGoAndComeBack) {
  const KeptPort kept = KeptPort::keep().value();
  const uint16_t port = kept.port();
  options_.server_urls = {"http://127.0.0.1:" + std::to_string(port)};
  start(0);
  EXPECT_EQ(get("/health").status, 503);
  EXPECT_EQ(complete().status, 503);
  for (int time = 0; time < 2; time++) {
    options_.server_urls.clear();
    add_replica(port);
    EXPECT_TRUE(eventually([&] { return get("/health").status == 200; }));
    EXPECT_EQ(complete().status, 200);
    replicas_.clear();
    EXPECT_EQ(complete().status, 503);
    EXPECT_TRUE(eventually([&] { return get("/health").status == 503; }));
  }
}

TEST_F(RouterTest, ServersOfAnotherKindAreAskedForTheirHealth) {
  http::Server other(threads_, {.host = "127.0.0.1"});
  std::atomic<int> status = 200;
  other.route("GET", "/health", [&](const http::Request&) { return http::Response{status, {}, {}}; });
  ASSERT_TRUE(other.start());
  options_.server_urls = {"http://127.0.0.1:" + std::to_string(other.port())};
  start(1);
  status = 500;
  EXPECT_TRUE(eventually([&] { return num_up() == 0; }));
}

TEST_F(RouterTest, MoreRequestsThanAllowedAreRefused) {
  std::vector<http::Responder> running;
  options_.max_in_flight_per_replica = 1;
  add_replica().on_completion = [&](const http::Request&, http::Responder responder) {
    running.push_back(std::move(responder));
  };
  start();
  http::BlockingCall first(threads_, client_, {.method = "POST", .url = url("/v1/completions")});
  EXPECT_TRUE(eventually([&] { return replica(0).num_requests == 1; }));
  const auto answer = complete();
  EXPECT_EQ(answer.status, 429);
  EXPECT_EQ(answer.headers.find("Retry-After"), "1");
  running.front().respond(http::Response::text(200, "x"));
  EXPECT_TRUE(first.head());
}

TEST_F(RouterTest, WhoHasItsAnswerHoldsNoPlace) {
  options_.max_in_flight = options_.max_in_flight_per_replica = 1;
  add_replica();
  start();
  for (int round = 0; round < 300; round++) ASSERT_EQ(complete().status, 200) << round;
}

TEST_F(RouterTest, KeysAreCheckedAndTheServersOwnIsSent) {
  options_.api_keys = {"open"};
  options_.server_api_key = "inner";
  add_replica();
  options_.health_interval = milliseconds(5);
  auto router = RunningRouter::start(options_);
  ASSERT_TRUE(router);
  router_ = std::move(*router);
  EXPECT_TRUE(eventually([&] { return get("/health").status == 200; }));
  EXPECT_EQ(complete().status, 401);
  EXPECT_EQ(get("/replicas").status, 401);
  EXPECT_EQ(complete({{"Authorization", "Bearer wrong"}}).status, 401);
  EXPECT_EQ(complete({{"Authorization", "Bearer open"}}).status, 200);
  EXPECT_EQ(replica(0).last_request().headers.find("Authorization"), "Bearer inner");
}

TEST_F(RouterTest, KeysHaveLimitsNamesAndWhatAReplicaTellsOfTokens) {
  const TestFolder folder;
  options_.door.api_key_file = folder.path("keys.yaml");
  ASSERT_TRUE(
      write_file(options_.door.api_key_file,
                 "- {name: alice, key: a, tokens-per-minute: 100, priorities: [0, 3]}\n- {name: bob, key: b}\n"));
  ASSERT_EQ(chmod(options_.door.api_key_file.c_str(), 0600), 0);
  options_.server_api_key = "inner";
  add_replica().on_completion = [](const http::Request& request, const http::Responder& responder) {
    if (request.body.contains("stream")) {
      responder.begin(200, {{"Content-Type", "text/event-stream"}});
      responder.write("data: {}\n\ndata: [DONE]\n\n: usage 30 70\n\n");
      return responder.end();
    }
    responder.respond({200, {{"X-Cachalot-Usage", "10 20"}, {"Access-Control-Allow-Origin", "*"}}, "whole"});
  };
  auto router = RunningRouter::start(options_);
  ASSERT_TRUE(router) << router.error().message;
  router_ = std::move(*router);
  ASSERT_TRUE(eventually([&] { return get("/health").status == 200; }));
  const auto as = [&](const std::string& key, std::string body = "{}", http::Headers fields = {}) {
    fields.set("Authorization", "Bearer " + key);
    return complete(std::move(fields), std::move(body));
  };
  const http::Response whole = as("a", "{}", {{"X-Cachalot-Priorities", "-9 9"}});
  EXPECT_EQ(whole.body, "whole");
  EXPECT_FALSE(whole.headers.contains("X-Cachalot-Usage"));
  EXPECT_FALSE(whole.headers.contains("Access-Control-Allow-Origin"));
  const http::Request seen = replica(0).last_request();
  EXPECT_EQ(seen.headers.find("X-Cachalot-Priorities"), "0 3");
  EXPECT_EQ(seen.headers.find("X-Cachalot-Usage"), "1");
  const http::Response stream = as("a", R"({"stream": true})");
  EXPECT_EQ(stream.body, "data: {}\n\ndata: [DONE]\n\n");
  EXPECT_TRUE(eventually([&] { return get("/metrics").body.contains("key_in_flight{key=\"alice\"} 0\n"); }));
  const http::Response refused = as("a");
  EXPECT_EQ(refused.status, 429) << "130 of 100 tokens are used";
  EXPECT_TRUE(refused.headers.contains("Retry-After"));
  EXPECT_EQ(as("b").status, 200);
  EXPECT_EQ(as("c").status, 401);
  EXPECT_THAT(get("/metrics").body, AllOf(HasSubstr("key_tokens_total{key=\"alice\",kind=\"prompt\"} 40\n"),
                                          HasSubstr("key_tokens_total{key=\"alice\",kind=\"generation\"} 90\n"),
                                          HasSubstr("key_refused_total{key=\"alice\",limit=\"tokens\"} 1\n")));
}

TEST_F(RouterTest, SpeaksTlsToBothSides) {
  const TestFolder folder;
  const auto own = http::CertificateFiles::make(folder.path(), "own");
  const auto replicas = http::CertificateFiles::make(folder.path(), "replicas");
  http::ServerOptions server_options{.host = "127.0.0.1"};
  server_options.door.tls = {.certfile = replicas.certificate, .keyfile = replicas.key};
  http::Server server(threads_, server_options);
  server.route("GET", "/load", [](const http::Request&) {
    return http::Response::json(200, R"({"running": 0, "waiting": 0, "pending_tokens": 0, "kv_usage": 0})");
  });
  server.route("POST", "/v1/completions", [](const http::Request& request) {
    return http::Response::text(200, std::string(request.headers.find("X-Forwarded-Proto").value_or("")));
  });
  ASSERT_TRUE(server.start());
  options_.server_urls = {fmt::format("https://127.0.0.1:{}", server.port())};
  options_.replica_ca_certs = folder.path("absent.pem");
  EXPECT_THAT(RunningRouter::start(options_).error().message, HasSubstr("absent.pem"));
  options_.replica_ca_certs = replicas.certificate;
  options_.door.tls = {.certfile = own.certificate, .keyfile = own.key};
  auto router = RunningRouter::start(options_);
  ASSERT_TRUE(router) << router.error().message;
  router_ = std::move(*router);
  const http::Client client(threads_, {.tls = *http::TlsContext::of_client(own.certificate)});
  const auto ask = [&] {
    http::ClientRequest request{
        .method = "POST",
        .url = *http::parse_url(fmt::format("https://127.0.0.1:{}/v1/completions", router_->port())),
        .body = "{}"};
    return client.fetch(std::move(request));
  };
  ASSERT_TRUE(eventually([&] {
    const auto answer = ask();
    return answer && answer->status == 200;
  }));
  EXPECT_EQ(ask()->body, "https");
}

TEST_F(RouterTest, SmuggledRequestsAreRefusedBeforeAReplicaSeesThem) {
  add_replica();
  start();
  const std::string head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n";
  for (const std::string& rest :
       {std::string("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        std::string("Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"),
        std::string("Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd"),
        std::string("Content-Length: +4\r\n\r\nabcd"), std::string("Content-Length: 4 4\r\n\r\nabcd"),
        std::string("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
        std::string("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        std::string("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        std::string("Transfer-Encoding: chunked\r\n\r\n0x4\r\nabcd\r\n0\r\n\r\n"),
        std::string("Transfer-Encoding: chunked\r\n\r\n4\r\nabcdX\r\n0\r\n\r\n"),
        std::string("Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabcd\r\n0\r\n\r\n"),
        std::string("X-Folded: a\r\n b\r\nContent-Length\r\n : 4\r\n\r\nabcd"),
        std::string("X-Bad\x01Name: 1\r\nContent-Length: 0\r\n\r\n")}) {
    http::RawClient client(router_->port());
    client.send(head + rest);
    client.send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    const std::string answer = client.read_to_end();
    EXPECT_THAT(answer, AnyOf(StartsWith("HTTP/1.1 400"), StartsWith("HTTP/1.1 501"))) << rest;
    EXPECT_THAT(answer, Not(HasSubstr("replica 0"))) << rest;
  }
  EXPECT_EQ(replica(0).num_requests, 0);
}

TEST_F(RouterTest, CountsWhatItDoes) {
  add_replica();
  start();
  complete();
  replica(0).health_status = 503;
  EXPECT_TRUE(eventually([&] { return num_up() == 0; }));
  complete();
  const std::string metrics = get("/metrics").body;
  const std::string label = "{replica=\"" + replica(0).url() + "\"}";
  EXPECT_THAT(metrics, HasSubstr("cachalot:router_replica_up" + label + " 0"));
  EXPECT_THAT(metrics, HasSubstr("cachalot:router_ejections_total" + label + " 1"));
  EXPECT_THAT(metrics, HasSubstr("cachalot:router_in_flight" + label + " 0"));
  EXPECT_THAT(metrics, HasSubstr("cachalot:router_request_seconds_count" + label + " 1"));
  EXPECT_THAT(metrics, HasSubstr("cachalot:router_refused_total{code=\"503\"} 1"));
}

TEST_F(RouterTest, StreamsThatADrainDoesNotWaitForEndWithAnError) {
  std::vector<http::Responder> asked;
  std::atomic<int> num_asked = 0;
  add_replica().on_completion = [&](const http::Request& request, http::Responder responder) {
    if (request.body == "stream") {
      responder.begin(200, {{"Content-Type", "text/event-stream"}});
      responder.write("data: 0\n\ndata: hal");
    }
    asked.push_back(std::move(responder));
    num_asked++;
  };
  start();
  const auto ask = [&](const std::string& body) {
    return std::async(std::launch::async, [&, body] {
      http::RawClient client(router_->port());
      client.send(fmt::format("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{}",
                              body.size(), body));
      return client.read_to_end();
    });
  };
  auto stream = ask("stream");
  EXPECT_TRUE(eventually([&] { return num_asked == 1; }));
  auto silent = ask("silent");
  EXPECT_TRUE(eventually([&] { return num_asked == 2; }));
  OwnTime time;
  const auto begin = steady_clock::now();
  router_->stop(begin + milliseconds(100));
  EXPECT_LT(time.since(begin), seconds(2));
  const std::string events = stream.get();
  EXPECT_THAT(events, HasSubstr("data: 0\n\n"));
  EXPECT_THAT(events,
              HasSubstr("data: {\"error\":{\"message\":\"the router is shutting down; the answer is incomplete\""));
  EXPECT_THAT(events, Not(HasSubstr("hal"))) << "only whole events";
  EXPECT_THAT(events, Not(EndsWith("0\r\n\r\n"))) << "it must not look complete";
  EXPECT_THAT(silent.get(), StartsWith("HTTP/1.1 503 "));
}

// A server that takes requests and closes without a word, as one that a request kills.
class DyingReplica {
 public:
  explicit DyingReplica(const http::IoThreads& threads) : server_(threads, {.host = "127.0.0.1"}) {
    server_.route("POST", "/v1/completions", [this](http::ServerCall& call) -> http::awaitable<void> {
      num_requests++;
      call.begin(200, {{"Content-Length", "5"}});  // whose end comes before any of it was sent
      co_return;
    });
    server_.route("GET", "/load", [](const http::Request&) { return http::Response::json(200, "{}"); });
    EXPECT_TRUE(server_.start());
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(server_.port()); }
  std::atomic<int> num_requests = 0;

 private:
  http::Server server_;
};

TEST_F(RouterTest, ARequestWithWhichReplicasAreLostIsSentOnTwiceAndRemembered) {
  std::vector<std::unique_ptr<DyingReplica>> dying;
  for (int idx = 0; idx < 4; idx++) {
    dying.push_back(std::make_unique<DyingReplica>(threads_));
    options_.server_urls.push_back(dying.back()->url());
  }
  options_.max_tries = 4;
  start(4);
  const auto num_requests = [&] {
    int sum = 0;
    for (const auto& replica : dying) sum += replica->num_requests;
    return sum;
  };
  const auto answer = complete();
  EXPECT_EQ(answer.status, 502);
  EXPECT_THAT(answer.body, HasSubstr("lost"));
  EXPECT_EQ(num_requests(), 3) << "no fourth one is tried";
  EXPECT_TRUE(eventually([&] { return num_up() == 4; }));
  const auto again = complete();
  EXPECT_EQ(again.status, 503);
  EXPECT_THAT(again.body, HasSubstr("not sent on for"));
  EXPECT_EQ(num_requests(), 3) << "it is remembered";
  complete({}, R"({"prompt": "another"})");
  EXPECT_EQ(num_requests(), 6);
}

TEST_F(RouterTest, AnErrorThatSaysItIsTheRequestsOwnIsPassedOnAndTakesNobodyOut) {
  options_.eject_after_errors = 1;
  for (int idx = 0; idx < 2; idx++)
    add_replica().on_completion = [](const http::Request&, const http::Responder& responder) {
      responder.respond({500, {{"X-Should-Retry", "false"}}, "{\"error\": {}}"});
    };
  start();
  for (int request = 0; request < 10; request++) EXPECT_EQ(complete().status, 500);
  EXPECT_EQ(replica(0).num_requests + replica(1).num_requests, 10) << "each was asked once";
  EXPECT_EQ(num_up(), 2u);
}

// A server as `cachalot serve` has it, whose engine fails on every request.
class FailingServer {
 public:
  FailingServer(const http::IoThreads& threads, bool is_own_fault) : server_(threads, {.host = "127.0.0.1"}) {
    service_.answer_with("answer");
    service_.fail_after(1, is_own_fault);
    api_.register_routes(server_);
    EXPECT_TRUE(server_.start());
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(server_.port()); }
  size_t num_requests() { return service_.requests().size(); }

 private:
  std::unique_ptr<Tokenizer> tokenizer_ = Tokenizer::load(CACHALOT_SOURCE_DIR "/models/nano").value();
  openai::FakeService service_{*tokenizer_};
  openai::ApiServer api_{service_, *tokenizer_, nullptr, {.served_model_names = {"nano"}, .max_model_len = 100}};
  http::Server server_;
};

TEST_F(RouterTest, ARequestOnWhichAnEngineFailsGoesToNoOtherServerUnlessTheEngineAsAWholeFailed) {
  for (const bool is_own_fault : {true, false}) {
    std::vector<std::unique_ptr<FailingServer>> servers;
    options_.server_urls.clear();
    for (int idx = 0; idx < 3; idx++) {
      servers.push_back(std::make_unique<FailingServer>(threads_, is_own_fault));
      options_.server_urls.push_back(servers.back()->url());
    }
    start(3);
    const http::Response answer = complete({}, R"({"model": "nano", "prompt": "hello"})");
    EXPECT_EQ(answer.status, 500) << answer.body;
    EXPECT_THAT(answer.body, HasSubstr("the device is on fire"));
    size_t num_requests = 0;
    for (const auto& server : servers) num_requests += server->num_requests();
    EXPECT_EQ(num_requests, is_own_fault ? 1U : 3U);
    EXPECT_EQ(num_up(), 3U);
    router_->stop(steady_clock::now());
    router_.reset();
  }
}

TEST_F(RouterTest, AHeadAndCommentsArePassedOnWhileARequestWaits) {
  std::promise<http::Responder> asked;
  add_replica().on_completion = [&](const http::Request&, http::Responder responder) {
    responder.begin(200, {{"Content-Type", "text/event-stream"}});
    asked.set_value(std::move(responder));
  };
  start();
  http::RawClient client(router_->port());
  client.send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
  const http::Responder responder = asked.get_future().get();
  EXPECT_THAT(client.read_until("\r\n\r\n"), HasSubstr("text/event-stream"));
  responder.write(": still waiting\n\n");
  client.read_until(": still waiting\n\n");
  responder.write("data: 1\n\n");
  client.read_until("data: 1\n\n");
  responder.end();
  EXPECT_THAT(client.read_until("0\r\n\r\n"), Not(HasSubstr("closed")));
}

TEST_F(RouterTest, AStreamOfWhichOnlyCommentsCameGoesOnAtAnotherReplica) {
  for (int idx = 0; idx < 2; idx++)
    add_replica().on_completion = [this, idx](const http::Request&, const http::Responder& responder) {
      responder.begin(200, {{"Content-Type", "text/event-stream"}});
      const bool is_first = replica(0).num_requests + replica(1).num_requests == 1;
      responder.write(is_first ? ": waiting\n\n" : "data: " + std::to_string(idx) + "\n\n");
      is_first ? responder.abort() : responder.end();
    };
  start();
  const auto answer = complete();
  EXPECT_EQ(answer.status, 200);
  EXPECT_THAT(answer.body, AllOf(StartsWith(": waiting\n\ndata: "), EndsWith("\n\n")));
  EXPECT_EQ(replica(0).num_requests + replica(1).num_requests, 2);
}

TEST_F(RouterTest, AnErrorThatDoesNotEndHoldsNobodyUp) {
  std::vector<http::Responder> unended;
  for (int idx = 0; idx < 2; idx++)
    add_replica().on_completion = [this, &unended](const http::Request&, const http::Responder& responder) {
      if (replica(0).num_requests + replica(1).num_requests > 1)
        return responder.respond(http::Response::text(200, "x"));
      responder.begin(503, {{"Content-Length", "10"}});
      responder.write("a part");
      unended.push_back(responder);
    };
  start();
  const auto began = steady_clock::now();
  EXPECT_EQ(complete().body, "x");
  EXPECT_LT(steady_clock::now() - began, seconds(5));
}

TEST_F(RouterTest, MoreRequestsThanAReplicaMayHaveTakeItOutNeitherHereNorThere) {
  constexpr int kMost = 64;
  std::mutex mutex;
  std::vector<http::Responder> running;
  options_.max_in_flight_per_replica = kMost;
  FakeReplica& replica = add_replica();
  replica.on_completion = [&](const http::Request&, http::Responder responder) {
    const std::lock_guard lock(mutex);
    running.push_back(std::move(responder));
  };
  start();
  std::vector<std::unique_ptr<http::BlockingCall>> calls;
  for (int idx = 0; idx < 2 * kMost; idx++)
    calls.push_back(std::make_unique<http::BlockingCall>(
        threads_, client_, http::ClientRequest{.method = "POST", .url = url("/v1/completions")}));
  EXPECT_TRUE(eventually([&] {
    return replica.num_requests == kMost && get("/metrics").body.contains(fmt::format("{{code=\"429\"}} {}\n", kMost));
  }));
  const int num_questions = replica.num_questions;
  EXPECT_TRUE(eventually([&] { return replica.num_questions > num_questions + 5; }));
  EXPECT_EQ(num_up(), 1u);
  {
    const std::lock_guard lock(mutex);
    for (const http::Responder& responder : running) responder.respond(http::Response::text(200, "x"));
  }
  std::map<int, int> statuses;
  for (const auto& call : calls)
    if (const auto head = call->head()) statuses[head->status]++;
  EXPECT_EQ(statuses, (std::map<int, int>{{200, kMost}, {429, kMost}}));
}

TEST_F(RouterTest, PathsReachReplicasInOneSpellingOnly) {
  add_replica();
  start();
  for (const char* path : {"/v1/../v1/completions", "/v1/%2e%2e/load", "/v1/./completions", "/v1/x%00"}) {
    http::RawClient client(router_->port());
    client.send(fmt::format("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", path));
    EXPECT_THAT(client.read_response(), StartsWith("HTTP/1.1 400 ")) << path;
  }
  EXPECT_EQ(replica(0).num_requests, 0);
  EXPECT_EQ(client_.fetch({.method = "POST", .url = url("//v1//completions")})->status, 200);
  EXPECT_EQ(replica(0).last_request().target, "/v1/completions");
}

TEST_F(RouterTest, ADrainLetsARunningAnswerFinish) {
  std::promise<http::Responder> asked;
  add_replica().on_completion = [&](const http::Request&, http::Responder responder) {
    asked.set_value(std::move(responder));
  };
  start();
  http::BlockingCall call(threads_, client_, {.method = "POST", .url = url("/v1/completions")});
  const http::Responder responder = asked.get_future().get();
  auto stopped = std::async(std::launch::async, [&] { router_->stop(steady_clock::now() + http::kTestPatience); });
  std::this_thread::sleep_for(milliseconds(50));
  responder.respond(http::Response::text(200, "done"));
  ASSERT_TRUE(call.head());
  EXPECT_EQ(call.read(), "done");
  stopped.get();
}

TEST(RouterOptions, AddressesThatAreNoneAreNamed) {
  for (const char* url : {"127.0.0.1:7555", "ftp://a:1", "http://a:1/v1", "http://a:x"}) {
    const auto router = RunningRouter::start({.server_urls = {url}, .host = "127.0.0.1", .port = 0});
    ASSERT_FALSE(router) << url;
    EXPECT_THAT(router.error().message, AllOf(HasSubstr("--server-urls"), HasSubstr(url)));
  }
}

}  // namespace
}  // namespace cachalot::router
