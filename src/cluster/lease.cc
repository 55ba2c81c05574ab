#include "cluster/lease.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <optional>

#include "base/log.h"
#include "base/process.h"
#include "base/stop_signals.h"
#include "config/end_report.h"

namespace cachalot {
namespace {

class Lease {
 public:
  Lease(Process program, std::chrono::seconds longest_silence)
      : program_(std::move(program)), longest_silence_(longest_silence) {}

  int run(StopSignals& signals) {
    while (!program_.status()) wait(signals);
    end_descendants();
    return *program_.status();
  }

 private:
  using Clock = std::chrono::steady_clock;

  void wait(StopSignals& signals) {
    std::array<pollfd, 3> polled{{{.fd = program_.pidfd(), .events = POLLIN, .revents = 0},
                                  {.fd = signals.fd(), .events = POLLIN, .revents = 0},
                                  {.fd = ended_ ? -1 : STDIN_FILENO, .events = POLLIN, .revents = 0}}};
    const int timeout_ms = longest_silence_.count() > 0 && !ended_ ? 500 : -1;
    if (poll(polled.data(), polled.size(), timeout_ms) < 0) return;
    if (polled[1].revents) program_.signal(signals.wait());
    if (polled[2].revents) read_input();
    if (!ended_ && timeout_ms > 0 && Clock::now() - renewed_ > longest_silence_)
      end("nothing has come from whoever started this for too long");
  }

  void read_input() {
    std::array<char, 256> bytes{};
    const ssize_t size = read(STDIN_FILENO, bytes.data(), bytes.size());
    if (size < 0 && errno == EINTR) return;
    if (size <= 0) return end("whoever started this has gone");
    renewed_ = Clock::now();
    for (const char byte : std::string_view(bytes.data(), static_cast<size_t>(size))) {
      if (kTerminateLease[0] == byte) program_.signal(SIGTERM);
      if (kKillLease[0] == byte) end({});
    }
  }

  void end(std::string_view why) {
    ended_ = true;
    if (!why.empty()) log::warn("{}: the server here is ended", why);
    program_.signal(SIGKILL);
  }

  // What the program started is this process' now (a subreaper). It dies with the program; this makes sure of it, and
  // waits.
  static void end_descendants() {
    do {
      kill_children(std::chrono::seconds(1));
    } while (waitpid(-1, nullptr, 0) > 0 || errno == EINTR);
  }

  Process program_;
  const std::chrono::seconds longest_silence_;
  bool ended_ = false;
  Clock::time_point renewed_ = Clock::now();
};

}  // namespace

Result<int> run_leased(const LeaseOptions& options) {
  StopSignals signals{std::nullopt};
  if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
    return make_error(ErrorCode::kIo, "cannot watch over a program: {}", std::strerror(errno));
  ProcessOptions program_options{.words = options.words};
  FileDescriptor said;
  if (options.report_end) {
    said = FileDescriptor(memfd_create("cachalot-end", MFD_CLOEXEC));
    if (!said) return make_error(ErrorCode::kIo, "memfd_create: {}", std::strerror(errno));
    program_options.environment = {fmt::format("{}={}", kEndReportVariable, said.get())};
    program_options.kept = {said.get()};
    program_options.output = program_options.errors = STDERR_FILENO;
  }
  const uint64_t memory_kills = num_memory_kills();
  ASSIGN_OR_RETURN(Process program, Process::start(program_options));
  const int status = Lease(std::move(program), options.longest_silence).run(signals);
  if (options.report_end) log::print(stdout, "{}", to_json(read_end_report(said.get(), status, memory_kills)));
  return status;
}

}  // namespace cachalot
