// soak [--minutes M] [--ranks N]: N ranks of the built-in model under full load on this machine, however few its cores:
// nobody may be taken for lost, and no answer may end otherwise than complete. Exit status 1 if one was.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <memory>
#include <thread>

#include "processes/api_client.h"
#include "processes/served_group.h"

namespace cachalot::test {
namespace {

using Clock = std::chrono::steady_clock;
using End = StreamedAnswer::End;

struct Counts {
  std::atomic<int64_t> answers{0}, tokens{0}, wrong_ends{0};
};

// Long prompts and long answers, so that steps of all kinds meet.
void ask_until(Clock::time_point deadline, const ApiClient& api, uint16_t port, int client, Counts& counts) {
  for (int round = client; Clock::now() < deadline; round++) {
    std::string prompt = "What is 17 + 25?";
    for (int repeat = 0; repeat < round % 3 * 40; repeat++) prompt += " And what is that and one more?";
    const int max_tokens = 50 + round % 5 * 100;
    const StreamedAnswer answer = api.stream(port, completion_body(boost::json::value(prompt), max_tokens));
    counts.tokens += answer.num_tokens;
    if (answer.end == End::kComplete && answer.num_tokens == max_tokens) {
      counts.answers++;
      continue;
    }
    counts.wrong_ends++;
    fmt::print(stderr, "an answer of port {} ended as {} with status {}: {}\n", port, static_cast<int>(answer.end),
               answer.status, answer.error);
    if (answer.end != End::kRefused) return;
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
}

int num_losses(ServedGroup& group) {
  int losses = 0;
  for (int dp_rank = 0; dp_rank < group.num_replicas(); dp_rank++) {
    for (const Program::Line& line : group.replica(dp_rank).lines()) {
      const bool loss = line.text.find(" is lost: ") != std::string::npos ||
                        line.text.find("have given up this rank") != std::string::npos;
      if (loss) fmt::print(stderr, "{}\n", line.text);
      losses += loss;
    }
  }
  return losses;
}

int run(double minutes, int num_ranks, int tp_size, int clients_per_replica) {
  ServedGroup group({.layout = {.dp_size = num_ranks / tp_size, .tp_size = tp_size}, .more_flags = {"--threads", "1"}});
  if (!group.ready()) return 1;
  const ApiClient api(std::chrono::minutes(5));
  const auto begin = Clock::now();
  const auto deadline =
      begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double, std::ratio<60>>(minutes));
  Counts counts;
  {
    std::vector<std::jthread> clients;
    for (int client = 0; client < clients_per_replica * group.num_replicas(); client++) {
      const uint16_t port = group.port(client % group.num_replicas());
      clients.emplace_back([&, port, client] { ask_until(deadline, api, port, client, counts); });
    }
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  double steps = 0, waiting = 0, computing = 0;
  for (int dp_rank = 0; dp_rank < group.num_replicas(); dp_rank++) {
    steps = std::max(steps, api.metric(group.port(dp_rank), "cachalot:steps_total", "rank=\"0\""));
    waiting += api.metric(group.port(dp_rank), "cachalot:step_seconds_total", "part=\"waiting\"");
    computing += api.metric(group.port(dp_rank), "cachalot:step_seconds_total", "part=\"compute\"");
  }
  const int losses = num_losses(group);
  fmt::print(
      "{} ranks ({} replicas of {}), {:.0f} s: {} answers, {} tokens, {:.0f} steps; a rank computed {:.0f} s and "
      "waited "
      "{:.0f} s; wrong ends: {}, ranks taken for lost: {}\n",
      num_ranks, num_ranks / tp_size, tp_size, seconds, counts.answers.load(), counts.tokens.load(), steps,
      computing / num_ranks, waiting / num_ranks, counts.wrong_ends.load(), losses);
  return counts.wrong_ends == 0 && losses == 0 && counts.answers > 0 ? 0 : 1;
}

}  // namespace
}  // namespace cachalot::test

int main(int argc, char** argv) {
  CLI::App app{"Many ranks under full load on one machine: no false alarm, no wrong end"};
  double minutes = 10;
  int ranks = 32, tensor_parallel_size = 4, clients = 2;
  app.add_option("--minutes", minutes)->capture_default_str();
  app.add_option("--ranks", ranks, "All of them; the built-in model has 32 experts to share out")
      ->capture_default_str();
  app.add_option("--tensor-parallel-size", tensor_parallel_size)->capture_default_str();
  app.add_option("--clients", clients, "Of each replica, all at once")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  return cachalot::test::run(minutes, ranks, tensor_parallel_size, clients);
}
