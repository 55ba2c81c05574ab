#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "base/error.h"
#include "comm/membership/network.h"

// How agents of a group reach each other, and a person one of them. Frames are those of comm/membership/wire.h. The
// agent of the higher number calls the one of the lower; the witness, which has the highest, calls all and is called by
// nobody.
//
//   who is called               who calls
//     Challenge{nonce}    ->
//                         <-    AgentHello{who, nonce, proof of the secret, settings}
//     Accepted{proof}     ->        or Refused{why}
//     AgentWord{message}  <->                                 between agents
//                         <-    OperatorRequest{servers}      of a person
//     OperatorAnswer{...} ->
namespace cachalot::agents {

struct AgentAddress {
  std::string host;
  uint16_t port = 0;

  std::string text() const;  // "10.0.0.7:29551", "[fe80::1]:29551"
};
// Errors name the text.
Result<AgentAddress> parse_agent_address(std::string_view text);

// What one agent knows of its group, for people.
struct GroupView {
  struct Server {
    int server = 0;
    std::string address;  // of its agent; empty: the witness
    bool is_heard = false;
    int num_members = 0;  // its ranks in the epoch

    bool operator==(const Server&) const = default;
    static auto fields(auto& self) { return std::tie(self.server, self.address, self.is_heard, self.num_members); }
  };
  int server = 0;  // whose agent says so
  bool has_majority = false, leads = false;
  int leader = -1;  // the server whose agent was heard as the leader last; -1: none was
  uint32_t epoch = 0, placement_version = 0;
  std::vector<Server> servers;  // the witness last

  bool operator==(const GroupView&) const = default;
  static auto fields(auto& self) {
    return std::tie(self.server, self.has_majority, self.leads, self.leader, self.epoch, self.placement_version,
                    self.servers);
  }
};

// `cachalot confirm-lost`: these servers are lost for good. None: only asks what there is.
struct OperatorRequest {
  static constexpr control::MessageType kType = control::MessageType::kOperatorRequest;
  std::vector<int> lost;
  static auto fields(auto& self) { return std::tie(self.lost); }
};
struct OperatorAnswer {
  static constexpr control::MessageType kType = control::MessageType::kOperatorAnswer;
  bool is_refused = false;
  std::string why;  // it is
  GroupView view;
  static auto fields(auto& self) { return std::tie(self.is_refused, self.why, self.view); }
};

struct AgentNetworkOptions {
  int server = 0;                       // of this agent
  std::vector<AgentAddress> addresses;  // of the agents of all servers
  bool has_witness = false;
  std::string secret;  // never sent; empty: none
  std::string program_version;
  // That must be equal on all servers; the witness has the first of them.
  std::vector<std::pair<std::string, std::string>> settings;
  std::chrono::milliseconds failure_timeout{1'000};
};

struct AgentHello;
// Who calls, until the other end has found out who that is, and proved itself.
struct AgentCall {
  control::ConnectionPtr connection;
  control::Nonce challenge{}, nonce{};

  // True: the other end has accepted, and this was its word of it. Errors: it has not, or is not who it should be.
  Result<bool> on_frame(const control::Frame& frame, const AgentHello& own, std::string_view secret);
};

// A state machine over the network; single-threaded. No event comes from within a call.
class AgentNetwork {
 public:
  struct Events {
    std::function<void(int server, std::string_view message)> message;
    std::function<OperatorAnswer(const OperatorRequest&)> request;
  };

  AgentNetwork(control::Network& network, const AgentNetworkOptions& options, Events events);
  ~AgentNetwork();  // closes all connections
  AgentNetwork(const AgentNetwork&) = delete;
  AgentNetwork& operator=(const AgentNetwork&) = delete;

  // Listens, unless this is the witness', and calls all of lower numbers, again and again. Error: it cannot listen.
  Status start();
  // What cannot be sent now is lost.
  void send(int server, std::string message);

 private:
  // A connection, whoever has made it.
  struct Line {
    AgentCall call;   // of one that is called: the connection, and the challenge that was put to it
    int server = -1;  // of the other end; -1: not known yet, or a person
    bool is_caller = false, is_accepted = false;
    std::unique_ptr<control::Timer> patience;  // until it is accepted
    std::string fault;                         // that ends it
  };
  using LinePtr = std::shared_ptr<Line>;
  struct Peer {
    LinePtr line;                           // that is accepted
    control::Timer::Time taken;             // when it last had taken all that was sent
    std::unique_ptr<control::Timer> retry;  // of one that is called
    std::string complaint;                  // that was logged last
  };

  LinePtr begin(control::ConnectionPtr connection, bool is_caller, int server);
  void close(const LinePtr& line);
  void on_frame(const LinePtr& line, const control::Frame& frame);
  void on_closed(const LinePtr& line, const std::string& why);

  void call(int server);
  void call_again(int server, const std::string& why);
  void greet(control::ConnectionPtr connection);
  void on_hello(const LinePtr& line, const control::Frame& frame);
  std::string find_fault(const Line& line, const AgentHello& hello) const;
  void refuse(const LinePtr& line, std::string why);
  void adopt(const LinePtr& line);
  AgentHello own_hello() const;
  std::chrono::milliseconds patience() const { return options_.failure_timeout * 2; }

  control::Network& network_;
  const AgentNetworkOptions options_;
  const Events events_;
  std::vector<Peer> peers_;  // by server; the witness last
  std::list<LinePtr> lines_;
  std::string complaint_;  // about strangers, that was logged last
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// Asks one agent and waits for its answer, which comes on the network's thread. Used once.
class OperatorCall {
 public:
  OperatorCall(control::Network& network, std::string secret) : network_(network), secret_(std::move(secret)) {}
  ~OperatorCall();
  void start(const AgentAddress& agent, const OperatorRequest& request, std::chrono::milliseconds patience,
             std::function<void(Result<OperatorAnswer>)> answered);

 private:
  void on_connected(control::ConnectionPtr connection, std::chrono::milliseconds patience);
  void on_frame(const control::Frame& frame);
  void end(Result<OperatorAnswer> answer);

  control::Network& network_;
  const std::string secret_;
  OperatorRequest request_;
  std::function<void(Result<OperatorAnswer>)> answered_;
  AgentCall call_;
  std::unique_ptr<control::Timer> timer_;
};

}  // namespace cachalot::agents
