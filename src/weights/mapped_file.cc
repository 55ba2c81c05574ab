#include "weights/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "base/check.h"

namespace cachalot {
namespace {

void advise(std::span<const std::byte> range, int advice) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(range.data()) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(range.data()) + range.size();
  madvise(reinterpret_cast<void*>(begin), end - begin, advice);  // advice only: a refusal changes nothing
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::string& path) {
  const auto os_error = [&](const char* action) {
    return make_error(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{}: cannot {}: {}", path, action,
                      std::strerror(errno));
  };
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return os_error("open");
  struct stat info{};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    return make_error(ErrorCode::kIo, "{}: not a regular file", path);
  }
  const auto size = static_cast<size_t>(info.st_size);
  void* data = size ? mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0) : nullptr;
  ::close(fd);
  if (data == MAP_FAILED) return os_error("map");
  return MappedFile({static_cast<const std::byte*>(data), size});
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
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
