#include "serve/server_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cachalot {
namespace {

using testing::HasSubstr;

ServerState sample() {
  return {.phase = RankPhase::kLoading,
          .num_running = 3,
          .num_waiting = 4,
          .kv_usage_percent = 25,
          .ranks = {{.rank = 4, .phase = RankPhase::kLoading, .percent = 30, .host = "node1", .pid = 17},
                    {.rank = 5,
                     .phase = RankPhase::kFailed,
                     .percent = 51,
                     .failure = StateFailure{.code = ErrorCode::kOutOfMemory},
                     .host = "node1",
                     .pid = 18,
                     .resident_bytes = 5'000'000'000,
                     .report = RankReport{.rank = 5,
                                          .num_experts = 8,
                                          .placement_hash = (int64_t{1} << 53) - 1,
                                          .weight_bytes = 4'000'000'000,
                                          .steps = 9}}}};
}

TEST(ServerState, ReadsWhatItWrote) {
  const auto read = parse_server_state(to_json(sample()), 2);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(to_json(*read), to_json(sample()));
  EXPECT_EQ(read->percent(), 40);
  EXPECT_EQ(read->ranks[1].failure->code, ErrorCode::kOutOfMemory);
  EXPECT_EQ(read->ranks[1].report->weight_bytes, 4'000'000'000U);
  EXPECT_EQ(read->ranks[1].report->placement_hash, (int64_t{1} << 53) - 1);
  EXPECT_FALSE(read->ranks[0].report);
}

// What another program at that address may say, or one of ours whose memory is broken.
TEST(ServerState, TrustsNoNumberAndNoText) {
  const std::string sound = to_json(sample());
  const auto error_with = [&](const std::string& from, const std::string& to) {
    std::string text = sound;
    EXPECT_NE(text.find(from), std::string::npos) << from;
    text.replace(text.find(from), from.size(), to);
    const auto read = parse_server_state(text, 2);
    return read ? "no error" : read.error().message;
  };
  EXPECT_EQ(error_with("\"percent\":30", "\"percent\":1094795585"),
            "the state of a server: percent is no number from 0 to 100");
  EXPECT_EQ(error_with("\"percent\":30", "\"percent\":-1"),
            "the state of a server: percent is no number from 0 to 100");
  EXPECT_EQ(error_with("\"percent\":30", "\"percent\":1e300"),
            "the state of a server: percent is no number from 0 to 100");
  EXPECT_EQ(error_with("\"percent\":30", "\"percent\":\"30\""),
            "the state of a server: percent is no number from 0 to 100");
  EXPECT_THAT(error_with("\"rank\":4", "\"rank\":-1"), HasSubstr("rank is no number from 0"));
  EXPECT_THAT(error_with("\"rank\":4", "\"rank\":4000000000"), HasSubstr("rank is no number from 0"));
  EXPECT_THAT(error_with("\"running\":3", "\"running\":9223372036854775807"), HasSubstr("running is no number"));
  EXPECT_THAT(error_with("\"steps\":9", "\"steps\":18446744073709551615"), HasSubstr("steps is no number"));
  EXPECT_THAT(error_with("\"kv_usage_percent\":25", "\"kv_usage_percent\":1e9"),
              HasSubstr("is no number from 0 to 100"));
  EXPECT_THAT(error_with("\"phase\":\"loading\"", "\"phase\":\"dancing\""), HasSubstr("phase is none that is known"));
  EXPECT_THAT(error_with("out_of_memory", "hunger"), HasSubstr("code is none that is known"));
  EXPECT_THAT(error_with("\"version\":1", "\"version\":2"), HasSubstr("is of another version"));
  EXPECT_THAT(error_with("\"ranks\":[", "\"ranks\":{\"a\":["), HasSubstr("is no JSON"));
  EXPECT_THAT(error_with("\"host\":\"node1\"", "\"host\":7"), HasSubstr("host is no text"));
  EXPECT_EQ(error_with("\"host\":\"node1\"", "\"host\":\"\\u001b[2J\""), "no error");
  for (const char* text : {"", "[]", "7", "null", "{}", "{\"version\":1}"})
    EXPECT_FALSE(parse_server_state(text, 2)) << text;
  EXPECT_THAT(parse_server_state(sound, 1).error().message, HasSubstr("has 2 ranks, more than 1"));
  EXPECT_FALSE(parse_server_state(std::string(5 << 20, ' '), 2));
  EXPECT_FALSE(parse_server_state(std::string(100'000, '['), 2));
}

TEST(ServerState, TellsCountsAndTheRowsOfEachLayerUpToTheLastThatHasAny) {
  ServerState state = sample();
  EXPECT_THAT(to_json(state), HasSubstr("\"counts\":null"));
  state.epoch = 2;
  state.counts = {.generation_tokens = 7, .first_token_seconds = {.bounds = {0.5}, .counts = {3, 1}}};
  state.ranks[1].report->layer_expert_rows[2] = 11;
  const std::string text = to_json(state);
  for (const char* part :
       {"\"epoch\":2", "\"generation_tokens\":7", "\"counts\":[3,1]", "\"expert_rows_by_layer\":[0,0,11]"})
    EXPECT_THAT(text, HasSubstr(part));
  EXPECT_TRUE(parse_server_state(text, 2));
}

TEST(ServerState, ShowsNoEscapesOfATerminal) {
  ServerState state = sample();
  state.ranks[0].host = "\x1b[2J\xff";
  const auto read = parse_server_state(to_json(state), 2);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->ranks[0].host.find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace cachalot
