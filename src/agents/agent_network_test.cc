#include "agents/agent_network.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>

#include "base/ports.h"
#include "comm/membership/asio_network.h"

namespace cachalot::agents {
namespace {

using std::chrono::milliseconds;

// Agents of a group, in this process; words that have come stand as "from: word".
class AgentNetworkTest : public testing::Test {
 protected:
  struct Node {
    explicit Node(boost::asio::io_context& context) : sockets(context) {}
    control::AsioNetwork sockets;
    std::vector<std::string> heard;
    std::unique_ptr<AgentNetwork> network;
  };

  void start(int num_servers, bool has_witness) {
    for (int server = 0; server < num_servers; server++) {
      ports.push_back(KeptPort::keep().value());
      options.addresses.push_back({.host = "127.0.0.1", .port = ports.back().port()});
    }
    options.has_witness = has_witness;
    for (int server = 0; server < num_servers + (has_witness ? 1 : 0); server++) begin(server, options);
  }
  void begin(int server, AgentNetworkOptions own) {
    own.server = server;
    if (server == std::ssize(nodes)) nodes.emplace_back();
    nodes[static_cast<size_t>(server)].reset();  // its port is free again
    auto node = std::make_unique<Node>(context);
    node->network = std::make_unique<AgentNetwork>(
        node->sockets, own,
        AgentNetwork::Events{.message =
                                 [raw = node.get()](int from, std::string_view word) {
                                   raw->heard.push_back(std::to_string(from) + ": " + std::string(word));
                                 },
                             .request =
                                 [](const OperatorRequest& request) {
                                   return OperatorAnswer{.is_refused = request.lost == std::vector{7},
                                                         .why = "seven",
                                                         .view = {.server = 3}};
                                 }});
    EXPECT_TRUE(node->network->start());
    nodes[static_cast<size_t>(server)] = std::move(node);
  }
  // Each to each other one, again and again, until `done`.
  bool talk_until(const std::function<bool()>& done, milliseconds patience = milliseconds(10'000)) {
    for (const auto end = std::chrono::steady_clock::now() + patience; !done();) {
      if (std::chrono::steady_clock::now() > end) return false;
      for (const auto& node : nodes)
        for (int server = 0; server < std::ssize(nodes); server++)
          if (nodes[static_cast<size_t>(server)] != node) node->network->send(server, "word");
      context.run_for(milliseconds(10));
    }
    return true;
  }
  bool hears(int server, int from) const {
    const auto& heard = nodes[static_cast<size_t>(server)]->heard;
    return std::ranges::find(heard, std::to_string(from) + ": word") != heard.end();
  }
  bool all_hear_all() const {
    for (int server = 0; server < std::ssize(nodes); server++)
      for (int from = 0; from < std::ssize(nodes); from++)
        if (from != server && !hears(server, from)) return false;
    return true;
  }
  Result<OperatorAnswer> ask(const std::string& secret, std::vector<int> lost) {
    std::optional<Result<OperatorAnswer>> answer;
    control::AsioNetwork sockets(context);
    OperatorCall call(sockets, secret);
    call.start(options.addresses[0], {.lost = std::move(lost)}, milliseconds(5'000),
               [&](Result<OperatorAnswer> answered) { answer = std::move(answered); });
    for (int tries = 0; tries < 1'000 && !answer; tries++) context.run_for(milliseconds(5));
    EXPECT_TRUE(answer);
    return answer ? *answer : make_error(ErrorCode::kInternal, "no answer");
  }

  boost::asio::io_context context{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work = boost::asio::make_work_guard(context);
  std::vector<KeptPort> ports;
  AgentNetworkOptions options{.secret = "a secret",
                              .program_version = "1",
                              .settings = {{"--block-size", "64"}},
                              .failure_timeout = milliseconds(300)};
  std::vector<std::unique_ptr<Node>> nodes;
};

TEST_F(AgentNetworkTest, AllHearAllTheWitnessToo) {
  start(2, true);
  EXPECT_TRUE(talk_until([&] { return all_hear_all(); }));
}

TEST_F(AgentNetworkTest, OneThatComesBackIsHeardAgain) {
  start(3, false);
  ASSERT_TRUE(talk_until([&] { return all_hear_all(); }));
  for (const auto& node : nodes) node->heard.clear();
  begin(1, options);
  EXPECT_TRUE(talk_until([&] { return all_hear_all(); }));
}

TEST_F(AgentNetworkTest, WhoDiffersIsTurnedAway) {
  start(2, false);
  ASSERT_TRUE(talk_until([&] { return hears(0, 1); }));
  const auto is_heard_with = [&](AgentNetworkOptions changed) {
    begin(1, changed);
    nodes[0]->heard.clear();
    return talk_until([&] { return hears(0, 1) || hears(1, 0); }, milliseconds(300));
  };
  AgentNetworkOptions changed = options;
  changed.secret = "another one";
  EXPECT_FALSE(is_heard_with(changed));
  changed.secret.clear();
  EXPECT_FALSE(is_heard_with(changed));
  changed = options;
  changed.program_version = "2";
  EXPECT_FALSE(is_heard_with(changed));
  changed = options;
  changed.settings = {{"--block-size", "32"}};
  EXPECT_FALSE(is_heard_with(changed));
  EXPECT_TRUE(is_heard_with(options));
}

TEST_F(AgentNetworkTest, ACallerThatDoesNotProveTheSecretTellsNothing) {
  start(2, false);
  // Server 1 calls somebody who accepts whoever calls, and has no secret to prove that with.
  options.addresses[0].port = KeptPort::keep().value().port();
  auto impostor = std::make_unique<control::AsioNetwork>(context);
  control::ConnectionPtr taken;
  int num_words = 0;
  ASSERT_TRUE(impostor->listen(
      "127.0.0.1", options.addresses[0].port,
      [&](control::ConnectionPtr connection) {
        taken = connection;
        taken->set_max_receive_bytes(1 << 20);
        taken->start({.frame =
                          [&](const control::Frame& frame) {
                            num_words += frame.header.type == control::MessageType::kAgentWord ? 1 : 0;
                            if (frame.header.type == control::MessageType::kAgentHello)
                              taken->send_frame(control::encode_frame(control::Accepted{}, 0));
                          },
                      .closed = [](const Error&) {}});
        taken->send_frame(control::encode_frame(control::Challenge{.has_secret = true}, 0));
      },
      [](const std::string&) {}));
  begin(1, options);
  talk_until([] { return false; }, milliseconds(300));
  EXPECT_TRUE(taken);
  EXPECT_EQ(num_words, 0);
  if (taken) taken->close();
}

TEST_F(AgentNetworkTest, AnswersAPersonWhoHasTheSecret) {
  start(2, false);
  const auto answer = ask("a secret", {});
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->view.server, 3);
  EXPECT_FALSE(answer->is_refused);
  EXPECT_TRUE(ask("a secret", {7})->is_refused);
  EXPECT_FALSE(ask("another", {}));
  EXPECT_FALSE(ask("", {}));
}

TEST(AgentAddress, IsAHostAndAPort) {
  EXPECT_EQ(parse_agent_address("10.0.0.7:29551")->text(), "10.0.0.7:29551");
  EXPECT_EQ(parse_agent_address("[fe80::1]:80")->host, "fe80::1");
  EXPECT_EQ(parse_agent_address("[fe80::1]:80")->text(), "[fe80::1]:80");
  for (const char* text : {"", "host", "host:", ":80", "host:0", "host:70000", "host:x"})
    EXPECT_FALSE(parse_agent_address(text)) << text;
}

}  // namespace
}  // namespace cachalot::agents
