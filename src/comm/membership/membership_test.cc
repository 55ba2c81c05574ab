#include "comm/membership/membership.h"

#include <gmock/gmock.h>

#include <atomic>
#include <chrono>
#include <functional>

#include "base/process_test_util.h"
#include "comm/membership/agreement.h"
#include "comm/membership/loopback_test_util.h"
#include "comm/membership/wire.h"

namespace cachalot::control {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

TEST(Membership, GivesEveryRankTheSameTable) {
  std::vector<JoinOptions> options = group_options(4);
  for (JoinOptions& rank : options) {
    rank.shm_socket = fmt::format("socket-{}", rank.rank);
    rank.ucx_address = std::string("\0\xff", 2) + std::to_string(rank.rank);
    rank.secret = "hush";
  }
  options[2].isa_level = 1;
  options[2].isa_name = "avx2";
  std::vector<JoinResult> group = join_all(options);
  for (int rank = 0; rank < 4; ++rank) {
    ASSERT_TRUE(group[rank].has_value()) << group[rank].error().message;
    const Membership& membership = **group[rank];
    EXPECT_EQ(membership.rank(), rank);
    EXPECT_EQ(membership.epoch(), 1u);
    EXPECT_EQ(membership.isa_level(), 1);  // the lowest
    EXPECT_EQ(membership.isa_name(), "avx2");
    ASSERT_EQ(membership.size(), 4);
    for (int other = 0; other < 4; ++other) {
      const Member& member = membership.members()[other];
      EXPECT_EQ(member.rank, other);
      EXPECT_EQ(member.label, options[other].label);
      EXPECT_EQ(member.pid, getpid());
      EXPECT_EQ(member.node, this_node().value());
      EXPECT_EQ(member.control_address, "127.0.0.1");
      EXPECT_EQ(member.shm_socket, options[other].shm_socket);
      EXPECT_EQ(member.ucx_address, options[other].ucx_address);
    }
  }
  leave_all(group);
}

TEST(ControlWire, AMessageHasOneSpelling) {
  std::string challenge = control::encode(control::Challenge{.has_secret = true});
  ASSERT_TRUE(control::decode<control::Challenge>(challenge));
  challenge.back() = '\x02';
  EXPECT_FALSE(control::decode<control::Challenge>(challenge)) << "a switch is 0 or 1";
}

TEST(Membership, OneRankAloneNeedsNoSockets) {
  JoinOptions options = group_options(1)[0];
  options.host = "no address at all";
  const JoinResult alone = Membership::join(options);
  ASSERT_TRUE(alone.has_value());
  EXPECT_EQ((*alone)->members().size(), 1u);
  EXPECT_TRUE((*alone)->wait_until_all_ready().has_value());
  (*alone)->leave();
}

struct Disagreement {
  std::string name;
  std::function<void(std::vector<JoinOptions>&)> make;
  std::vector<std::string> named;  // in the error
  std::string parameter;
};

class Disagreements : public testing::TestWithParam<Disagreement> {};

TEST_P(Disagreements, EndTheStartOnEveryRankWithOneText) {
  std::vector<JoinOptions> options = group_options(4);
  GetParam().make(options);
  const auto begin = Clock::now();
  const std::vector<JoinResult> group = join_all(options);
  EXPECT_LT(Clock::now() - begin, seconds(5));
  const std::string me = fmt::format("host {}, pid {}", this_host(), getpid());
  for (const JoinResult& result : group) {
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().message, group[0].error().message);
    EXPECT_EQ(result.error().parameter, GetParam().parameter);
    EXPECT_THAT(result.error().message, HasSubstr(me));
    for (const std::string& part : GetParam().named) EXPECT_THAT(result.error().message, HasSubstr(part));
  }
}

INSTANTIATE_TEST_SUITE_P(Membership, Disagreements,
                         testing::Values(Disagreement{"Setting",
                                                      [](auto& options) { options[2].settings[0].second = "32"; },
                                                      {"--block-size is '32' on rank 2", "'64' on rank 0"},
                                                      "--block-size"},
                                         Disagreement{"SettingThatOnlyOneHas",
                                                      [](auto& options) { options[3].settings.pop_back(); },
                                                      {"--dtype is not set on rank 3", "'auto' on rank 0"},
                                                      "--dtype"},
                                         Disagreement{"Model",
                                                      [](auto& options) { options[1].model_fingerprint = "beef"; },
                                                      {"fingerprint", "'beef' on rank 1", "'f00d' on rank 0"},
                                                      "--model"},
                                         Disagreement{"ProgramVersion",
                                                      [](auto& options) { options[3].program_version = "0.2.0"; },
                                                      {"rank 3 (replica 3,", "runs Cachalot 0.2.0",
                                                       "rank 0 (replica 0,", "runs Cachalot 0.1.0"},
                                                      ""},
                                         Disagreement{"Size",
                                                      [](auto& options) { options[1].size = 5; },
                                                      {"rank 1", "counts 5 ranks", "rank 0", "counts 4"},
                                                      ""},
                                         Disagreement{"RankBeyondTheSize",
                                                      [](auto& options) { options[3].rank = 4, options[3].size = 5; },
                                                      {"rank 4", "counts 5 ranks"},
                                                      ""},
                                         Disagreement{"DoubledRank",
                                                      [](auto& options) { options[3].rank = 2; },
                                                      {"rank 2 is there twice", "replica 2", "replica 3"},
                                                      "--data-parallel-rank"},
                                         Disagreement{"SettingOfARankThatHasTheSecret",
                                                      [](auto& options) {
                                                        for (JoinOptions& rank : options) rank.secret = "hush";
                                                        options[2].settings[0].second = "32";
                                                      },
                                                      {"--block-size is '32' on rank 2"},
                                                      "--block-size"}),
                         [](const auto& instance) { return instance.param.name; });

// A rank whose secret is not the group's may be anybody: it is told, and the others wait for the right one.
class Secrets : public testing::TestWithParam<Disagreement> {};

TEST_P(Secrets, ThatDifferConcernOnlyTheRankThatHasNotProvedItself) {
  std::vector<JoinOptions> options = group_options(3);
  GetParam().make(options);
  const LogCapture log;
  std::vector<JoinResult> group(3);
  std::jthread others([&] {
    std::vector<JoinResult> both = join_all({options[0], options[1]});
    group[0] = std::move(both[0]);
    group[1] = std::move(both[1]);
  });
  const JoinResult wrong = Membership::join(options[2]);
  ASSERT_FALSE(wrong.has_value());
  for (const std::string& part : GetParam().named) EXPECT_THAT(wrong.error().message, HasSubstr(part));
  EXPECT_EQ(wrong.error().parameter, GetParam().parameter);
  options[2].secret = options[0].secret;
  group[2] = Membership::join(options[2]);
  others.join();
  for (const JoinResult& result : group) ASSERT_TRUE(result.has_value()) << result.error().message;
  leave_all(group);
  group.clear();
  EXPECT_EQ(log.count("rank 0 refuses a rank: " + wrong.error().message), 1) << log.text();
}

INSTANTIATE_TEST_SUITE_P(Membership, Secrets,
                         testing::Values(Disagreement{"Wrong",
                                                      [](auto& options) {
                                                        for (JoinOptions& rank : options) rank.secret = "hush";
                                                        options[2].secret = "hust";
                                                      },
                                                      {"rank 2", "has another group secret", "rank 0"},
                                                      "--group-secret-file"},
                                         Disagreement{"None",
                                                      [](auto& options) {
                                                        for (JoinOptions& rank : options) rank.secret = "hush";
                                                        options[2].secret = "";
                                                      },
                                                      {"rank 2", "has no group secret", "rank 0"},
                                                      "--group-secret-file"},
                                         Disagreement{"ThatOnlyOneHas",
                                                      [](auto& options) { options[2].secret = "hush"; },
                                                      {"rank 2", "has a group secret", "rank 0"},
                                                      "--group-secret-file"}),
                         [](const auto& instance) { return instance.param.name; });

TEST(Membership, ARankThatWasRefusedAndDidNotComeAgainIsNamedAtTheEnd) {
  std::vector<JoinOptions> options = group_options(2);
  for (JoinOptions& rank : options) rank.join_timeout = milliseconds(400);
  options[0].secret = "hush";
  options[1].secret = "hust";
  const std::vector<JoinResult> group = join_all(options);
  ASSERT_FALSE(group[0].has_value());
  EXPECT_THAT(group[0].error().message,
              AllOf(HasSubstr("rank 1 did not come"), HasSubstr("refused was: " + group[1].error().message)));
}

TEST(Membership, ARankThatComesAfterTheFailedStartIsToldToo) {
  std::vector<JoinOptions> options = group_options(3);
  options[1].model_fingerprint = "beef";
  JoinResult last;
  std::jthread late([&] {
    std::this_thread::sleep_for(milliseconds(200));
    last = Membership::join(options[2]);
  });
  const std::vector<JoinResult> first = join_all({options[0], options[1]});
  late.join();
  ASSERT_FALSE(last.has_value());
  EXPECT_EQ(last.error().message, first[0].error().message);
}

// The beginning of a Hello is what versions have in common.
std::string hello_of_protocol_9(const Introduction& introduction) {
  const std::string payload = encode(introduction) + "fields of later times";
  return encode_header({.protocol = 9,
                        .type = MessageType::kHello,
                        .epoch = 1,
                        .length = static_cast<uint32_t>(payload.size())}) +
         payload;
}

class OtherProtocols : public testing::TestWithParam<std::string> {};

// Whether the group has a secret or not: nothing that such a greeting says is proved.
TEST_P(OtherProtocols, AreToldBothVersionsAndEndNobodysStart) {
  std::vector<JoinOptions> options = group_options(3);
  for (JoinOptions& rank : options) rank.secret = GetParam();
  const LogCapture log;
  std::vector<JoinResult> group(3);
  std::jthread others([&] {
    std::vector<JoinResult> both = join_all({options[0], options[1]});
    group[0] = std::move(both[0]);
    group[1] = std::move(both[1]);
  });
  {
    RawClient other(options[0].port);
    other.send(hello_of_protocol_9({.program_version = "9.0", .rank = 2, .size = 3, .host = "far", .pid = 7}));
    EXPECT_THAT(other.receive_all(), AllOf(HasSubstr("rank 2 (host far, pid 7) runs Cachalot 9.0 with version 9 of the "
                                                     "control protocol"),
                                           HasSubstr(fmt::format("with version {}", kProtocolVersion))));
  }
  group[2] = Membership::join(options[2]);
  others.join();
  for (const JoinResult& result : group) ASSERT_TRUE(result.has_value()) << result.error().message;
  leave_all(group);
  group.clear();
  EXPECT_EQ(log.count("rank 0 refuses a rank: rank 2 (host far, pid 7) runs Cachalot 9.0"), 1) << log.text();
}

INSTANTIATE_TEST_SUITE_P(Membership, OtherProtocols, testing::Values("", "hush"), [](const auto& instance) {
  return instance.param.empty() ? "WithoutASecret" : "WithASecret";
});

TEST(Membership, WhatAStrangerCallsItselfIsQuotedAndItsGreetingsFillNoLog) {
  std::vector<JoinOptions> options = group_options(2);
  const LogCapture log;
  std::vector<JoinResult> group(2);
  std::jthread rank0([&] { group[0] = Membership::join(options[0]); });
  const std::string hello = hello_of_protocol_9({.program_version = "9\x1b[2J",
                                                 .rank = 1,
                                                 .size = 2,
                                                 .host = "\xff\n2026-11-01 error: all is lost",
                                                 .label = "load-line: rank -1 1094795585%" + std::string(4000, 'x')});
  constexpr int kNumGreetings = 200;
  for (int i = 0; i < kNumGreetings; ++i) {
    RawClient stranger(options[0].port);
    stranger.send(hello);
    EXPECT_FALSE(stranger.receive_all().empty());
  }
  group[1] = Membership::join(options[1]);
  rank0.join();
  for (const JoinResult& result : group) ASSERT_TRUE(result.has_value()) << result.error().message;
  leave_all(group);
  group.clear();
  EXPECT_LE(log.count("rank 0 refuses a rank"), 3) << "at most one line in ten seconds";
  EXPECT_LT(log.text().size(), 4000u) << log.text();
  EXPECT_THAT(log.text(),
              AllOf(HasSubstr("('load-line: rank -1 1094795585%xxxx"),
                    HasSubstr(R"(host '\xff\n2026-11-01 error: all is lost')"), HasSubstr(R"('9\x1b[2J')")));
}

TEST(Membership, ALateRankIsToldWhyAndHarmsNobody) {
  const std::vector<JoinOptions> options = group_options(2);
  std::vector<JoinResult> group = join_all(options);
  ASSERT_TRUE(group[1].has_value());
  const JoinResult late = Membership::join(options[1]);
  ASSERT_FALSE(late.has_value());
  EXPECT_THAT(late.error().message, AllOf(HasSubstr("comes too late"), HasSubstr("rank 1 (")));
  JoinOptions next_epoch = options[1];
  next_epoch.epoch = 2;
  const JoinResult early = Membership::join(next_epoch);
  ASSERT_FALSE(early.has_value());
  EXPECT_THAT(early.error().message, HasSubstr("epoch 2 of the group, which is in epoch 1"));
  EXPECT_FALSE((*group[0])->first_lost().has_value());
  leave_all(group);
}

TEST(Membership, MissingRanksAreNamedWhileWaitingAndAtTheEnd) {
  std::vector<JoinOptions> options = group_options(8);
  for (JoinOptions& rank : options) {
    rank.notice_interval = milliseconds(50);
    rank.join_timeout = milliseconds(2'000);  // enough for the others to come, however busy the machine is
  }
  std::erase_if(options, [](const JoinOptions& rank) { return rank.rank == 3 || rank.rank == 7; });
  const LogCapture log;
  for (const JoinResult& result : join_all(options)) {
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code, ErrorCode::kDeadlineExceeded);
    EXPECT_THAT(result.error().message, HasSubstr("ranks 3 and 7 did not come"));
  }
  EXPECT_GT(log.count("waits for ranks 3 and 7; 6 of 8 are here"), 0);
}

TEST(Membership, RanksThatComeBeforeRank0WaitForItByName) {
  const std::vector<JoinOptions> options = group_options(2);
  const LogCapture log;
  JoinResult first;
  std::jthread waiting([&] { first = Membership::join(options[1]); });
  std::this_thread::sleep_for(milliseconds(300));
  JoinResult rank0 = Membership::join(options[0]);
  waiting.join();
  ASSERT_TRUE(first.has_value() && rank0.has_value());
  EXPECT_EQ(log.count(fmt::format("rank 1 waits for rank 0 at 127.0.0.1:{}", options[0].port)), 1);
  EXPECT_EQ(log.count("without a group secret"), 1);
  (*first)->leave();
}

TEST(Membership, WithoutRank0TheOthersGiveUpInTime) {
  JoinOptions options = group_options(2)[1];
  options.join_timeout = milliseconds(300);
  const JoinResult result = Membership::join(options);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_THAT(result.error().message, HasSubstr(fmt::format("rank 0 at 127.0.0.1:{}", options.port)));
}

TEST(Membership, AnAddressThatIsNotOfThisHostIsRefused) {
  JoinOptions options = group_options(2)[0];
  options.host = "192.0.2.1";  // of documentation
  const JoinResult result = Membership::join(options);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().parameter, "--data-parallel-address");
}

TEST(Membership, ARankThatGoesWhileTheGroupFormsIsWaitedForAnew) {
  const std::vector<JoinOptions> options = group_options(3);
  const LogCapture log;
  std::vector<JoinResult> group(3);
  std::jthread rank0([&] { group[0] = Membership::join(options[0]); });
  std::stop_source stop;
  JoinOptions impatient = options[2];
  impatient.stop = stop.get_token();
  std::jthread stopper([&] {
    std::this_thread::sleep_for(milliseconds(1000));  // it has found rank 0 by then
    stop.request_stop();
  });
  const JoinResult gone = Membership::join(impatient);
  ASSERT_FALSE(gone.has_value());
  EXPECT_EQ(gone.error().code, ErrorCode::kCancelled);

  std::jthread rank1([&] { group[1] = Membership::join(options[1]); });
  group[2] = Membership::join(options[2]);
  rank0.join();
  rank1.join();
  for (const JoinResult& result : group) ASSERT_TRUE(result.has_value());
  leave_all(group);
  group.clear();
  EXPECT_EQ(log.count("has gone again while the group was forming"), 1);
}

TEST(Membership, Rank0StoppedWhileWaitingTellsTheOthers) {
  std::vector<JoinOptions> options = group_options(3);
  std::stop_source stop;
  options[0].stop = stop.get_token();
  std::jthread stopper([&] {
    std::this_thread::sleep_for(milliseconds(100));
    stop.request_stop();
  });
  for (const JoinResult& result : join_all({options[0], options[1]})) {
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code, ErrorCode::kCancelled);
    EXPECT_THAT(result.error().message, HasSubstr("rank 0 (replica 0"));
  }
}

// --- Strangers.

struct Stranger {
  std::string name;
  std::string says;
  std::string log;  // a part of what rank 0 logs of it
};

class Strangers : public testing::TestWithParam<Stranger> {};

TEST_P(Strangers, AreTurnedAwayWithALineAndTheGroupForms) {
  const std::vector<JoinOptions> options = group_options(2);
  const LogCapture log;
  std::vector<JoinResult> group(2);
  std::jthread rank0([&] { group[0] = Membership::join(options[0]); });
  {
    RawClient stranger(options[0].port);
    stranger.send(GetParam().says);
    stranger.receive_all();  // returns when it has been cut off
  }
  group[1] = Membership::join(options[1]);
  rank0.join();
  ASSERT_TRUE(group[0].has_value() && group[1].has_value());
  leave_all(group);
  group.clear();
  EXPECT_EQ(log.count("turns away a client from 127.0.0.1:"), 1);
  EXPECT_THAT(log.text(), HasSubstr(GetParam().log));
}

INSTANTIATE_TEST_SUITE_P(
    Membership, Strangers,
    testing::Values(
        Stranger{"Http", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", R"('GET / HTTP/1.1\r\n' begins no control message)"},
        Stranger{"Noise", std::string(1000, '\xee'),
                 R"('\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee' begins no control message)"},
        Stranger{"AMessageWithoutEnd", encode_header({.type = MessageType::kHello, .length = 0xffffffff}),
                 "a control message of 4294967295 bytes; 65536 are the limit"},
        Stranger{"AGreetingThatIsCut",
                 encode_header({.type = MessageType::kHello, .epoch = 1, .length = 4}) + std::string("\x05\0\0\0", 4),
                 "is cut"},
        Stranger{"AGreetingWithAListWithoutEnd",
                 [] {
                   std::string hello = encode(Hello{.introduction = {.rank = 1, .size = 2}});
                   hello.replace(hello.size() - 4, 4, "\xff\xff\xff\xff");
                   return encode_header({.type = MessageType::kHello,
                                         .epoch = 1,
                                         .length = static_cast<uint32_t>(hello.size())}) +
                          hello;
                 }(),
                 "contradicts itself"},
        Stranger{"AHeartbeat", encode_frame(Heartbeat{}, 1), "its first message is no greeting"},
        Stranger{"Silence", "", "no whole greeting came within"}),
    [](const auto& instance) { return instance.param.name; });

TEST(Membership, ManySilentStrangersKeepNobodyOut) {
  const std::vector<JoinOptions> options = group_options(4);
  std::vector<JoinResult> group;
  std::jthread joining([&] { group = join_all(options); });
  std::vector<std::unique_ptr<RawClient>> strangers;
  for (int i = 0; i < 100; ++i) strangers.push_back(std::make_unique<RawClient>(options[0].port));
  joining.join();
  for (const JoinResult& result : group) EXPECT_TRUE(result.has_value());
  leave_all(group);
}

// Plays rank 0 for one client.
class FakeRank0 {
 public:
  explicit FakeRank0(uint16_t port) : listener_(loopback_socket(port)) { CHECK(listen(listener_, 1) == 0); }
  ~FakeRank0() { close(listener_); }

  void say(const std::string& words) {
    const int client = accept(listener_, nullptr, nullptr);
    [[maybe_unused]] const ssize_t sent = send(client, words.data(), words.size(), MSG_NOSIGNAL);
    std::array<char, 4096> ignored;
    while (recv(client, ignored.data(), ignored.size(), 0) > 0) {
    }
    close(client);
  }

 private:
  int listener_;
};

TEST(Membership, AnImpostorWithoutTheSecretIsNotTakenForRank0) {
  JoinOptions options = group_options(2)[1];
  options.secret = "hush";
  FakeRank0 impostor(options.port);
  std::jthread speaking(
      [&] { impostor.say(encode_frame(Challenge{.has_secret = true}, 1) + encode_frame(Accepted{}, 1)); });
  const JoinResult result = Membership::join(options);
  ASSERT_FALSE(result.has_value());
  EXPECT_THAT(result.error().message, HasSubstr("does not have the group secret"));
}

TEST(Membership, WhatSomebodyAtRank0sAddressSaysIsOneLine) {
  const JoinOptions options = group_options(2)[1];
  FakeRank0 other(options.port);
  std::jthread speaking([&] {
    other.say(encode_frame(Challenge{}, 1) +
              encode_frame(Refused{.code = static_cast<ErrorCode>(99),
                                   .message = "no\n2026-11-01 error: \xff" + std::string(9000, 'x')},
                           1));
  });
  const JoinResult result = Membership::join(options);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(result.error().message, HasSubstr(R"(no\n2026-11-01 error: \xffxxx)"));
  EXPECT_LT(result.error().message.size(), 2500u);
}

TEST(Membership, WhatRank0SaysInAnotherEpochIsPassedOver) {
  const JoinOptions options = group_options(2)[1];
  FakeRank0 rank0(options.port);
  std::jthread speaking([&] {
    rank0.say(encode_frame(Challenge{}, 1) + encode_frame(Accepted{.failure_timeout_ms = 1000}, 1) +
              encode_frame(Refused{.message = "of yesterday"}, 7) + encode_frame(Refused{.message = "of today"}, 1));
  });
  const LogCapture log;
  const JoinResult result = Membership::join(options);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().message, "of today");
  EXPECT_EQ(log.count("rank 1 passes over a control message of epoch 7 from rank 0, the 1. of another epoch than 1"), 1)
      << log.text();
}

// A rank that goes without a goodbye but for one of another epoch is lost.
TEST(Membership, WhatARankSaysInAnotherEpochIsPassedOver) {
  const std::vector<JoinOptions> options = group_options(2);
  const LogCapture log;
  JoinResult rank0;
  std::jthread forming([&] { rank0 = Membership::join(options[0]); });
  {
    RawClient rank1(options[0].port);
    ASSERT_EQ(rank1.receive_message().header.type, MessageType::kChallenge);
    rank1.send(encode_frame(control::hello_of(options[1]).value(), 1));
    ASSERT_EQ(rank1.receive_message().header.type, MessageType::kAccepted);
    ASSERT_EQ(rank1.receive_message().header.type, MessageType::kFormed);
    forming.join();
    ASSERT_TRUE(rank0) << rank0.error().message;
    rank1.send(encode_frame(Left{.rank = 1}, 2));
    std::this_thread::sleep_for(milliseconds(20));
  }
  for (int attempt = 0; attempt < 500 && !(*rank0)->first_lost(); attempt++)
    std::this_thread::sleep_for(milliseconds(10));
  EXPECT_TRUE((*rank0)->first_lost());
  EXPECT_EQ(log.count("rank 0 passes over a control message of epoch 2 from rank 1"), 1) << log.text();
}

TEST(Membership, AnotherServiceAtRank0sAddressIsNamed) {
  const JoinOptions options = group_options(2)[1];
  FakeRank0 other(options.port);
  std::jthread speaking([&] { other.say("SSH-2.0-OpenSSH_9.2p1\r\n"); });
  const JoinResult result = Membership::join(options);
  ASSERT_FALSE(result.has_value());
  EXPECT_THAT(result.error().message, AllOf(HasSubstr("answers, but not as rank 0"), HasSubstr("SSH-2.0-OpenSSH_")));
}

// --- Loading.

TEST(Membership, EveryoneIsReadyOnceAllHaveLoaded) {
  std::vector<JoinOptions> options = group_options(3);
  for (JoinOptions& rank : options) {
    rank.failure_timeout = milliseconds(200);
    rank.notice_interval = milliseconds(50);
  }
  const LogCapture log;
  std::vector<JoinResult> group = join_all(options);
  std::atomic<int> percent_of_rank2{-1};
  (*group[0])->set_progress_handler([&](int rank, const Activity& activity) {
    if (rank == 2) percent_of_rank2 = activity.percent;
  });
  std::atomic<int> num_ready{0};
  {
    std::vector<std::jthread> loading;
    for (int rank = 0; rank < 3; ++rank) {
      loading.emplace_back([&, rank] {
        if (rank == 2) {
          (*group[2])->set_percent(40);
          std::this_thread::sleep_for(milliseconds(250));
          EXPECT_EQ(num_ready, 0);
        }
        EXPECT_TRUE((*group[rank])->wait_until_all_ready().has_value());
        ++num_ready;
      });
    }
  }
  EXPECT_EQ(percent_of_rank2, 40);
  leave_all(group);
  group.clear();
  EXPECT_GT(log.count("2 of 3 ranks have loaded: rank 2 is loading (40%)"), 0);
}

// The thread that exchanges heartbeats calls them.
TEST(Membership, HandlersThatThrowEndNoHeartbeats) {
  std::vector<JoinOptions> options = group_options(3);
  for (JoinOptions& rank : options) rank.failure_timeout = milliseconds(200);
  const LogCapture log;
  std::vector<JoinResult> group = join_all(options);
  std::atomic<int> num_calls{0};
  (*group[0])->set_progress_handler([&](int /*rank*/, const Activity& /*activity*/) {
    ++num_calls;
    throw std::bad_alloc();
  });
  for (const JoinResult& rank : group)
    (*rank)->set_lost_handler([](const LostRank& /*lost*/) { throw std::bad_alloc(); });
  std::this_thread::sleep_for(milliseconds(700));  // longer than a rank that loads may be silent
  EXPECT_GT(num_calls, 5);
  for (const JoinResult& rank : group) EXPECT_FALSE((*rank)->first_lost().has_value());

  // Of two losses each rank hears both.
  (*group[1])->give_up("one");
  const Status ready = (*group[0])->wait_until_all_ready();
  ASSERT_FALSE(ready.has_value());
  EXPECT_THAT(ready.error().message, HasSubstr("rank 1"));
  (*group[2])->give_up("two");
  std::vector<JoinResult> survivor;
  survivor.push_back(std::move(group[0]));
  leave_all(survivor);
  group.clear();
  survivor.clear();
  EXPECT_EQ(log.count("it gave up: two"), 1) << log.text();
  EXPECT_GT(log.count("a handler of the membership failed: std::bad_alloc"), 0);
}

// Plays a rank that has loaded, and from then on says nothing more.
TEST(Membership, ARankThatFallsSilentRightAfterItHasLoadedIsFoundAsOneThatServes) {
  std::vector<JoinOptions> options = group_options(2);
  options[0].failure_timeout = milliseconds(1'000);
  std::vector<JoinResult> group(2);
  std::jthread rank0([&] { group[0] = Membership::join(options[0]); });
  RawClient client(options[0].port);
  ASSERT_EQ(client.receive_message().header.type, MessageType::kChallenge);
  Hello hello = hello_of(options[1]).value();
  client.send(encode_frame(hello, 1));
  const auto next_but_heartbeats = [&] {
    Frame frame = client.receive_message();
    while (frame.header.type == MessageType::kHeartbeat) {
      client.send(encode_frame(Heartbeat{}, 1));  // it is loading
      frame = client.receive_message();
    }
    return frame.header.type;
  };
  ASSERT_EQ(next_but_heartbeats(), MessageType::kAccepted);
  ASSERT_EQ(next_but_heartbeats(), MessageType::kFormed);
  rank0.join();
  ASSERT_EQ(client.receive_message().header.type, MessageType::kHeartbeat);
  client.send(encode_frame(Heartbeat{}, 1) + encode_frame(Ready{}, 1));
  OwnTime time;
  const auto begin = Clock::now();
  EXPECT_TRUE((*group[0])->wait_until_all_ready().has_value());
  while (!(*group[0])->first_lost() && Clock::now() - begin < seconds(20)) std::this_thread::sleep_for(milliseconds(5));
  EXPECT_LT(time.since(begin), milliseconds(1'400)) << "2.7 s, if it still counts as loading";
  (*group[0])->leave();
}

TEST(Membership, ARank0ThatFallsSilentRightAfterAllHaveLoadedIsFoundAsOneThatServes) {
  const JoinOptions options = group_options(2)[1];
  const int listener = loopback_socket(options.port);
  ASSERT_EQ(listen(listener, 1), 0);
  JoinResult rank1;
  std::jthread joining([&] { rank1 = Membership::join(options); });
  RawClient rank0 = RawClient::accepted_at(listener);
  rank0.send(encode_frame(Challenge{}, 1));
  ASSERT_EQ(rank0.receive_message().header.type, MessageType::kHello);
  rank0.send(encode_frame(Accepted{.failure_timeout_ms = 1'000}, 1) + encode_frame(Heartbeat{}, 1) +
             encode_frame(Formed{.members = {{.rank = 0}, {.rank = 1}}}, 1));
  joining.join();
  ASSERT_TRUE(rank1.has_value()) << rank1.error().message;
  std::jthread loading([&] { EXPECT_TRUE((*rank1)->wait_until_all_ready().has_value()); });
  while (rank0.receive_message().header.type != MessageType::kReady) {
  }
  rank0.send(encode_frame(Heartbeat{}, 1) + encode_frame(Ready{}, 1));
  OwnTime time;
  const auto begin = Clock::now();
  loading.join();
  while (!(*rank1)->first_lost() && Clock::now() - begin < seconds(20)) std::this_thread::sleep_for(milliseconds(5));
  EXPECT_LT(time.since(begin), milliseconds(1'400)) << "2.7 s, if it still counts as loading";
  (*rank1)->leave();
  close(listener);
}

TEST(Membership, ARankThatCannotLoadTellsAllOthersWhy) {
  std::vector<JoinResult> group = join_all(group_options(3));
  std::jthread failing([&] { (*group[1])->give_up("cannot open model.safetensors"); });
  for (const int rank : {0, 2}) {
    const Status ready = (*group[rank])->wait_until_all_ready();
    ASSERT_FALSE(ready.has_value());
    EXPECT_THAT(ready.error().message,
                AllOf(HasSubstr("rank 1 (replica 1, host"), HasSubstr("it gave up: cannot open model.safetensors"),
                      HasSubstr("it was loading (0%)")));
  }
  failing.join();
  leave_all(group);
}

TEST(Membership, ARankThatLeavesEndsTheWaitForAll) {
  std::vector<JoinResult> group = join_all(group_options(3));
  (*group[2])->leave();
  for (const int rank : {0, 1}) {
    const Status ready = (*group[rank])->wait_until_all_ready();
    ASSERT_FALSE(ready.has_value());
    EXPECT_THAT(ready.error().message, AllOf(HasSubstr("rank 2"), HasSubstr("has left before all")));
    EXPECT_FALSE((*group[rank])->first_lost().has_value());
  }
  leave_all(group);
}

}  // namespace
}  // namespace cachalot::control
