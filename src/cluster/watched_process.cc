#include "cluster/watched_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>

#include "base/file.h"
#include "base/text.h"
#include "cluster/lease.h"
#include "config/end_report.h"

namespace cachalot {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kAskWhileStarting{100}, kAskWhileUp{1'000}, kRenewEvery{1'000};
// A busy machine may be late with an answer; ranks that are lost are noticed by their group long before.
constexpr std::chrono::seconds kLongestSilence{10};
constexpr size_t kMostReportBytes = 16 << 10, kMostStateBytes = 4 << 20;

}  // namespace

StateProbe::StateProbe(const http::Client& client, http::Url url, size_t most_ranks)
    : client_(client), url_(std::move(url)), most_ranks_(most_ranks) {
  url_.target = "/state";
}

StateProbe::~StateProbe() {
  reset();
}

void StateProbe::ask(milliseconds interval) {
  hear();
  const Clock::time_point now = Clock::now();
  if (call_ || now - asked_ < interval) return;
  asked_ = now;
  call_ = client_.start({.url = url_});
}

void StateProbe::reset() {
  if (call_) call_->cancel();
  call_.reset();
  state_.reset();
  heard_ = Clock::now();
}

// The answer, if it has come. What is no state of ours says nothing, not even that the server lives.
void StateProbe::hear() {
  if (!call_ || !call_->is_done()) return;
  const Result<http::Response> answer = call_->wait();
  call_.reset();
  if (!answer || answer->status != 200 || answer->body.size() > kMostStateBytes) return;
  if (auto parsed = parse_server_state(answer->body, most_ranks_)) {
    state_ = std::move(*parsed);
    heard_ = Clock::now();
  }
}

Result<std::unique_ptr<WatchedProcess>> WatchedProcess::create(const ProcessPlan& plan, const http::Client& client) {
  ASSIGN_OR_RETURN(http::Url url, http::parse_url(plan.url));
  return std::unique_ptr<WatchedProcess>(new WatchedProcess(plan, client, std::move(url)));
}

WatchedProcess::WatchedProcess(ProcessPlan plan, const http::Client& client, http::Url url)
    : plan_(std::move(plan)), probe_(client, std::move(url), static_cast<size_t>(plan_.num_ranks)) {}

Status WatchedProcess::start() {
  reported_.clear();
  was_told_to_end_ = was_up_since_start_ = false;
  probe_.reset();
  const FileDescriptor log(open(plan_.log.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644));
  if (!log) return make_error(ErrorCode::kIo, "{} cannot be written: {}", plan_.log, std::strerror(errno));
  log_begin_ = lseek(log.get(), 0, SEEK_END);
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return make_error(ErrorCode::kIo, "pipe: {}", std::strerror(errno));
  report_ = FileDescriptor(ends[0]);
  const FileDescriptor report_end(ends[1]);
  fcntl(report_.get(), F_SETFL, O_NONBLOCK);
  ASSIGN_OR_RETURN(Process child, Process::start({.words = plan_.words,
                                                  .folder = plan_.folder,
                                                  .output = report_end.get(),
                                                  .errors = log.get(),
                                                  .input = true}));
  child_.emplace(std::move(child));
  return {};
}

void WatchedProcess::terminate() {
  if (child_) child_->write(kTerminateLease);
}

void WatchedProcess::kill() {
  if (!child_) return;
  if (was_told_to_end_) child_->kill();
  child_->write(kKillLease);
  was_told_to_end_ = true;
}

// One line at its end, and nothing else, unless a node's shell says something at each start: of that the last bytes.
void WatchedProcess::read_report() {
  std::array<char, 4096> bytes{};
  for (ssize_t size = 0; report_ && (size = read(report_.get(), bytes.data(), bytes.size())) > 0;) {
    reported_.append(bytes.data(), static_cast<size_t>(size));
    if (reported_.size() > kMostReportBytes) reported_.erase(0, reported_.size() - kMostReportBytes);
  }
}

std::string WatchedProcess::describe_last(int status) const {
  if (const std::optional<EndReport> report = parse_end_report(reported_)) return report->text();
  // What holds it here ended, or the way to its node: nobody there could say more.
  constexpr int kSshFailed = 255;
  const std::string& program = plan_.words[0];
  if (status == kSshFailed && program == "ssh") {
    // Up to the node's name, behind which the program there begins.
    const auto& words = plan_.words;
    const size_t num_words = std::min<size_t>(std::ranges::find(words, "--") - words.begin() + 2, words.size());
    return fmt::format("cannot be reached: ssh failed: {}; try the same by hand: {} true (keys, known_hosts, the name)",
                       last_error(), fmt::join(words.begin(), words.begin() + num_words, " "));
  }
  return fmt::format("is gone: {} {}", program.substr(program.rfind('/') + 1), describe_end(status));
}

// The last line that it wrote to its errors since it was started, for a person.
std::string WatchedProcess::last_error() const {
  const Result<FileDescriptor> log = open_file(plan_.log);
  if (!log) return "it does not say why";
  std::array<char, 4096> bytes{};
  const off_t end = lseek(log->get(), 0, SEEK_END);
  const off_t begin = std::max<off_t>(log_begin_, end - static_cast<off_t>(bytes.size()));
  const ssize_t size = pread(log->get(), bytes.data(), bytes.size(), begin);
  std::string_view text(bytes.data(), static_cast<size_t>(std::max<ssize_t>(size, 0)));
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  text.remove_prefix(text.find_last_of("\r\n") + 1);
  return text.empty() ? "it does not say why" : quoted(text, 300);
}

void WatchedProcess::update() {
  const std::optional<int> status = child_ ? child_->status() : std::nullopt;
  read_report();
  if (status) {
    end_ = describe_last(*status);
    child_.reset();
    report_.reset();
    probe_.reset();
  }
  if (!child_) return;
  was_up_since_start_ |= is_up();
  was_up_ |= was_up_since_start_;
  probe_.ask(takes_requests() ? kAskWhileUp : kAskWhileStarting);
  const auto now = StateProbe::Clock::now();
  if (now - renewed_ < kRenewEvery) return;
  renewed_ = now;
  child_->write(kRenewLease);
}

bool WatchedProcess::is_up() const {
  return plan_.num_ranks == 0 ? probe_.state().has_value() : takes_requests();
}

bool WatchedProcess::takes_requests() const {
  const auto state = probe_.state();
  return state && state->phase == RankPhase::kReady;
}

bool WatchedProcess::is_silent() const {
  return was_up_since_start_ && probe_.state() && probe_.silence() > kLongestSilence;
}

std::vector<int> WatchedProcess::percentages() const {
  std::vector<int> percentages(static_cast<size_t>(plan_.num_ranks));
  const auto state = probe_.state();
  for (size_t idx = 0; state && idx < std::min(percentages.size(), state->ranks.size()); idx++)
    percentages[idx] = state->ranks[idx].percent;
  return percentages;
}

}  // namespace cachalot
