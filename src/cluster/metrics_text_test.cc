#include "cluster/metrics_text.h"

#include <gtest/gtest.h>

namespace cachalot {
namespace {

TEST(MetricsText, FindsSamplesByNameAndLabels) {
  const MetricsText metrics = MetricsText::parse(
      "# HELP cachalot:steps_total Forward passes\n"
      "# TYPE cachalot:steps_total counter\n"
      "cachalot:steps_total{rank=\"0\"} 12\n"
      "cachalot:steps_total{rank=\"1\"} 1.3e+02\n"
      "\n"
      "up 1\n"
      "info{host=\"a \\\"b\\\"\",pid=\"7\"} 1");
  EXPECT_EQ(metrics.samples("cachalot:steps_total").size(), 2U);
  EXPECT_EQ(metrics.value("cachalot:steps_total", {{"rank", "1"}}), 130);
  EXPECT_EQ(metrics.value("cachalot:steps_total", {{"rank", "2"}}), 0);
  EXPECT_EQ(metrics.value("up"), 1);
  EXPECT_EQ(metrics.samples("info").at(0).labels.at("host"), "a \"b\"");
  EXPECT_EQ(metrics.samples("info").at(0).labels.at("pid"), "7");
  EXPECT_TRUE(metrics.samples("nothing").empty());
}

TEST(MetricsText, PassesOverWhatIsNoSample) {
  EXPECT_EQ(MetricsText::parse("<html>\nname{label=\"never closed\nx{\n y 3").value("y"), 0);
}

}  // namespace
}  // namespace cachalot
