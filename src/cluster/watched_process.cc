#include "cluster/watched_process.h"

#include <csignal>

#include "cluster/lease.h"
#include "serve/load_line.h"

namespace cachalot {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kAskWhileStarting{100}, kAskWhileUp{1'000}, kRenewEvery{1'000};
// A busy machine may be late with an answer; ranks that are lost are noticed by their group long before.
constexpr std::chrono::seconds kLongestSilence{10};

// What an error of the log says, without time and kind, or the message with which a command ends; empty: neither.
std::string complaint_of(const std::string& line) {
  constexpr std::string_view kError = " E ", kEnd = "cachalot: ";
  if (line.starts_with(kEnd)) return line.substr(kEnd.size());
  const size_t error = line.find(kError);
  return error == std::string::npos || error > 24 ? std::string() : line.substr(error + kError.size());
}

}  // namespace

Result<std::unique_ptr<WatchedProcess>> WatchedProcess::create(const ProcessPlan& plan, const http::Client& client) {
  ASSIGN_OR_RETURN(http::Url url, http::parse_url(plan.url));
  return std::unique_ptr<WatchedProcess>(new WatchedProcess(plan, client, std::move(url)));
}

WatchedProcess::WatchedProcess(ProcessPlan plan, const http::Client& client, http::Url url)
    : plan_(std::move(plan)),
      probe_(client, std::move(url)),
      tail_(plan_.log),
      percentages_(static_cast<size_t>(plan_.num_ranks)) {}

Status WatchedProcess::start() {
  percentages_.assign(percentages_.size(), 0);
  complaint_.clear();
  last_line_.clear();
  was_told_to_end_ = false;
  probe_.reset();
  ASSIGN_OR_RETURN(Process child,
                   Process::start({.words = plan_.words, .folder = plan_.folder, .log = plan_.log, .input = true}));
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

void WatchedProcess::read_log() {
  for (const std::string& line : tail_.new_lines()) {
    if (const auto load = parse_load_line(line); load && plan_.num_ranks > 0)
      percentages_[static_cast<size_t>(load->rank % plan_.num_ranks)] = load->percent;
    if (complaint_.empty()) complaint_ = complaint_of(line);
    last_line_ = line;
  }
}

void WatchedProcess::update() {
  // The end first: what it wrote before is then in its log.
  const std::optional<int> status = child_ ? child_->status() : std::nullopt;
  read_log();
  if (status) {
    const std::string& reason = complaint_.empty() ? last_line_ : complaint_;
    end_ = describe_end(*status) + (reason.empty() ? "" : ": " + reason);
    child_.reset();
    probe_.reset();
  }
  if (!child_) return;
  was_up_ |= is_up();
  probe_.ask(takes_requests() ? kAskWhileUp : kAskWhileStarting);
  const auto now = HealthProbe::Clock::now();
  if (now - renewed_ < kRenewEvery) return;
  renewed_ = now;
  child_->write(kRenewLease);
}

bool WatchedProcess::is_up() const {
  return plan_.num_ranks == 0 ? probe_.status() != 0 : takes_requests();
}

bool WatchedProcess::is_silent() const {
  return probe_.status() != 0 && probe_.silence() > kLongestSilence;
}

}  // namespace cachalot
