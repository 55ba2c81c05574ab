#include "weights/mapped_file.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>

#include "base/check.h"
#include "base/file.h"

namespace cachalot {
namespace {

// The mappings of this process, for a handler that can take no lock. A place that is free has no beginning; more files
// than places are mapped without one.
struct Mapping {
  std::atomic<const std::byte*> begin;
  std::atomic<size_t> size;
  std::atomic<const char*> path;
};
std::array<Mapping, 4096> mappings;
std::mutex mappings_mutex;  // of those who write
struct sigaction action_before{};

void say(const char* text) {
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, std::strlen(text));
}

// Nothing here but what a signal handler may do. A page of a file is gone: who reads it cannot go on.
void on_bus_error(int number, siginfo_t* info, void* context) {
  const auto* const address = static_cast<const std::byte*>(info->si_addr);
  for (const Mapping& mapping : mappings) {
    const std::byte* const begin = mapping.begin.load();
    if (begin == nullptr || address < begin || address >= begin + mapping.size.load()) continue;
    const char* const path = mapping.path.load();
    struct stat now{};
    const bool is_cut = stat(path, &now) == 0 && static_cast<size_t>(now.st_size) < mapping.size.load();
    say("cachalot: ");
    say(path);
    say(is_cut ? ": the file was cut short while it was read; whoever writes it must be done first\n"
               : ": the file cannot be read any more (its disk or its network fails)\n");
    _exit(1);
  }
  if ((action_before.sa_flags & SA_SIGINFO) != 0) return action_before.sa_sigaction(number, info, context);
  signal(SIGBUS,
         action_before.sa_handler == SIG_IGN ? SIG_DFL : action_before.sa_handler);  // a fault comes again at once
  if (info->si_code <= 0) raise(number);                                             // what somebody has sent does not
}

void note(const std::string& path, std::span<const std::byte> bytes) {
  static const int installed = [] {
    struct sigaction action{};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO;
    return sigaction(SIGBUS, &action, &action_before);
  }();
  static_cast<void>(installed);
  const std::lock_guard lock(mappings_mutex);
  for (Mapping& mapping : mappings) {
    if (mapping.begin.load() != nullptr) continue;
    mapping.size = bytes.size();
    mapping.path = strdup(path.c_str());
    mapping.begin = bytes.data();
    return;
  }
}

void forget(std::span<const std::byte> bytes) {
  const std::lock_guard lock(mappings_mutex);
  for (Mapping& mapping : mappings) {
    if (mapping.begin.load() != bytes.data()) continue;
    mapping.begin = nullptr;
    std::free(const_cast<char*>(mapping.path.exchange(nullptr)));
  }
}

void advise(std::span<const std::byte> range, int advice) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(range.data()) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(range.data()) + range.size();
  madvise(reinterpret_cast<void*>(begin), end - begin, advice);  // advice only: a refusal changes nothing
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::string& path) {
  ASSIGN_OR_RETURN(const FileDescriptor file, open_file(path));
  struct stat info{};
  const auto size = fstat(file.get(), &info) == 0 ? static_cast<size_t>(info.st_size) : 0;
  void* data = size ? mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0) : nullptr;
  if (data == MAP_FAILED) return make_error(ErrorCode::kIo, "{}: cannot map: {}", path, std::strerror(errno));
  const std::span bytes(static_cast<const std::byte*>(data), size);
  if (size) note(path, bytes);
  return MappedFile(bytes);
}

MappedFile::~MappedFile() {
  if (bytes_.empty()) return;
  forget(bytes_);
  munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::prefetch(std::span<const std::byte> range) const {
  if (range.empty()) return;
  CHECK(contains(range.data()) && contains(&range.back()));
  advise(range, MADV_WILLNEED);
}

void MappedFile::drop(std::span<const std::byte> range) const {
  if (range.empty()) return;
  CHECK(contains(range.data()) && contains(&range.back()));
  advise(range, MADV_DONTNEED);
}

}  // namespace cachalot
