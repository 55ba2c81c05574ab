#include "page/feed.h"

#include <gmock/gmock.h>
#include <zlib.h>

#include <boost/json.hpp>
#include <fstream>
#include <sstream>

#include "http/loopback_test_util.h"
#include "page/page_files.h"

namespace cachalot::page {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::string unpacked(std::string_view gzip) {
  std::string text(4 << 20, '\0');
  z_stream stream{};
  EXPECT_EQ(inflateInit2(&stream, 16 + MAX_WBITS), Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(gzip.data()));
  stream.avail_in = static_cast<uInt>(gzip.size());
  stream.next_out = reinterpret_cast<Bytef*>(text.data());
  stream.avail_out = static_cast<uInt>(text.size());
  EXPECT_EQ(inflate(&stream, Z_FINISH), Z_STREAM_END);
  text.resize(stream.total_out);
  inflateEnd(&stream);
  return text;
}

class PageTest : public testing::Test {
 protected:
  PageTest() {
    feed_->register_routes(server_);
    EXPECT_TRUE(server_.start());
  }
  http::Response get(const std::string& target, http::Headers headers = {}) {
    return *client_.fetch({.url = *http::parse_url("http://127.0.0.1:" + std::to_string(server_.port()) + target),
                           .headers = std::move(headers)});
  }
  void start() {
    feed_->start([this] {
      num_looks_++;
      return ClusterView{.phase = "ready", .members = {{.state = "up"}}};
    });
  }

  http::IoThreads threads_{2};
  http::Client client_{threads_};
  std::unique_ptr<Feed> feed_ =
      std::make_unique<Feed>(ClusterHistory::Names{.kind = "server", .version = "1.2.3", .model = "nano"});
  http::Server server_{threads_, {.host = "127.0.0.1"}};
  std::atomic<int> num_looks_{0};
};

TEST_F(PageTest, FilesAreWhatWasBuilt) {
  const std::string folder = std::string(CACHALOT_SOURCE_DIR) + "/src/page/web/dist/";
  size_t num_bytes = 0;
  for (const PageFile& file : page_files()) {
    const std::string name = file.path == "/" ? "index.html" : std::string(file.path.substr(file.path.rfind('/') + 1));
    std::ostringstream built;
    built << std::ifstream(folder + name, std::ios::binary).rdbuf();
    EXPECT_TRUE(unpacked(file.gzip) == built.str()) << file.path;
    EXPECT_TRUE(is_page(file.path));
    num_bytes += file.gzip.size();
  }
  EXPECT_LE(num_bytes, 300'000);
  for (const char* path : {"/page", "/page/", "/v1/models", "/cluster/events", ""}) EXPECT_FALSE(is_page(path));
}

TEST_F(PageTest, HeadersLetNothingElseIn) {
  for (const PageFile& file : page_files()) {
    const http::Response answer = get(std::string(file.path));
    ASSERT_EQ(answer.status, 200);
    const std::string policy(answer.headers.find("Content-Security-Policy").value_or(""));
    EXPECT_THAT(policy, AllOf(StartsWith("default-src 'none'"), HasSubstr("frame-ancestors 'none'"),
                              HasSubstr("require-trusted-types-for 'script'"), Not(HasSubstr("unsafe"))));
    EXPECT_EQ(answer.headers.find("X-Content-Type-Options"), "nosniff");
    EXPECT_EQ(answer.headers.find("Content-Type"), file.content_type);
    EXPECT_EQ(answer.headers.find("Content-Encoding"), "gzip");
    EXPECT_EQ(answer.body, file.gzip);
    EXPECT_FALSE(answer.headers.contains("Access-Control-Allow-Origin"));
  }
}

TEST_F(PageTest, TheDocumentHasNothingInlineAndNamesItsFilesByTheirHashes) {
  const std::string html = unpacked(get("/").body);
  EXPECT_THAT(html, AllOf(Not(HasSubstr("style=")), Not(HasSubstr("<style")), Not(HasSubstr("onload"))));
  for (size_t at = 0; (at = html.find("<script", at)) != html.npos; at++)
    EXPECT_THAT(html.substr(at, html.find("</script>", at) - at), testing::EndsWith("\">"));
  for (const PageFile& file : page_files()) {
    if (file.path == "/" || file.path == "/page/licenses.txt") continue;
    const std::string target = std::string(file.path) + "?v=" + std::string(file.hash);
    EXPECT_THAT(html, HasSubstr("\"" + target + "\""));
    EXPECT_EQ(get(target).headers.find("Cache-Control"), "public, max-age=31536000, immutable");
    EXPECT_EQ(get(std::string(file.path) + "?v=0").headers.find("Cache-Control"), "no-cache");
  }
  EXPECT_EQ(get("/").headers.find("Cache-Control"), "no-cache");
}

TEST_F(PageTest, WhoHasTheFileIsToldSo) {
  const std::string tag(get("/page/app.js").headers.find("ETag").value_or(""));
  const http::Response again = get("/page/app.js", {{"If-None-Match", "\"x\", " + tag}});
  EXPECT_EQ(again.status, 304);
  EXPECT_EQ(again.body, "");
  EXPECT_EQ(get("/page/app.js", {{"If-None-Match", "\"x\""}}).status, 200);
}

TEST_F(PageTest, ComesInGzipAlone) {
  EXPECT_EQ(get("/", {{"Accept-Encoding", "br, gzip"}}).status, 200);
  EXPECT_EQ(get("/", {{"Accept-Encoding", "gzip;q=0.5"}}).status, 200);
  EXPECT_EQ(get("/", {{"Accept-Encoding", "gzip;q=0"}}).status, 406);
  EXPECT_EQ(get("/", {{"Accept-Encoding", "identity"}}).status, 406);
}

TEST_F(PageTest, TellsWhatWasAndWhatComes) {
  start();
  http::RawClient client(server_.port());
  client.send("GET /cluster/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
  const std::string head = client.read_until("\r\n\r\n");
  EXPECT_THAT(head, AllOf(HasSubstr("text/event-stream"), HasSubstr("no-store"), HasSubstr("same-origin")));
  EXPECT_THAT(client.read_until("event: hello\ndata: "), Not(HasSubstr("closed")));
  const auto hello = boost::json::parse(client.read_until("\n\n"));
  EXPECT_EQ(hello.at("model"), "nano");
  for (int look = 0; look < 2; look++) EXPECT_THAT(client.read_until("event: state\n"), Not(HasSubstr("closed")));
}

TEST_F(PageTest, ManyMayListenAndNoMore) {
  start();
  ASSERT_TRUE(http::eventually([&] { return num_looks_ > 0; }));
  std::vector<std::unique_ptr<http::RawClient>> clients;
  for (int idx = 0; idx < Feed::kMostListeners; idx++) {
    clients.push_back(std::make_unique<http::RawClient>(server_.port()));
    clients.back()->send("GET /cluster/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    ASSERT_THAT(clients.back()->read_until("event: state\n"), Not(HasSubstr("closed")));
  }
  const http::Response refused = get("/cluster/events");
  EXPECT_EQ(refused.status, 503);
  EXPECT_TRUE(refused.headers.contains("Retry-After"));
  clients.pop_back();
  http::RawClient another(server_.port());
  EXPECT_TRUE(http::eventually([&] {
    another.send("GET /cluster/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    return another.read_until("\r\n\r\n").find(" 200 ") != std::string::npos;
  }));
}

TEST_F(PageTest, TheEndIsToldToAllWhoListen) {
  start();
  http::RawClient client(server_.port());
  client.send("GET /cluster/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
  client.read_until("event: state\n");
  feed_->end();
  EXPECT_THAT(client.read_until("0\r\n\r\n"), Not(HasSubstr("closed")));
  EXPECT_TRUE(server_.drain(std::chrono::milliseconds(10'000)));
}

TEST_F(PageTest, ALookThatFailsIsNotTheLast) {
  feed_->start([this]() -> ClusterView {
    if (num_looks_++ == 0) throw std::runtime_error("no memory");
    return {.phase = "ready", .members = {}};
  });
  EXPECT_TRUE(http::eventually([&] { return num_looks_ > 1; }));
}

}  // namespace
}  // namespace cachalot::page
