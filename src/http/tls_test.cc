#include "http/tls.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <openssl/bio.h>
#include <openssl/ssl.h>

#include <boost/asio/local/stream_protocol.hpp>
#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "http/certificate_test_util.h"
#include "http/loopback_test_util.h"
#include "http/stream.h"

namespace cachalot::http {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class TlsTest : public testing::Test {
 protected:
  TlsTest() {
    options_.host = "127.0.0.1";
    use(own_);
  }

  void use(const CertificateFiles& files) {
    options_.door.tls.certfile = files.certificate;
    options_.door.tls.keyfile = files.key;
  }
  Status start() {
    server_ = std::make_unique<Server>(threads_, options_);
    server_->route("GET", "/hello", [](const Request&) { return Response::text(200, "hello"); });
    server_->route("POST", "/echo", [](const Request& request) { return Response::text(200, request.body); });
    server_->route("GET", "/pieces", [](ServerCall& call) -> awaitable<void> {
      call.begin(200, {{"Content-Type", "text/event-stream"}});
      for (int piece = 0; piece < 1000; piece++) co_await call.send(fmt::format("data: {}\n\n", piece));
      co_await call.end();
    });
    return server_->start();
  }
  ClientOptions trusting(const CertificateFiles& files) {
    const auto tls = TlsContext::of_client(files.certificate);
    EXPECT_TRUE(tls);
    return {.max_idle_connections = 4, .tls = *tls};
  }
  ClientRequest request(const std::string& path, const std::string& host = "127.0.0.1") {
    return {.url = *parse_url(fmt::format("https://{}:{}{}", host, server_->port(), path))};
  }

  TestFolder folder_;
  const CertificateFiles own_ = CertificateFiles::make(folder_.path(), "own");
  IoThreads threads_{2};
  ServerOptions options_;
  std::unique_ptr<Server> server_;
};

TEST_F(TlsTest, CarriesLargeBodiesStreamsAndOneConnectionForMany) {
  ASSERT_TRUE(start());
  const Client client(threads_, trusting(own_));
  std::string body(5'000'000, ' ');
  for (size_t idx = 0; idx < body.size(); idx++) body[idx] = static_cast<char>('a' + idx * idx % 26);
  for (const char* host : {"127.0.0.1", "localhost"}) {
    ClientRequest echo = request("/echo", host);
    echo.method = "POST";
    echo.body = body;
    const auto echoed = client.fetch(std::move(echo));
    ASSERT_TRUE(echoed) << echoed.error().message;
    EXPECT_TRUE(echoed->body == body);
  }
  const auto pieces = client.fetch(request("/pieces"));
  ASSERT_TRUE(pieces);
  EXPECT_THAT(pieces->body, AllOf(StartsWith("data: 0\n\n"), EndsWith("data: 999\n\n")));
  for (int idx = 0; idx < 20; idx++) EXPECT_EQ(client.fetch(request("/hello"))->body, "hello");
  EXPECT_EQ(server_->num_connections(), 2);  // one for each name
}

TEST_F(TlsTest, AClientTrustsOnlyWhomItKnows) {
  options_.host = "0.0.0.0";
  ASSERT_TRUE(start());
  const CertificateFiles other = CertificateFiles::make(folder_.path(), "other");
  const auto strange = Client(threads_, trusting(other)).fetch(request("/hello"));
  ASSERT_FALSE(strange);
  EXPECT_THAT(strange.error().message, HasSubstr("self-signed certificate"));
  const auto by_system = Client(threads_).fetch(request("/hello"));
  ASSERT_FALSE(by_system);
  EXPECT_THAT(by_system.error().message, HasSubstr("self-signed certificate"));
  const auto by_other_name = Client(threads_, trusting(own_)).fetch(request("/hello", "127.0.0.2"));
  ASSERT_FALSE(by_other_name);
  EXPECT_THAT(by_other_name.error().message, HasSubstr("mismatch"));
}

TEST_F(TlsTest, FilesThatCannotServeAreNamedAtTheStart) {
  const auto fault = [&] {
    const Status started = start();
    return started ? std::string("it starts") : started.error().message;
  };
  const std::string whole = *read_file(own_.certificate);
  const std::string half = folder_.path("half.pem"), nothing = folder_.path("nothing.pem");
  std::ofstream(half) << whole.substr(0, whole.size() / 2);
  std::ofstream(nothing) << "no certificate";
  const CertificateFiles old = CertificateFiles::make(folder_.path(), "old", -7200, -3600);
  const CertificateFiles early = CertificateFiles::make(folder_.path(), "early", 3600, 7200);
  const CertificateFiles other = CertificateFiles::make(folder_.path(), "other");

  use({folder_.path("absent.pem"), own_.key});
  EXPECT_THAT(fault(), AllOf(HasSubstr("--ssl-certfile"), HasSubstr("absent.pem"), HasSubstr("No such file")));
  for (const std::string& broken : {half, nothing}) {
    use({broken, own_.key});
    EXPECT_THAT(fault(), AllOf(HasSubstr("--ssl-certfile"), HasSubstr("no whole certificate")));
  }
  use(old);
  EXPECT_THAT(fault(), AllOf(HasSubstr("old.pem"), HasSubstr("has expired, on 20")));
  use(early);
  EXPECT_THAT(fault(), AllOf(HasSubstr("early.pem"), HasSubstr("not valid before 20")));
  use({own_.certificate, other.key});
  EXPECT_THAT(fault(), AllOf(HasSubstr("--ssl-keyfile"), HasSubstr("not that of the certificate")));
  use({own_.certificate, nothing});
  EXPECT_THAT(fault(), AllOf(HasSubstr("--ssl-keyfile"), HasSubstr("no whole key")));
  use(own_);
  options_.door.tls.ciphers = "NONE-SUCH";
  EXPECT_THAT(fault(), AllOf(HasSubstr("--ssl-ciphers"), HasSubstr("no cipher match")));
  options_.door.tls.ciphers = "";
  options_.door.tls.cert_reqs = 2;
  EXPECT_THAT(fault(), HasSubstr("--ssl-ca-certs"));
}

// The oldest and the newest version that are offered, or a certificate: the version that was agreed on, or "".
std::string shake_hands(uint16_t port, int oldest, int newest, const CertificateFiles* files = nullptr) {
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  SSL_CTX_set_security_level(context.get(), 0);
  SSL_CTX_set_min_proto_version(context.get(), oldest);
  SSL_CTX_set_max_proto_version(context.get(), newest);
  if (files) {
    SSL_CTX_use_certificate_file(context.get(), files->certificate.c_str(), SSL_FILETYPE_PEM);
    SSL_CTX_use_PrivateKey_file(context.get(), files->key.c_str(), SSL_FILETYPE_PEM);
  }
  const std::unique_ptr<BIO, decltype(&BIO_free_all)> bio(BIO_new_ssl_connect(context.get()), BIO_free_all);
  BIO_set_conn_hostname(bio.get(), fmt::format("127.0.0.1:{}", port).c_str());
  if (BIO_do_handshake(bio.get()) <= 0) return "";
  constexpr std::string_view kAsk = "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n";
  char answer[1024];
  BIO_write(bio.get(), kAsk.data(), static_cast<int>(kAsk.size()));  // a refused certificate shows here in TLS 1.3
  if (BIO_read(bio.get(), answer, sizeof(answer)) <= 0) return "";
  SSL* session = nullptr;
  BIO_get_ssl(bio.get(), &session);
  return SSL_get_version(session);
}

TEST_F(TlsTest, OldVersionsAreRefused) {
  ASSERT_TRUE(start());
  EXPECT_EQ(shake_hands(server_->port(), TLS1_VERSION, TLS1_VERSION), "");
  EXPECT_EQ(shake_hands(server_->port(), TLS1_VERSION, TLS1_1_VERSION), "");
  EXPECT_EQ(shake_hands(server_->port(), TLS1_VERSION, TLS1_2_VERSION), "TLSv1.2");
  EXPECT_EQ(shake_hands(server_->port(), TLS1_VERSION, TLS1_3_VERSION), "TLSv1.3");
}

TEST_F(TlsTest, AClientsCertificateIsAskedFor) {
  const CertificateFiles known = CertificateFiles::make(folder_.path(), "known");
  const CertificateFiles unknown = CertificateFiles::make(folder_.path(), "unknown");
  options_.door.tls.ca_certs = known.certificate;
  options_.door.tls.cert_reqs = 2;
  ASSERT_TRUE(start());
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    EXPECT_EQ(shake_hands(server_->port(), version, version), "");
    EXPECT_EQ(shake_hands(server_->port(), version, version, &unknown), "");
    EXPECT_NE(shake_hands(server_->port(), version, version, &known), "");
  }
}

TEST_F(TlsTest, PlainHttpIsToldWhatIsSpoken) {
  ASSERT_TRUE(start());
  RawClient plain(server_->port());
  plain.send("GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_THAT(plain.read_to_end(), AllOf(StartsWith("HTTP/1.1 400 "), HasSubstr("https://")));
}

TEST_F(TlsTest, AChangedCertificateIsTakenAndABrokenOneKeptOut) {
  options_.door.tls.refresh = true;
  ASSERT_TRUE(start());
  const CertificateFiles next = CertificateFiles::make(folder_.path(), "next");
  const auto is_trusted = [&](const CertificateFiles& files) {
    return Client(threads_, trusting(files)).fetch(request("/hello")).has_value();
  };
  ClientOptions kept_options = trusting(own_);
  const Client kept(threads_, kept_options);
  ASSERT_TRUE(kept.fetch(request("/hello")));
  const CertificateFiles first{folder_.path("first.pem"), own_.key};
  std::filesystem::copy_file(own_.certificate, first.certificate);

  const std::string whole = *read_file(next.certificate);
  std::ofstream(own_.certificate) << whole.substr(0, whole.size() / 2);
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  EXPECT_TRUE(is_trusted(first));
  std::ofstream(own_.certificate) << whole;  // the key is still the old one
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  EXPECT_TRUE(is_trusted(first));
  std::filesystem::copy_file(next.key, own_.key, std::filesystem::copy_options::overwrite_existing);
  EXPECT_TRUE(eventually([&] { return is_trusted(next); }));
  EXPECT_FALSE(is_trusted(first));
  EXPECT_TRUE(kept.fetch(request("/hello")));  // over the connection that it has
}

TEST(UnixSocket, AFileThatIsNoneStays) {
  const TestFolder folder;
  const std::string path = folder.path("model.safetensors");
  ASSERT_TRUE(write_file(path, "weights"));
  ServerOptions options;
  options.door.uds = path;
  const IoThreads threads(1);
  const Status started = Server(threads, options).start();
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().message, HasSubstr("something is there already"));
  EXPECT_EQ(read_file(path), "weights");
}

TEST(UnixSocket, IsServedAndTakenFromOneThatIsDead) {
  const TestFolder folder;
  const std::string path = folder.path("door.sock");
  IoThreads threads(1);
  ServerOptions options;
  options.door.uds = path;
  {
    boost::asio::io_context context;  // what a killed process leaves
    boost::asio::local::stream_protocol::acceptor dead(context, boost::asio::local::stream_protocol::endpoint(path));
  }
  ASSERT_TRUE(std::filesystem::exists(path));
  {
    Server server(threads, options);
    server.route("GET", "/peer", [](const Request& request) { return Response::text(200, request.peer); });
    ASSERT_TRUE(server.start());
    EXPECT_EQ(server.url(), "unix:" + path);
    Server second(threads, options);
    const Status refused = second.start();
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr("something is there already"));
    boost::asio::local::stream_protocol::iostream client{boost::asio::local::stream_protocol::endpoint(path)};
    client << "GET /peer HTTP/1.1\r\nHost: anything\r\nConnection: close\r\n\r\n" << std::flush;
    const std::string answer((std::istreambuf_iterator<char>(client)), std::istreambuf_iterator<char>());
    EXPECT_THAT(answer, AllOf(StartsWith("HTTP/1.1 200 "), EndsWith("unix:")));
  }
  EXPECT_TRUE(eventually([&] { return !std::filesystem::exists(path); }));
  options.door.uds = folder.path(std::string(200, 'x'));
  Server too_long(threads, options);
  EXPECT_FALSE(too_long.start());
}

}  // namespace
}  // namespace cachalot::http
