#include "agents/agent_network.h"

#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "base/ports.h"
#include "base/text.h"
#include "comm/membership/agreement.h"

namespace cachalot::agents {

using control::ConnectionPtr;
using control::Frame;
using control::MessageType;
using control::Nonce;
using control::Proof;

namespace {

constexpr std::ptrdiff_t kMaxStrangers = 256;  // that have called and not yet said who they are

struct WordOfAgent {
  static constexpr MessageType kType = MessageType::kAgentWord;
  std::string message;
  static auto fields(auto& self) { return std::tie(self.message); }
};

template <class Message>
void send_to(const ConnectionPtr& connection, const Message& message) {
  connection->send_frame(control::encode_frame(message, 0));
}

bool is_of_this_machine(const std::string& address) {
  return address.starts_with("127.") || address == "::1" || address.starts_with("::ffff:127.");
}

}  // namespace

struct AgentHello {
  static constexpr MessageType kType = MessageType::kAgentHello;
  int server = 0;  // -1: a person asks
  std::string host, program_version;
  int64_t pid = 0;
  bool has_secret = false;
  Nonce nonce{};
  Proof proof{};  // zeros while it is computed over the rest, and where there is no secret
  std::vector<std::pair<std::string, std::string>> settings;

  static auto fields(auto& self) {
    return std::tie(self.server, self.host, self.program_version, self.pid, self.has_secret, self.nonce, self.proof,
                    self.settings);
  }
  std::string name() const {
    return fmt::format("{} (host {}, pid {})", server < 0 ? "a person" : fmt::format("the agent of server {}", server),
                       name_text(host), pid);
  }
};

namespace {

Proof proof_of_caller(std::string_view secret, const Nonce& challenge, AgentHello hello) {
  hello.proof = {};
  control::Writer message;
  message(std::string("cachalot agent calls"), challenge, hello);
  return control::keyed_hash(secret, message.take());
}

Proof proof_of_called(std::string_view secret, const Nonce& challenge, const Nonce& nonce) {
  control::Writer message;
  message(std::string("cachalot agent is called"), challenge, nonce);
  return control::keyed_hash(secret, message.take());
}

}  // namespace

std::string AgentAddress::text() const {
  return address_text(host, port);
}

Result<AgentAddress> parse_agent_address(std::string_view text) {
  const size_t colon = text.rfind(':');
  std::string_view host = text.substr(0, std::min(colon, text.size()));
  const auto port =
      parse_number<uint16_t>(text.substr(host.size() + (colon == std::string_view::npos ? 0 : 1))).value_or(0);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host.empty() || port == 0)
    return make_error(ErrorCode::kInvalidArgument, "{}: not an address with a port, as 10.0.0.7:29551", quoted(text));
  return AgentAddress{.host = std::string(host), .port = port};
}

// --- Who calls.

Result<bool> AgentCall::on_frame(const Frame& frame, const AgentHello& own, std::string_view secret) {
  if (frame.header.type == MessageType::kChallenge) {
    ASSIGN_OR_RETURN(const control::Challenge asked, control::decode<control::Challenge>(frame.payload));
    challenge = asked.nonce;
    AgentHello hello = own;
    hello.nonce = nonce;
    if (hello.has_secret) hello.proof = proof_of_caller(secret, challenge, hello);
    send_to(connection, hello);
    return false;
  }
  if (frame.header.type == MessageType::kRefused) {
    ASSIGN_OR_RETURN(const control::Refused refused, control::decode<control::Refused>(frame.payload));
    return make_error(ErrorCode::kInvalidArgument, "{}", escaped(refused.message));
  }
  if (frame.header.type != MessageType::kAccepted)
    return make_error(ErrorCode::kCorrupt, "what answers there is no agent of a group");
  ASSIGN_OR_RETURN(const control::Accepted accepted, control::decode<control::Accepted>(frame.payload));
  if (own.has_secret && !control::equal(accepted.proof, proof_of_called(secret, challenge, nonce)))
    return make_error(ErrorCode::kInvalidArgument, "it does not have this group's secret (--group-secret-file)");
  return true;
}

AgentNetwork::AgentNetwork(control::Network& network, const AgentNetworkOptions& options, Events events)
    : network_(network), options_(options), events_(std::move(events)) {
  peers_.resize(options.addresses.size() + (options.has_witness ? 1 : 0));
}

// A connection's events hold its line, and the line the connection, until it is closed.
AgentNetwork::~AgentNetwork() {
  for (const LinePtr& line : lines_) line->call.connection->close();
}

AgentHello AgentNetwork::own_hello() const {
  return {.server = options_.server,
          .host = this_host(),
          .program_version = options_.program_version,
          .pid = getpid(),
          .has_secret = !options_.secret.empty(),
          .settings = options_.settings};
}

Status AgentNetwork::start() {
  if (options_.server < std::ssize(options_.addresses)) {
    const AgentAddress& own = options_.addresses[static_cast<size_t>(options_.server)];
    const Status listens = network_.listen(
        own.host, own.port, [this](ConnectionPtr connection) { greet(std::move(connection)); },
        [this](const std::string& why) {
          if (complaint_ != why) log::warn("this agent cannot take a connection: {}", why);
          complaint_ = why;
        });
    if (!listens) {
      return make_parameter_error("--agents", "the agent of server {} cannot listen at {} (--agents): {}",
                                  options_.server, own.text(), listens.error().message);
    }
  }
  for (int server = 0; server < options_.server; server++) {
    peers_[static_cast<size_t>(server)].retry = network_.make_timer([this, server] { call(server); });
    call(server);
  }
  return {};
}

AgentNetwork::LinePtr AgentNetwork::begin(ConnectionPtr connection, bool is_caller, int server) {
  const auto line = std::make_shared<Line>();
  line->call.connection = std::move(connection);
  line->is_caller = is_caller;
  line->server = server;
  (is_caller ? line->call.nonce : line->call.challenge) = network_.random_nonce();
  line->patience = network_.make_timer([weak = std::weak_ptr(line)] {
    const LinePtr late = weak.lock();
    if (!late) return;
    late->fault = "it does not say in time who it is";
    late->call.connection->finish();
  });
  line->patience->set(network_.now() + patience());
  lines_.push_back(line);
  line->call.connection->set_send_timeout(patience());
  line->call.connection->start({
      .frame = [this, line](const Frame& frame) { on_frame(line, frame); },
      .closed =
          [this, line](const Error& error) {
            on_closed(line, !line->fault.empty()    ? line->fault
                            : error.message.empty() ? "it closed the connection"
                                                    : error.message);
          },
  });
  return line;
}

void AgentNetwork::close(const LinePtr& line) {
  line->call.connection->close();
  line->patience->cancel();
  lines_.remove(LinePtr(line));
}

void AgentNetwork::on_closed(const LinePtr& line, const std::string& why) {
  const LinePtr closed = line;  // what is given may stand in what ends
  close(closed);
  if (closed->server < 0) return;
  Peer& peer = peers_[static_cast<size_t>(closed->server)];
  if (peer.line == closed) peer.line = nullptr;
  if (closed->is_caller) call_again(closed->server, why);
}

void AgentNetwork::on_frame(const LinePtr& line, const Frame& frame) {
  if (line->is_accepted && line->server >= 0) {
    const auto word = control::decode<WordOfAgent>(frame.payload);
    if (frame.header.type == MessageType::kAgentWord && word) events_.message(line->server, word->message);
    return;
  }
  if (line->is_accepted) {
    const auto request = control::decode<OperatorRequest>(frame.payload);
    if (frame.header.type == MessageType::kOperatorRequest && request)
      send_to(line->call.connection, events_.request(*request));
    return line->call.connection->finish();
  }
  if (!line->is_caller) return on_hello(line, frame);
  const Result<bool> accepted = line->call.on_frame(frame, own_hello(), options_.secret);
  if (!accepted) return on_closed(line, accepted.error().message);
  if (*accepted) adopt(line);
}

// --- Who calls.

void AgentNetwork::call(int server) {
  const AgentAddress& address = options_.addresses[static_cast<size_t>(server)];
  network_.connect(address.host, address.port, patience(),
                   [this, server, weak = std::weak_ptr(alive_)](Result<ConnectionPtr> connection) {
                     if (weak.expired()) return;
                     if (!connection) return call_again(server, connection.error().message);
                     begin(std::move(*connection), true, server);
                   });
}

void AgentNetwork::call_again(int server, const std::string& why) {
  Peer& peer = peers_[static_cast<size_t>(server)];
  if (std::exchange(peer.complaint, why) != why) {
    log::info("the agent of server {} at {} is not to be had: {}", server,
              options_.addresses[static_cast<size_t>(server)].text(), why);
  }
  peer.retry->set(network_.now() + options_.failure_timeout / 5);
}

// --- Who is called.

void AgentNetwork::greet(ConnectionPtr connection) {
  const auto is_stranger = [](const LinePtr& line) { return !line->is_caller && !line->is_accepted; };
  if (std::ranges::count_if(lines_, is_stranger) >= kMaxStrangers) close(*std::ranges::find_if(lines_, is_stranger));
  const LinePtr line = begin(std::move(connection), false, -1);
  send_to(line->call.connection,
          control::Challenge{.nonce = line->call.challenge, .has_secret = !options_.secret.empty()});
}

void AgentNetwork::refuse(const LinePtr& line, std::string why) {
  if (std::exchange(complaint_, why) != why)
    log::warn("a caller from {} is turned away: {}", line->call.connection->peer(), why);
  send_to(line->call.connection, control::Refused{.message = std::move(why), .parameter = {}});
  line->call.connection->finish();  // and is forgotten when that is through
}

void AgentNetwork::on_hello(const LinePtr& line, const Frame& frame) {
  if (frame.header.type != MessageType::kAgentHello || frame.header.protocol != control::kProtocolVersion)
    return refuse(line, "it is no agent, or of another version of Cachalot");
  const Result<AgentHello> hello = control::decode<AgentHello>(frame.payload);
  if (!hello) return refuse(line, hello.error().message);
  if (std::string fault = find_fault(*line, *hello); !fault.empty()) return refuse(line, std::move(fault));
  line->server = hello->server;
  const std::string& secret = options_.secret;
  send_to(line->call.connection,
          control::Accepted{.proof = secret.empty() ? Proof{}
                                                    : proof_of_called(secret, line->call.challenge, hello->nonce)});
  adopt(line);
}

// Why it may not take part; empty: it may.
std::string AgentNetwork::find_fault(const Line& line, const AgentHello& hello) const {
  const std::string who = hello.name(), own = own_hello().name();
  const bool has_secret = !options_.secret.empty();
  if (hello.has_secret != has_secret) {
    return fmt::format("{} has {} group secret (--group-secret-file), {} has {}", who, hello.has_secret ? "a" : "no",
                       own, has_secret ? "one" : "none");
  }
  if (has_secret && !control::equal(hello.proof, proof_of_caller(options_.secret, line.call.challenge, hello)))
    return fmt::format("{} has another group secret (--group-secret-file) than {}", who, own);
  if (hello.server < 0) {
    if (has_secret || is_of_this_machine(line.call.connection->peer_address())) return {};
    return "a group without a secret (--group-secret-file) is told what to do on the machine of an agent only";
  }
  if (hello.server <= options_.server || hello.server >= std::ssize(peers_))
    return fmt::format("{} calls {}, whose group has {}", who, own, counted(std::ssize(peers_), "agent"));
  if (hello.program_version != options_.program_version) {
    return fmt::format("{} runs Cachalot {}, {} runs Cachalot {}; all must run the same program", who,
                       name_text(hello.program_version), own, options_.program_version);
  }
  // A witness computes nothing: it has only the first of them.
  const bool is_witness = hello.server == std::ssize(options_.addresses);
  const auto [theirs, ours] = std::ranges::mismatch(hello.settings, options_.settings);
  if (theirs == hello.settings.end() && (is_witness || ours == options_.settings.end())) return {};
  if (theirs == hello.settings.end() || ours == options_.settings.end() || theirs->first != ours->first)
    return fmt::format("{} has other settings than {}", who, own);
  return fmt::format("{} is {} on {} and {} on {}; it must be the same on all servers", ours->first,
                     quoted(theirs->second), who, quoted(ours->second), own);
}

// --- Between agents.

void AgentNetwork::adopt(const LinePtr& line) {
  line->is_accepted = true;
  line->patience->cancel();
  if (line->server < 0) return;
  line->call.connection->set_max_receive_bytes(control::kMaxMessageBytes);
  Peer& peer = peers_[static_cast<size_t>(line->server)];
  // It stands in place of an older one, whose end may be seen only later.
  if (const LinePtr before = std::exchange(peer.line, line)) close(before);
  peer.taken = network_.now();
  peer.complaint.clear();
}

void AgentNetwork::send(int server, std::string message) {
  Peer& peer = peers_[static_cast<size_t>(server)];
  if (!peer.line) return;
  const auto now = network_.now();
  if (!peer.line->call.connection->has_unsent()) peer.taken = now;
  // It is stopped, or cut off: words would pile up, and be of no use when it wakes.
  if (now - peer.taken > options_.failure_timeout) return;
  send_to(peer.line->call.connection, WordOfAgent{std::move(message)});
}

// --- A person.

OperatorCall::~OperatorCall() {
  if (call_.connection) call_.connection->close();
}

void OperatorCall::start(const AgentAddress& agent, const OperatorRequest& request, std::chrono::milliseconds patience,
                         std::function<void(Result<OperatorAnswer>)> answered) {
  request_ = request;
  answered_ = std::move(answered);
  timer_ = network_.make_timer(
      [this] { end(make_error(ErrorCode::kDeadlineExceeded, "it accepts calls and does not answer")); });
  network_.connect(agent.host, agent.port, patience, [this, patience](Result<ConnectionPtr> connection) {
    connection ? on_connected(std::move(*connection), patience) : end(std::unexpected(connection.error()));
  });
}

void OperatorCall::on_connected(ConnectionPtr connection, std::chrono::milliseconds patience) {
  call_.connection = std::move(connection);
  call_.nonce = network_.random_nonce();
  call_.connection->set_max_receive_bytes(control::kMaxMessageBytes);
  call_.connection->start({
      .frame = [this](const Frame& frame) { on_frame(frame); },
      .closed = [this](const Error&) { end(make_error(ErrorCode::kUnavailable, "it closed the connection")); },
  });
  timer_->set(network_.now() + patience);
}

void OperatorCall::on_frame(const Frame& frame) {
  if (frame.header.type == MessageType::kOperatorAnswer) return end(control::decode<OperatorAnswer>(frame.payload));
  const AgentHello own{.server = -1,
                       .host = this_host(),
                       .program_version = {},
                       .pid = getpid(),
                       .has_secret = !secret_.empty(),
                       .settings = {}};
  const Result<bool> accepted = call_.on_frame(frame, own, secret_);
  if (!accepted) return end(std::unexpected(accepted.error()));
  if (*accepted) send_to(call_.connection, request_);
}

void OperatorCall::end(Result<OperatorAnswer> answer) {
  timer_->cancel();
  if (auto answered = std::exchange(answered_, nullptr)) answered(std::move(answer));
}

}  // namespace cachalot::agents
