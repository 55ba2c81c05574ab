#include "http/tls.h"

#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <boost/asio/error.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ssl/error.hpp>
#include <cerrno>
#include <ctime>
#include <new>

#include "base/file.h"
#include "base/text.h"

namespace cachalot::http {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

// OpenSSL's own socket BIO writes with write(), which raises SIGPIPE; and a pair of memory BIOs, as Asio's, would hold
// 34 KiB for each connection.
int write_to_socket(BIO* bio, const char* bytes, int num_bytes) {
  BIO_clear_retry_flags(bio);
  int socket = -1;
  BIO_get_fd(bio, &socket);
  const auto num_written = static_cast<int>(send(socket, bytes, static_cast<size_t>(num_bytes), MSG_NOSIGNAL));
  if (num_written < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_write(bio);
  return num_written;
}

int read_from_socket(BIO* bio, char* bytes, int num_bytes) {
  BIO_clear_retry_flags(bio);
  int socket = -1;
  BIO_get_fd(bio, &socket);
  const auto num_read = static_cast<int>(recv(socket, bytes, static_cast<size_t>(num_bytes), 0));
  if (num_read < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_read(bio);
  if (num_read == 0) BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
  return num_read;
}

long control(BIO* bio, int command, long number, void* pointer) {
  switch (command) {
    case BIO_C_SET_FD:
      BIO_set_data(bio, reinterpret_cast<void*>(static_cast<intptr_t>(*static_cast<int*>(pointer))));
      BIO_set_init(bio, 1);
      return 1;
    case BIO_C_GET_FD:
      *static_cast<int*>(pointer) = static_cast<int>(reinterpret_cast<intptr_t>(BIO_get_data(bio)));
      return 1;
    case BIO_CTRL_EOF:
      return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
    default:
      return command == BIO_CTRL_FLUSH || number < 0 ? 1 : 0;
  }
}

BIO_METHOD* socket_methods() {
  static BIO_METHOD* const methods = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK | BIO_TYPE_DESCRIPTOR, "socket");
    BIO_meth_set_write(made, write_to_socket);
    BIO_meth_set_read(made, read_from_socket);
    BIO_meth_set_ctrl(made, control);
    return made;
  }();
  return methods;
}

// What OpenSSL noted first, in its words, which forgets it.
std::string noted_reason() {
  const unsigned long code = ERR_peek_error();
  const char* reason = ERR_reason_error_string(code);
  const bool is_of_system = ERR_GET_LIB(code) == ERR_LIB_SYS;
  std::string text = is_of_system ? error_code(ERR_GET_REASON(code), boost::system::system_category()).message()
                     : reason     ? reason
                                  : "not readable";
  ERR_clear_error();
  return text;
}

std::unexpected<Error> file_error(const char* flag, const std::string& path, const std::string& what) {
  return make_parameter_error(flag, "{} {}: {}", flag, quoted(path), what);
}

std::string date_of(const ASN1_TIME* time) {
  tm date{};
  if (!ASN1_TIME_to_tm(time, &date)) return "?";
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02} UTC", date.tm_year + 1900, date.tm_mon + 1, date.tm_mday,
                     date.tm_hour, date.tm_min);
}

int refuse_password(char*, int, int, void*) {
  return -1;  // nobody is there to be asked
}

}  // namespace

void TlsContext::Free::operator()(SSL_CTX* context) const {
  SSL_CTX_free(context);
}

TlsContext::TlsContext(bool is_server) : context_(SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method())) {
  CHECK(context_, "OpenSSL makes no context: {}", noted_reason());
  SSL_CTX* const context = context_.get();
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  // A connection that waits holds no buffers; what is left of a write may stand elsewhere when it is tried again.
  SSL_CTX_set_mode(context,
                   SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_default_passwd_cb(context, refuse_password);
}

Result<std::shared_ptr<const TlsContext>> TlsContext::of_server(const TlsOptions& options) {
  std::shared_ptr<TlsContext> tls(new TlsContext(true));
  SSL_CTX* const context = tls->get();
  RETURN_IF_ERROR(tls->use_certificate(options));
  ERR_clear_error();
  if (!options.ciphers.empty() && !SSL_CTX_set_cipher_list(context, options.ciphers.c_str()))
    return file_error("--ssl-ciphers", options.ciphers, noted_reason());
  if (options.cert_reqs > 0) {
    if (options.ca_certs.empty())
      return make_parameter_error("--ssl-cert-reqs", "--ssl-cert-reqs {} wants --ssl-ca-certs to check by",
                                  options.cert_reqs);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | (options.cert_reqs > 1 ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
                       nullptr);
    constexpr unsigned char kSessionContext[] = "cachalot";
    SSL_CTX_set_session_id_context(context, kSessionContext, sizeof(kSessionContext) - 1);
  }
  if (!options.ca_certs.empty()) {
    RETURN_IF_ERROR(tls->use_authorities(options.ca_certs));
    SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(options.ca_certs.c_str()));
  }
  return tls;
}

Status TlsContext::use_certificate(const TlsOptions& options) {
  SSL_CTX* const context = context_.get();
  const std::string& key = options.keyfile.empty() ? options.certfile : options.keyfile;
  const char* const key_flag = options.keyfile.empty() ? "--ssl-certfile" : "--ssl-keyfile";
  ERR_clear_error();
  if (!SSL_CTX_use_certificate_chain_file(context, options.certfile.c_str()))
    return file_error("--ssl-certfile", options.certfile,
                      fmt::format("holds no whole certificate in PEM ({})", noted_reason()));
  const X509* const certificate = SSL_CTX_get0_certificate(context);
  if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
    return file_error("--ssl-certfile", options.certfile,
                      fmt::format("the certificate has expired, on {}", date_of(X509_get0_notAfter(certificate))));
  if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
    return file_error("--ssl-certfile", options.certfile,
                      fmt::format("the certificate is not valid before {}; is the clock right?",
                                  date_of(X509_get0_notBefore(certificate))));
  if (SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM)) return {};
  const bool is_others = ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH ||
                         ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_TYPE_MISMATCH;
  const std::string reason = noted_reason();
  return file_error(key_flag, key,
                    is_others ? fmt::format("the key is not that of the certificate in {}", quoted(options.certfile))
                              : fmt::format("holds no whole key in PEM without a password ({})", reason));
}

Status TlsContext::use_authorities(const std::string& path) {
  ERR_clear_error();
  struct stat found{};
  const bool is_folder = stat(path.c_str(), &found) == 0 && S_ISDIR(found.st_mode);
  if (SSL_CTX_load_verify_locations(get(), is_folder ? nullptr : path.c_str(), is_folder ? path.c_str() : nullptr))
    return {};
  return make_error(ErrorCode::kInvalidArgument, "{}: holds no certificates of authorities in PEM ({})", quoted(path),
                    noted_reason());
}

Result<std::shared_ptr<const TlsContext>> TlsContext::of_client(const std::string& ca_certs) {
  std::shared_ptr<TlsContext> tls(new TlsContext(false));
  SSL_CTX_set_verify(tls->get(), SSL_VERIFY_PEER, nullptr);
  if (ca_certs.empty())
    SSL_CTX_set_default_verify_paths(tls->get());
  else
    RETURN_IF_ERROR(tls->use_authorities(ca_certs));
  return tls;
}

std::shared_ptr<const TlsContext> TlsContext::of_trusting_client() {
  return std::shared_ptr<TlsContext>(new TlsContext(false));
}

std::string TlsContext::description() const {
  const X509* const certificate = SSL_CTX_get0_certificate(get());
  char name[256] = "";
  X509_NAME_oneline(X509_get_subject_name(certificate), name, sizeof(name));
  return fmt::format("{}, valid until {}", quoted(name), date_of(X509_get0_notAfter(certificate)));
}

std::string stamp_of_files(const TlsOptions& options) {
  std::string stamp;
  for (const std::string& path : {options.certfile, options.keyfile, options.ca_certs}) {
    struct stat found{};
    if (path.empty() || stat(path.c_str(), &found) != 0) continue;
    stamp +=
        fmt::format("{} {} {} {}.{} ", path, found.st_ino, found.st_size, found.st_mtim.tv_sec, found.st_mtim.tv_nsec);
  }
  return stamp;
}

void TlsSession::Free::operator()(SSL* session) const {
  SSL_free(session);
}

TlsSession::TlsSession(const TlsContext& context, int socket, bool is_server, const std::string& host)
    : session_(SSL_new(context.get())) {
  BIO* const bio = session_ ? BIO_new(socket_methods()) : nullptr;
  if (!bio) throw std::bad_alloc();
  BIO_set_fd(bio, socket, BIO_NOCLOSE);
  SSL_set_bio(session_.get(), bio, bio);
  if (is_server) {
    SSL_set_accept_state(session_.get());
    return;
  }
  SSL_set_connect_state(session_.get());
  error_code no_address;
  asio::ip::make_address(host, no_address);
  if (no_address) {
    SSL_set_tlsext_host_name(session_.get(), host.c_str());
    SSL_set1_host(session_.get(), host.c_str());
  } else {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(session_.get()), host.c_str());
  }
}

void TlsSession::take_result(int result, error_code& error) {
  const int system_error = errno;
  switch (SSL_get_error(session_.get(), result)) {
    case SSL_ERROR_NONE:
      error = {};
      return;
    case SSL_ERROR_WANT_READ:
      wants_ = asio::socket_base::wait_read;
      error = asio::error::would_block;
      return;
    case SSL_ERROR_WANT_WRITE:
      wants_ = asio::socket_base::wait_write;
      error = asio::error::would_block;
      return;
    case SSL_ERROR_ZERO_RETURN:
      error = asio::error::eof;
      return;
    case SSL_ERROR_SYSCALL:
      is_broken_ = true;
      error =
          system_error == 0 ? error_code(asio::error::eof) : error_code(system_error, boost::system::system_category());
      return;
    default:
      is_broken_ = true;
      // A connection that ends without a word ends, as one without TLS: HTTP says itself whether all was there.
      error = ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING
                  ? error_code(asio::error::eof)
                  : error_code(static_cast<int>(ERR_peek_error()), asio::error::get_ssl_category());
      ERR_clear_error();
  }
}

void TlsSession::shake_hands(error_code& error) {
  ERR_clear_error();
  errno = 0;
  take_result(SSL_do_handshake(session_.get()), error);
}

size_t TlsSession::read(asio::mutable_buffer buffer, error_code& error) {
  size_t num_read = 0;
  ERR_clear_error();
  errno = 0;
  take_result(SSL_read_ex(session_.get(), buffer.data(), buffer.size(), &num_read), error);
  return num_read;
}

size_t TlsSession::write(asio::const_buffer bytes, error_code& error) {
  const size_t num_bytes = bytes.size();
  error = {};
  // A record at a time.
  for (size_t num_written = 0; bytes.size() > 0 && !error; bytes += num_written) {
    ERR_clear_error();
    errno = num_written = 0;
    take_result(SSL_write_ex(session_.get(), bytes.data(), bytes.size(), &num_written), error);
  }
  return num_bytes - bytes.size();
}

bool TlsSession::has_pending() const {
  return SSL_has_pending(session_.get()) != 0;
}

void TlsSession::end() {
  ERR_clear_error();
  if (!is_broken_ && SSL_is_init_finished(session_.get())) SSL_shutdown(session_.get());
  ERR_clear_error();
}

std::string TlsSession::why(const error_code& error) const {
  const long verified = SSL_get_verify_result(session_.get());
  return verified == X509_V_OK ? error.message() : X509_verify_cert_error_string(verified);
}

bool is_plain_http(const error_code& error) {
  return error.category() == asio::error::get_ssl_category() &&
         ERR_GET_REASON(static_cast<unsigned long>(error.value())) == SSL_R_HTTP_REQUEST;
}

}  // namespace cachalot::http
