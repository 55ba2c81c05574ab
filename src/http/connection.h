#pragma once

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/strand.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <condition_variable>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/progress.h"
#include "http/framing.h"
#include "http/server.h"
#include "http/stream.h"

namespace cachalot::http {

struct Route {
  std::string method, path;  // a path that ends in "/*" stands for every path below it
  bool pulls_body = false;   // the handler, beyond what is buffered
  Server::Handler handler;   // one of these two
  Server::Answerer answerer;
};

// What a request gets: at once a response, or whoever answers it.
struct Decision {
  std::optional<Response> response;
  const Route* route = nullptr;
  std::shared_ptr<Visit> visit;
};

// What a server and its connections share. Options, routes and hooks are constant after start(); the rest is guarded.
struct ServerCore : std::enable_shared_from_this<ServerCore> {
  ServerCore(boost::asio::io_context& context, ServerOptions options)
      : context(context),
        options(std::move(options)),
        acceptor(boost::asio::make_strand(context)),
        room(acceptor.get_executor()) {}

  Status listen();
  boost::system::error_code bind();
  void close_acceptor();
  awaitable<void> accept_connections();
  // Takes a changed certificate for connections to come; one that cannot be used leaves the one before.
  awaitable<void> refresh_certificate();
  std::shared_ptr<const TlsContext> tls();
  awaitable<void> accept_while_there_is_memory(std::shared_ptr<ServerCore> self);
  void stop_accepting();
  // False: it came while the server ends, whose routes may be gone before it is; it is closed.
  bool add(const std::shared_ptr<Connection>& connection);
  void remove(Connection* connection);
  int num_connections();
  std::vector<std::shared_ptr<Connection>> all_connections();
  bool wait_until_empty(std::chrono::milliseconds timeout);

  // A connection that waits for its client's next head may be closed for another one's sake; one that has been of use
  // (a health question's, say) as the last.
  void begins_to_wait(Connection* connection, bool has_served);
  void ends_to_wait(Connection* connection);
  // Closes the newcomer, or else the other one, that has waited longest. False: none waits.
  bool make_room();
  // Whether one more request may be answered; makes room for it.
  bool admits_request();
  // By its head alone.
  Decision decide(const Request& head);
  Response answer_at_once(const Server::Answerer& answerer, const Request& request) const;

  // Of max_body_bytes_in_flight. False: there are not so many left.
  bool take_body_bytes(size_t num_bytes);
  void give_body_bytes(size_t num_bytes) { num_body_bytes -= num_bytes; }

  boost::asio::io_context& context;
  const ServerOptions options;
  std::vector<Route> routes;
  Server::HeadCheck head_check;
  Server::ErrorFormat error_format;
  Server::Observer observer;
  boost::asio::basic_socket_acceptor<boost::asio::generic::stream_protocol> acceptor;
  boost::asio::steady_timer room;  // cancelled when a connection ends
  uint16_t port = 0;
  std::atomic<size_t> num_body_bytes = 0;

 private:
  // None: what its path would allow, if there is such a path.
  const Route* find_route(const Request& head, std::string& allowed_methods) const;
  // Why a browser's page, or a name that was made to mean this machine, has no business here; empty: it may come.
  std::string fault_of_origin(const Request& head) const;

  using Waiting = std::list<Connection*>;  // the longest waiting first
  struct Entry {
    std::weak_ptr<Connection> connection;
    Waiting* list = nullptr;  // in which it waits
    Waiting::iterator place;
    bool gives_way = false;  // was told to, and is as good as gone unless its client's next head was there before
  };
  void leave_list(Entry& entry);
  std::shared_ptr<Connection> take_longest_waiting();

  std::mutex mutex_;
  std::condition_variable empty_;
  std::unordered_map<Connection*, Entry> connections_;
  Waiting newcomers_, waiting_;
  int num_giving_way_ = 0;
  bool draining_ = false, is_on_loopback_ = false;
  std::string machine_name_;
  std::shared_ptr<const TlsContext> tls_;  // null: plain HTTP
  Complaints complaints_;
};

// One client's connection: reads a request, hands it to its handler, writes the answer, and so on. Everything happens
// on the socket's strand, but for close(), cut(), close_when_idle() and give_way(), which may be called from any
// thread.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Socket socket, std::shared_ptr<ServerCore> core);
  void start();
  void close();
  // Breaks off what runs, with a last word where it can be understood.
  void cut();
  // Now if it waits for a request, else after the request that is under way.
  void close_when_idle();
  // Somebody needs the place: closed if it waits for a request, else after the one that is under way.
  void give_way();

 private:
  friend class ServerCall;
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  class BodyShare;

  // One request, as long as it is answered.
  struct Exchange {
    Exchange(Connection& connection, Request request, Parser& parser, AnswerFraming answer)
        : method(request.method),
          path(request.path),
          call(connection, std::move(request)),
          parser(parser),
          answer(answer) {}
    const std::string method, path;  // the handler may take the request
    ServerCall call;
    Parser& parser;
    AnswerFraming answer;
    std::string unsent;                                // of the answer: its head, until something follows it
    bool is_handled = false;                           // the handler is through
    bool has_sent = false, is_writing = false;         // something of the answer
    size_t num_probed = 0;                             // bytes of its begin that were sent ahead
    std::chrono::steady_clock::duration body_wait{0};  // in ServerCall::read()
  };

  awaitable<void> run();
  awaitable<bool> shake_hands(const TlsContext& tls);
  // False: nothing more is to be read from this client.
  awaitable<bool> serve_request();
  awaitable<bool> read_head(Parser& parser);
  awaitable<std::optional<RequestFault>> read_head_lines(Parser& parser, bool& is_gone);
  // So much of it at least, or all.
  awaitable<bool> read_body(Parser& parser, size_t num_bytes, Request& request, const Route* route);
  awaitable<boost::system::error_code> read_some_body(Parser& parser);
  awaitable<void> refuse(Response response, const Parser& parser, const Route* route);
  void tell_of(const Exchange& exchange, const Route* route, std::chrono::steady_clock::time_point start) const;
  awaitable<void> linger();
  // `is_last`: of what this request's client gets.
  awaitable<bool> write_all(std::string_view bytes, bool is_last = false);
  bool write_last(std::string_view& bytes, boost::system::error_code& error);

  awaitable<void> answer(Exchange& exchange, const Server::Handler& handler);
  awaitable<void> run_handler(Exchange& exchange, const Server::Handler& handler);
  awaitable<void> end_unfinished(Exchange& exchange);
  awaitable<void> watch_for_close(Exchange& exchange);
  awaitable<void> watch_half_closed(Exchange& exchange);
  awaitable<void> write_answer(Exchange& exchange, std::string bytes);
  void close_socket();
  void break_off();

  Stream stream_;
  const std::shared_ptr<ServerCore> core_;
  Timeout timeout_;
  boost::asio::steady_timer pause_;  // of a request's coroutines; cut() ends it
  boost::beast::flat_buffer buffer_;
  std::string peer_;
  Exchange* exchange_ = nullptr;  // the one that is under way
  bool waits_for_head_ = false, last_request_ = false, has_served_ = false, is_cut_ = false, client_is_silent_ = false;
};

}  // namespace cachalot::http
