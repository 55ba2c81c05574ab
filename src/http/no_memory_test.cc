// An allocation that fails, wherever on the I/O threads it is.
#include <gtest/gtest.h>

#include "base/failing_allocation_test_util.h"
#include "http/loopback_test_util.h"
#include "http/server.h"

namespace cachalot::http {
namespace {

// It may cost a client its connection; the next one is answered.
TEST(NoMemory, AnAllocationThatFailsEndsNoAccepting) {
  is_spared = true;
  IoThreads threads(1);
  Server server(threads, {.host = "127.0.0.1"});
  server.route("GET", "/hello", [](const Request&) { return Response::text(200, "hello"); });
  ASSERT_TRUE(server.start());
  for (int place = 0; place < 150; ++place) {
    failing_allocation = place;
    {
      RawClient client(server.port());
      client.send("GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
      client.read_to_end();
    }
    failing_allocation = -1;
    RawClient next(server.port());
    next.send("GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    ASSERT_TRUE(next.read_to_end().ends_with("hello")) << "behind allocation " << place;
  }
}

}  // namespace
}  // namespace cachalot::http
