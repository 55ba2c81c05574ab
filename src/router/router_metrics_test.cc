#include "router/router_metrics.h"

#include <gmock/gmock.h>

#include <set>
#include <sstream>

namespace cachalot::router {
namespace {

using testing::HasSubstr;
using testing::Not;

ReplicaStatus replica_of(const std::string& url, int num_in_flight) {
  return {.url = url, .health = ReplicaHealth(HealthPolicy{}), .num_in_flight = num_in_flight};
}

// The lines "# TYPE name kind" without their beginning.
std::set<std::string> kinds_in(const std::string& text) {
  std::set<std::string> kinds;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("# TYPE ")) kinds.insert(line.substr(7));
  return kinds;
}

// Dashboards and docs/router.md count on them.
TEST(RouterMetrics, HaveTheirNamesAndKinds) {
  RouterMetrics metrics({"http://a", "http://b"}, "");
  metrics.answer_ended(0, 200, 1, true);
  metrics.refused(503);
  EXPECT_EQ(kinds_in(metrics.render({replica_of("http://a", 0), replica_of("http://b", 0)}, 0)),
            (std::set<std::string>{
                "cachalot:router_replica_up gauge", "cachalot:router_in_flight gauge",
                "cachalot:router_answers_total counter", "cachalot:router_retries_total counter",
                "cachalot:router_ejections_total counter", "cachalot:router_broken_answers_total counter",
                "cachalot:router_bytes_total counter", "cachalot:router_refused_total counter",
                "cachalot:router_first_byte_seconds histogram", "cachalot:router_takeovers_total counter",
                "cachalot:router_takeover_pause_seconds histogram", "cachalot:router_blamed_requests_total counter",
                "cachalot:router_request_seconds histogram", "cachalot:router_client_connections gauge"}));
}

TEST(RouterMetrics, TellReplicasDirectionsAndStatusesApart) {
  RouterMetrics metrics({"http://a", "http://b"}, "");
  metrics.answer_began(1, 0.01);
  metrics.passed_bytes(1, 7, 70);
  metrics.answer_ended(1, 200, 0.3, true);
  metrics.answer_ended(1, 200, 0.3, false);
  metrics.retried(0);
  metrics.refused(429);
  const std::string text = metrics.render({replica_of("http://a", 0), replica_of("http://b", 3)}, 12);
  for (const char* line :
       {"cachalot:router_in_flight{replica=\"http://b\"} 3\n",
        "cachalot:router_answers_total{code=\"200\",replica=\"http://b\"} 2\n",
        "cachalot:router_broken_answers_total{replica=\"http://b\"} 1\n",
        "cachalot:router_retries_total{replica=\"http://a\"} 1\n",
        "cachalot:router_retries_total{replica=\"http://b\"} 0\n",
        "cachalot:router_bytes_total{direction=\"to_replica\",replica=\"http://b\"} 7\n",
        "cachalot:router_bytes_total{direction=\"to_client\",replica=\"http://b\"} 70\n",
        "cachalot:router_bytes_total{direction=\"to_client\",replica=\"http://a\"} 0\n",
        "cachalot:router_first_byte_seconds_bucket{replica=\"http://b\",le=\"0.01\"} 1\n",
        "cachalot:router_request_seconds_count{replica=\"http://b\"} 2\n",
        "cachalot:router_refused_total{code=\"429\"} 1\n", "cachalot:router_client_connections 12\n"})
    EXPECT_THAT(text, HasSubstr(line));
}

TEST(RouterMetrics, CarryTheModelsNameWhereThereIsOne) {
  RouterMetrics metrics({"http://a"}, "nano");
  const std::string text = metrics.render({replica_of("http://a", 1)}, 1);
  EXPECT_THAT(text, HasSubstr("cachalot:router_in_flight{model_name=\"nano\",replica=\"http://a\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("cachalot:router_client_connections{model_name=\"nano\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("router_in_flight{replica")));
}

}  // namespace
}  // namespace cachalot::router
