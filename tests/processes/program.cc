#include "processes/program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/ports.h"
#include "base/text.h"

namespace cachalot::test {
namespace {

using std::chrono::milliseconds;
using SystemTime = std::chrono::system_clock::time_point;

// "2026-11-24 08:06:47.123 E rank 3: ...": the log's own time, for a line may lie unread for a while.
SystemTime time_of(const std::string& line, SystemTime came) {
  tm parts{};
  const char* rest = strptime(line.c_str(), "%Y-%m-%d %H:%M:%S", &parts);
  if (rest == nullptr || *rest != '.') return came;
  parts.tm_isdst = -1;
  return std::chrono::system_clock::from_time_t(mktime(&parts)) + milliseconds(leading_number<int>(rest + 1));
}

}  // namespace

Program::Program(const std::vector<std::string>& arguments, const std::string& path)
    : Program(ProcessOptions{}, arguments, path) {}

Program::Program(ProcessOptions options, const std::vector<std::string>& arguments, const std::string& path) {
  std::array<int, 2> output{};
  CHECK(pipe2(output.data(), O_CLOEXEC) == 0);
  options.words = {path};
  options.words.insert(options.words.end(), arguments.begin(), arguments.end());
  options.output = output[1];
  auto process = Process::start(options);
  CHECK(process, "{}", process.error().message);
  process_.emplace(std::move(*process));
  close(output[1]);
  reader_ = std::thread([this, fd = output[0]] { read_output(fd); });
}

Program::~Program() {
  process_->kill();
  process_->wait();
  reader_.join();
}

std::vector<pid_t> Program::children() const {
  std::ifstream file(fmt::format("/proc/{}/task/{}/children", pid(), pid()));
  std::vector<pid_t> children;
  for (pid_t child = 0; file >> child;) children.push_back(child);
  return children;
}

std::optional<int> Program::wait(milliseconds patience) {
  const std::optional<int> status = process_->wait_for(patience);
  if (status) wait_for_silence(milliseconds(500));  // so that its last words are read; children may have more to say
  return status;
}

bool Program::wait_for_silence(milliseconds patience) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, patience, [this] { return silent_; });
}

std::vector<Program::Line> Program::lines() const {
  const std::lock_guard lock(mutex_);
  return lines_;
}

std::string Program::output() const {
  std::string all;
  for (const Line& line : lines()) all += line.text + "\n";
  return all;
}

std::optional<Program::Line> Program::wait_for_line(std::string_view text, milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  std::unique_lock lock(mutex_);
  for (size_t seen = 0;;) {
    for (; seen < lines_.size(); seen++) {
      if (lines_[seen].text.find(text) != std::string::npos) return lines_[seen];
    }
    if (!changed_.wait_until(lock, deadline, [&] { return silent_ || seen < lines_.size(); })) return std::nullopt;
    if (silent_ && seen == lines_.size()) return std::nullopt;
  }
}

void Program::read_output(int fd) {
  std::string rest;
  std::array<char, 4096> part{};
  for (;;) {
    const ssize_t size = read(fd, part.data(), part.size());
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) break;
    const SystemTime came = std::chrono::system_clock::now();
    rest.append(part.data(), static_cast<size_t>(size));
    const std::lock_guard lock(mutex_);
    for (size_t end = rest.find('\n'); end != std::string::npos; end = rest.find('\n')) {
      std::string line = rest.substr(0, end);
      rest.erase(0, end + 1);
      const SystemTime at = time_of(line, came);
      lines_.push_back({std::move(line), at});
    }
    changed_.notify_all();
  }
  close(fd);
  const std::lock_guard lock(mutex_);
  silent_ = true;
  changed_.notify_all();
}

ScratchFolder::ScratchFolder() {
  std::string pattern = std::filesystem::temp_directory_path() / "cachalot-test-XXXXXX";
  CHECK(mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

uint16_t free_port() {
  static std::vector<KeptPort> kept;
  kept.push_back(KeptPort::keep().value());
  return kept.back().port();
}

}  // namespace cachalot::test
