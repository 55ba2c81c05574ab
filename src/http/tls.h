#pragma once

#include <openssl/types.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/socket_base.hpp>
#include <boost/system/error_code.hpp>
#include <memory>
#include <string>

#include "base/error.h"
#include "config/door_options.h"

// TLS 1.2 and later, by OpenSSL, over sockets that somebody else waits for.
namespace cachalot::http {

// What all connections of a server, or of a client, have in common. Thread-safe.
class TlsContext {
 public:
  // Errors name the file and what is wrong with it: not there, no PEM or half of it, a key that is not the
  // certificate's, a certificate that has expired or is not valid yet.
  static Result<std::shared_ptr<const TlsContext>> of_server(const TlsOptions& options);
  // Trusts the authorities in a file, or with none the system's.
  static Result<std::shared_ptr<const TlsContext>> of_client(const std::string& ca_certs);
  // Trusts whoever answers: for questions that say nothing secret, and whose answers are open to all.
  static std::shared_ptr<const TlsContext> of_trusting_client();

  SSL_CTX* get() const { return context_.get(); }
  std::string description() const;  // of a server's certificate: whose it is, and until when

 private:
  explicit TlsContext(bool is_server);
  Status use_certificate(const TlsOptions& options);
  Status use_authorities(const std::string& path);

  struct Free {
    void operator()(SSL_CTX* context) const;
  };
  std::unique_ptr<SSL_CTX, Free> context_;
};

// What of a server's files has been seen: it changes when one of them does.
std::string stamp_of_files(const TlsOptions& options);

// One connection's end. Each operation does what goes without waiting; would_block: the socket is to be waited for, as
// wants() says. Used on one strand; reading and writing may take turns.
class TlsSession {
 public:
  // Over a connected socket, which does not block and outlives this. `host`: whom a client wants to talk to.
  TlsSession(const TlsContext& context, int socket, bool is_server, const std::string& host = {});

  void shake_hands(boost::system::error_code& error);
  size_t read(boost::asio::mutable_buffer buffer, boost::system::error_code& error);
  size_t write(boost::asio::const_buffer bytes, boost::system::error_code& error);
  boost::asio::socket_base::wait_type wants() const { return wants_; }
  // Whether something that has come was not read: the socket may say nothing of it.
  bool has_pending() const;
  // Tells the other side that nothing follows, if that goes at once.
  void end();
  // Why hands were not shaken, for people.
  std::string why(const boost::system::error_code& error) const;

 private:
  // OpenSSL's word on an operation that gave `result`.
  void take_result(int result, boost::system::error_code& error);

  struct Free {
    void operator()(SSL* session) const;
  };
  std::unique_ptr<SSL, Free> session_;
  boost::asio::socket_base::wait_type wants_ = boost::asio::socket_base::wait_read;
  bool is_broken_ = false;
};

// Whether the other side spoke plain HTTP to this one.
bool is_plain_http(const boost::system::error_code& error);

}  // namespace cachalot::http
