// `cachalot bench step`: ranks that are processes, and the picture of their steps.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <map>
#include <set>

#include "base/file.h"
#include "processes/program.h"
#include "processes/served_group.h"

namespace cachalot::test {
namespace {

using testing::HasSubstr;

struct Track {
  std::set<std::string> names;
  double begin = 0, end = 0;  // microseconds
};

std::map<int64_t, Track> tracks_of(const std::string& trace) {
  std::map<int64_t, Track> tracks;
  const boost::json::value whole = boost::json::parse(trace);
  for (const boost::json::value& event : whole.at("traceEvents").as_array()) {
    if (event.at("ph") != "X") continue;
    const double begin = event.at("ts").to_number<double>(), end = begin + event.at("dur").to_number<double>();
    Track& track = tracks[event.at("tid").to_number<int64_t>()];
    track.begin = track.names.empty() ? begin : std::min(track.begin, begin);
    track.end = std::max(track.end, end);
    track.names.insert(boost::json::value_to<std::string>(event.at("name")));
  }
  return tracks;
}

TEST(BenchStep, FourRanksMakeOneTableAndATrackEachOnOneClock) {
  const ScratchFolder folder;
  const std::string trace = folder / "trace.json", figures = folder / "figures.json";
  Program bench({"bench",
                 "step",
                 "--model",
                 nano_folder(),
                 "--data-parallel-size",
                 "2",
                 "-t",
                 "2",
                 "--enable-expert-parallel",
                 "--batch",
                 "2",
                 "--prompt",
                 "256",
                 "--context",
                 "16",
                 "--steps",
                 "4",
                 "--repeat",
                 "1",
                 "--compare",
                 "--threads",
                 "1",
                 "--trace",
                 trace,
                 "--json",
                 figures});
  ASSERT_EQ(bench.wait(std::chrono::minutes(2)), 0) << bench.output();
  EXPECT_TRUE(bench.wait_for_silence(std::chrono::seconds(5))) << "a rank was left behind";
  EXPECT_THAT(bench.output(), HasSubstr("experts over 4 ranks"));

  const auto text = read_file(figures);
  ASSERT_TRUE(text);
  const boost::json::array results = boost::json::parse(*text).at("results").as_array();
  ASSERT_EQ(results.size(), 2u);
  for (const boost::json::value& result : results) {
    EXPECT_EQ(result.at("ranks").as_array().size(), 4u);
    EXPECT_GT(result.at("efficiency").to_number<double>(), 0);
  }

  const auto picture = read_file(trace);
  ASSERT_TRUE(picture);
  const std::map<int64_t, Track> tracks = tracks_of(*picture);
  ASSERT_EQ(tracks.size(), 4u);
  double last_begin = 0, first_end = 1e300;
  for (const auto& [rank, track] : tracks) {
    for (const char* name : {"step", "attention", "gate", "dispatch", "experts", "combine", "head"})
      EXPECT_TRUE(track.names.contains(name)) << "rank " << rank << " did no " << name;
    last_begin = std::max(last_begin, track.begin);
    first_end = std::min(first_end, track.end);
  }
  EXPECT_LT(last_begin, first_end) << "the ranks' clocks differ";
}

}  // namespace
}  // namespace cachalot::test
