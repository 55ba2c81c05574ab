#include "cluster/lease.h"

#include <chrono>
#include <memory>

#include "cli/commands.h"

namespace cachalot {

namespace {

struct LeaseOptions {
  std::vector<std::string> words;
  int longest_silence = 0;
};

}  // namespace

// For `up`, which starts servers on nodes with it.
void add_lease_command(CLI::App& app) {
  auto options = std::make_shared<LeaseOptions>();
  CLI::App* command = app.add_subcommand("lease", "Run a program for as long as the standard input holds");
  command->group("");
  command
      ->add_option("--longest-silence", options->longest_silence,
                   "Seconds without a byte after which it is ended; 0: only when the input ends")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("words", options->words, "The program and its arguments, behind --")->required();
  command->callback([options] {
    const Result<int> status = run_leased(options->words, std::chrono::seconds(options->longest_silence));
    if (!status) finish_command(std::unexpected(status.error()));
    throw CLI::RuntimeError(*status);
  });
}

}  // namespace cachalot
