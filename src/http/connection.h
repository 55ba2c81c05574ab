#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <memory>
#include <string>

#include "http/deadline.h"
#include "http/exchange.h"
#include "http/framing.h"
#include "http/server_core.h"

namespace cachalot::http {

// One client's connection: reads a request, hands it to its handler, writes the answer, and so on. Everything happens
// on the socket's strand, but for close(), close_when_idle() and give_way(), which may be called from any thread.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(boost::asio::ip::tcp::socket socket, std::shared_ptr<ServerCore> core);
  void start();
  void close();
  // Now if it waits for a request, else after the request that is under way.
  void close_when_idle();
  // Somebody waits for a place: the same, but a client that has just come may ask once.
  void give_way();

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  // What a request gets: its handler, or at once a response.
  struct Decision {
    const Server::Handler* handler = nullptr;
    bool pulls_body = false;
    std::optional<Response> response;
  };

  boost::asio::awaitable<void> run();
  // False: nothing more is to be read from this client.
  boost::asio::awaitable<bool> serve_request();
  boost::asio::awaitable<bool> read_head(Parser& parser);
  // So much of it at least, or all.
  boost::asio::awaitable<bool> read_body(Parser& parser, size_t num_bytes);
  boost::asio::awaitable<void> refuse(Response response, const Parser& parser);
  boost::asio::awaitable<bool> write_answer(AnswerFraming& answered);
  boost::asio::awaitable<bool> write_all(std::string_view bytes);
  boost::asio::awaitable<void> linger();

  Decision decide(const Request& request) const;
  void begin_exchange(Decision decision, Request request);
  // For the handler, what was not read of a body.
  void pull_body(const Exchange* exchange, std::function<void(Result<std::string>)> on_piece);
  boost::asio::awaitable<Result<std::string>> read_piece();
  boost::asio::awaitable<void> stop_pulling();
  void watch_for_close();
  void read_ahead();
  void stop_watch(const boost::system::error_code& error);
  boost::asio::awaitable<void> stop_watching();
  boost::asio::awaitable<void> wait_until_woken();
  void wake();
  void close_socket();
  void break_off();

  boost::asio::ip::tcp::socket socket_;
  const std::shared_ptr<ServerCore> core_;
  Deadline deadline_;
  boost::beast::flat_buffer buffer_;
  std::string peer_;

  class Upload;
  struct Pull {
    Pull(boost::asio::ip::tcp::socket& socket, Parser& parser) : deadline(socket), parser(parser) {}
    Deadline deadline;  // beside that of the answer
    Parser& parser;
    bool is_reading = false;
    boost::asio::cancellation_signal cancel;
  };

  std::shared_ptr<Exchange> exchange_;
  std::unique_ptr<Pull> pull_;  // of this exchange's handler; null if it has the whole body
  boost::asio::steady_timer wake_timer_;
  boost::asio::cancellation_signal watch_cancel_;
  bool woken_ = false;
  bool watching_ = false, stop_watching_ = false;
  bool idle_ = true, last_request_ = false, has_served_ = false;
};

}  // namespace cachalot::http
