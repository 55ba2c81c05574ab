#include "cluster/lease.h"

#include <chrono>
#include <memory>

#include "cli/commands.h"

namespace cachalot {

// For `up`, which starts servers on nodes with it.
void add_lease_command(CLI::App& app) {
  auto options = std::make_shared<LeaseOptions>();
  CLI::App* command = app.add_subcommand("lease", "Run a program for as long as the standard input holds");
  command->group("");
  command
      ->add_option_function<int>(
          "--longest-silence", [options](int seconds) { options->longest_silence = std::chrono::seconds(seconds); },
          "Seconds without a byte after which it is ended; 0: only when the input ends")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--report-end", options->report_end, "Write how it ended to the standard output, as JSON");
  command->add_option("words", options->words, "The program and its arguments, behind --")->required();
  command->callback([options] {
    const Result<int> status = run_leased(*options);
    if (!status) finish_command(std::unexpected(status.error()));
    throw CLI::RuntimeError(*status);
  });
}

}  // namespace cachalot
