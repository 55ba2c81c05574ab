// Changes of epoch among processes: each rank is one, over shared memory or UCX; this one plays the agents. It kills
// ranks, says who lives, and lets others come in their place.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "base/process_test_util.h"
#include "comm/membership/wire.h"
#include "comm/world.h"
#include "engine/participate.h"
#include "epochs_harness.h"
#include "serve/rank_epochs.h"
#include "serve/replica.h"

namespace cachalot::test {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

struct Seat {
  int rank = 0;
  uint64_t process = 0;
  std::string card;
  static auto fields(auto& self) { return std::tie(self.rank, self.process, self.card); }
};

// What ranks and this process tell each other.
struct Word {
  enum Kind : uint8_t {
    kCard,    // of a rank: it is found by this card in the next epoch
    kLoaded,  // of a rank: it could take part in one
    kAnswer,  // of a leader: request `number` is through
    kEpoch    // to a rank: epoch `number` has these seats
  };
  static constexpr int kType = 0;
  uint8_t kind = kCard;
  uint32_t number = 0;
  std::string text;
  std::vector<Seat> seats;
  static auto fields(auto& self) { return std::tie(self.kind, self.number, self.text, self.seats); }
};

void tell(int socket, const Word& word) {
  const std::string bytes = control::encode(word);
  [[maybe_unused]] const ssize_t sent = send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
}

std::optional<Word> hear(int socket) {
  std::vector<char> bytes(1 << 20);
  const ssize_t size = recv(socket, bytes.data(), bytes.size(), 0);
  if (size <= 0) return std::nullopt;
  return control::decode<Word>({bytes.data(), static_cast<size_t>(size)}).value();
}

std::string text_of(const Answer& answer) {
  std::string text = fmt::format("{} {}", static_cast<int>(answer.finish), answer.error);
  for (const TokenId token : answer.tokens) text += fmt::format(" {}", token);
  for (const float logprob : answer.logprobs) text += fmt::format(" {:a}", logprob);
  for (const float logprob : answer.prompt_logprobs) text += fmt::format(" {:a}", logprob);
  return text;
}

constexpr int kRequests = 8;

// A rank's process.
class RankLife {
 public:
  RankLife(const GroupLayout& layout, int rank, TransportChoice transports, int socket)
      : layout_(layout),
        rank_(rank),
        socket_(socket),
        mesh_(Mesh::create({.rank = rank_, .size = layout_.num_ranks(), .living = {rank_}}, {}).value()),
        epochs_({.join = {.rank = rank, .size = layout.num_ranks()},
                 .transports = transports,
                 .network_interface = "lo",
                 .connect_deadline = milliseconds(3000)},
                {.rank = rank, .node = this_node().value()}, [socket](const RankEpochs::Standing& standing) {
                  tell(socket, {.kind = Word::kCard, .text = standing.card});
                }) {}

  int live() {
    log::init("off", "");
    epochs_.attach(*mesh_, nullptr);
    std::thread([this] { listen(); }).detach();
    const Placement placement{.parallel = layout_.of_rank(rank_),
                              .mesh = mesh_.get(),
                              .num_local_ranks = layout_.num_ranks(),
                              .threads = {.num_threads = 1, .cores = {}, .spin_microseconds = 0},
                              .isa = detect_isa(),
                              .loads_alone = true,
                              .on_activity = {}};
    auto engine = RankEngine::create(layout_.options(), placement, {});
    if (!engine) return 1;
    tell(socket_, {.kind = Word::kLoaded});
    epochs_.attach(*mesh_, &(*engine)->lockstep());
    if (!enter_first_epoch(**engine, epochs_, [](RankEngine&) {})) return 2;
    if (rank_ % layout_.tp_size > 0) return follow_leader(**engine, [](RankEngine&) {}, &epochs_) ? 0 : 3;
    lead(std::move(*engine));
    return 0;
  }

 private:
  void listen() {
    while (std::optional<Word> word = hear(socket_)) {
      RankEpochs::Decision decision{.number = word->number, .seats = {}};
      for (Seat& seat : word->seats) decision.seats.push_back({seat.rank, seat.process, std::move(seat.card)});
      epochs_.decide(std::move(decision));
    }
    _exit(0);  // the test is over
  }

  void lead(std::unique_ptr<RankEngine> engine) {
    const EngineOptions options = layout_.options();
    Metrics metrics{{.model_name = "test"}};
    const SchedulerOptions scheduler =
        make_scheduler_options(options, engine->memory().num_blocks, engine->memory().max_model_len);
    Replica replica(std::move(engine), scheduler, metrics, [](const Error&) { _exit(4); }, QueueLimits{}, &epochs_);
    for (RequestId id = 1; id <= kRequests; id++) {
      Request request = make_request(id);
      request.sampling.max_tokens = 40;
      auto answer = std::make_shared<Answer>();
      CHECK(replica.submit(std::move(request), [this, id, answer](const RequestOutput& output) {
        answer->add(output);
        if (output.finish != FinishReason::kNone)
          tell(socket_, {.kind = Word::kAnswer, .number = static_cast<uint32_t>(id), .text = text_of(*answer)});
      }));
    }
    for (;;) pause();
  }

  const GroupLayout layout_;
  const int rank_;
  const int socket_;
  const std::unique_ptr<Mesh> mesh_;
  RankEpochs epochs_;
};

// The ranks' processes, and who decides.
class Group {
 public:
  Group(const GroupLayout& layout, TransportChoice transports) : layout_(layout), transports_(transports) {
    for (int rank = 0; rank < layout.num_ranks(); rank++) start(rank, 0);
  }
  ~Group() {
    for (auto& [rank, child] : children_) child.process.kill();
  }

  void start(int rank, uint64_t process) {
    std::array<int, 2> ends{};
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) == 0);
    Process child = fork_process([&] {
      close(ends[0]);
      for (const auto& [other, theirs] : children_) close(theirs.socket.get());
      return RankLife(layout_, rank, transports_, ends[1]).live();
    });
    close(ends[1]);
    children_.emplace(rank, Child{.process = std::move(child),
                                  .socket = FileDescriptor(ends[0]),
                                  .id = process,
                                  .card = {},
                                  .used_card = {},
                                  .is_member = false});
  }
  void kill(int rank) { children_.at(rank).process.signal(SIGKILL); }
  // Hears the ranks, and decides, until `done` or a minute is over.
  template <class Done>
  bool run_until(Done done) {
    const auto deadline = Clock::now() + std::chrono::seconds(60);
    while (!done()) {
      if (Clock::now() > deadline) return false;
      std::vector<pollfd> polled;
      std::vector<int> ranks;
      for (const auto& [rank, child] : children_) {
        polled.push_back({.fd = child.socket.get(), .events = POLLIN});
        ranks.push_back(rank);
      }
      poll(polled.data(), polled.size(), 20);
      for (size_t idx = 0; idx < polled.size(); idx++)
        if (polled[idx].revents != 0) take(ranks[idx]);
    }
    return true;
  }
  bool has_answers(int replica, size_t count) const {
    const auto found = answers_.find(replica);
    return count == 0 || (found != answers_.end() && found->second.size() >= count);
  }
  const std::map<uint32_t, std::string>& answers(int replica) { return answers_[replica]; }
  uint32_t epoch() const { return epoch_; }

 private:
  struct Child {
    Process process;
    FileDescriptor socket;
    uint64_t id = 0;
    std::string card, used_card;  // a new one; the one before
    bool is_member = false;       // of the epoch, or of the next one: it has loaded
  };

  void take(int rank) {
    Child& child = children_.at(rank);
    std::optional<Word> word = hear(child.socket.get());
    if (!word) {
      children_.erase(rank);
      is_due_ = true;
    } else if (word->kind == Word::kAnswer) {
      answers_[rank / layout_.tp_size][word->number] = word->text;
    } else if (word->kind == Word::kCard) {
      if (word->text != child.used_card) child.card = word->text;
    } else if (!child.is_member) {  // the one that comes has loaded
      child.is_member = is_due_ = true;
    }
    decide();
  }
  // As soon as all who are to be members can be found.
  void decide() {
    const auto is_hidden = [](const auto& entry) { return entry.second.is_member && entry.second.card.empty(); };
    const auto is_loading = [](const auto& entry) { return !entry.second.is_member; };
    if (!is_due_ || std::ranges::any_of(children_, is_hidden)) return;
    if (epoch_ == 0 && std::ranges::any_of(children_, is_loading)) return;
    is_due_ = false;
    Word word{.kind = Word::kEpoch, .number = ++epoch_};
    for (auto& [rank, child] : children_)
      if (child.is_member) word.seats.push_back({rank, child.id, child.used_card = std::exchange(child.card, "")});
    for (const auto& [rank, child] : children_) tell(child.socket.get(), word);
  }

  const GroupLayout layout_;
  const TransportChoice transports_;
  std::map<int, Child> children_;  // by rank
  uint32_t epoch_ = 0;
  bool is_due_ = true;                                      // another epoch
  std::map<int, std::map<uint32_t, std::string>> answers_;  // of each replica
};

class EpochProcesses : public testing::TestWithParam<TransportChoice> {};

TEST_P(EpochProcesses, RanksThatAreKilledAndComeBackChangeNoAnswer) {
  const GroupLayout layout{2, 2, "r1-awq", 32};
  std::map<uint32_t, std::string> expected;
  {
    Group undisturbed(layout, TransportChoice::kShm);
    ASSERT_TRUE(undisturbed.run_until([&] { return undisturbed.has_answers(0, kRequests); }));
    expected = undisturbed.answers(0);
  }
  for (const size_t when : {1, 3, 5}) {
    Group group(layout, GetParam());
    // Somewhere in the work of both.
    ASSERT_TRUE(group.run_until([&] { return group.epoch() >= 1 && group.has_answers(1, when); }));
    group.kill(3);
    ASSERT_TRUE(group.run_until([&] { return group.epoch() == 2; }));
    ASSERT_TRUE(group.run_until([&] { return group.has_answers(0, std::min<size_t>(when + 2, kRequests)); }))
        << "replica 0 goes on meanwhile";
    group.start(3, 77);
    ASSERT_TRUE(group.run_until([&] { return group.epoch() == 3; }));
    ASSERT_TRUE(group.run_until([&] { return group.has_answers(0, kRequests) && group.has_answers(1, kRequests); }));
    EXPECT_EQ(group.answers(0), expected);
    EXPECT_EQ(group.answers(1), expected);
  }
}

INSTANTIATE_TEST_SUITE_P(Transports, EpochProcesses, testing::Values(TransportChoice::kShm, TransportChoice::kUcx),
                         [](const auto& info) { return info.param == TransportChoice::kShm ? "Shm" : "Ucx"; });

}  // namespace
}  // namespace cachalot::test
