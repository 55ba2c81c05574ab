#include "weights/safetensors.h"

#include <fmt/ranges.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/json.hpp>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>

#include "base/file.h"
#include "base/text.h"
#include "config/json.h"
#include "config/model_folder.h"

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

int advise(std::span<const std::byte> range, int advice) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(range.data()) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(range.data()) + range.size();
  return madvise(reinterpret_cast<void*>(begin), end - begin, advice);
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

bool MappedFile::fetch(std::span<const std::byte> range) const {
  if (range.empty()) return true;
  CHECK(contains(range.data()) && contains(&range.back()));
  // Linux before 5.14 has no such advice: there, a page that is gone is found when it is touched.
  return advise(range, MADV_POPULATE_READ) == 0 || errno == EINVAL;
}

namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

std::optional<uint64_t> unsigned_of(const boost::json::value& value) {
  if (value.is_uint64()) return value.get_uint64();
  if (value.is_int64() && value.get_int64() >= 0) return static_cast<uint64_t>(value.get_int64());
  return std::nullopt;
}

// Bytes of a shape, or nothing if they overflow.
std::optional<uint64_t> checked_bytes(std::span<const int64_t> shape, DType dtype) {
  uint64_t bytes = dtype_size(dtype);
  for (const int64_t extent : shape)
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(extent), &bytes)) return std::nullopt;
  return bytes;
}

// One entry of the header. `data_begin` and `data_size` place the data section in the file.
Result<TensorPlace> parse_entry(const boost::json::key_value_pair& entry, uint64_t data_begin, uint64_t data_size,
                                const std::string& path) {
  const std::string name = entry.key();
  const auto fault = [&]<class... Args>(fmt::format_string<Args...> format, Args&&... args) {
    return make_error(ErrorCode::kCorrupt, "{}: tensor {}: {}", path, name_text(name, 200),
                      fmt::format(format, std::forward<Args>(args)...));
  };
  const boost::json::object* object = entry.value().if_object();
  const boost::json::value* dtype_value = object ? object->if_contains("dtype") : nullptr;
  const boost::json::value* shape_value = object ? object->if_contains("shape") : nullptr;
  const boost::json::value* offsets_value = object ? object->if_contains("data_offsets") : nullptr;
  if (!dtype_value || !dtype_value->is_string() || !shape_value || !shape_value->is_array() || !offsets_value ||
      !offsets_value->is_array() || offsets_value->get_array().size() != 2)
    return fault("its header entry must hold dtype, shape and two data_offsets");

  TensorPlace place;
  place.spec.name = name;
  const std::string_view dtype_text = dtype_value->get_string();
  const std::optional<DType> dtype = dtype_by_name(dtype_text);
  if (!dtype) return fault("dtype {} is not known here", name_text(dtype_text));
  place.spec.dtype = *dtype;
  for (const boost::json::value& extent : shape_value->get_array()) {
    if (!extent.is_int64() || extent.get_int64() < 0) return fault("shape holds {}", shown(extent));
    place.spec.shape.push_back(extent.get_int64());
  }
  const std::optional<uint64_t> begin = unsigned_of(offsets_value->get_array()[0]);
  const std::optional<uint64_t> end = unsigned_of(offsets_value->get_array()[1]);
  if (!begin || !end || *begin > *end) return fault("data_offsets are {}", shown(*offsets_value));
  if (*end > data_size)
    return fault("data_offsets [{}, {}] reach beyond the end: the file has {} bytes of data; is it truncated?", *begin,
                 *end, data_size);
  const std::optional<uint64_t> bytes = checked_bytes(place.spec.shape, *dtype);
  if (!bytes || *bytes != *end - *begin)
    return fault("{} {} does not take the {} bytes of its data_offsets", dtype_text, shape_text(place.spec.shape),
                 *end - *begin);
  place.begin = data_begin + *begin;
  place.end = data_begin + *end;
  return place;
}

// The tensors, sorted by their place, must cover the data from its first to its last byte.
Status check_cover(std::span<const TensorPlace> places, uint64_t data_begin, uint64_t file_size,
                   const std::string& path) {
  uint64_t covered = data_begin;
  const TensorPlace* previous = nullptr;
  for (const TensorPlace& place : places) {
    if (place.begin < covered)
      return make_error(ErrorCode::kCorrupt, "{}: tensors {} and {} overlap", path, name_text(previous->spec.name),
                        name_text(place.spec.name));
    if (place.begin > covered)
      return make_error(ErrorCode::kCorrupt, "{}: {} bytes before tensor {} belong to no tensor (is one listed twice?)",
                        path, place.begin - covered, name_text(place.spec.name));
    covered = place.end;
    previous = &place;
  }
  if (covered != file_size)
    return make_error(ErrorCode::kCorrupt, "{}: the last {} bytes belong to no tensor", path, file_size - covered);
  return {};
}

}  // namespace

uint64_t TensorSpec::num_bytes() const {
  uint64_t bytes = dtype_size(dtype);
  for (const int64_t extent : shape) bytes *= static_cast<uint64_t>(extent);
  return bytes;
}

std::string shape_text(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

Result<std::vector<TensorPlace>> parse_safetensors_header(std::span<const std::byte> bytes, uint64_t file_size,
                                                          const std::string& path) {
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (const std::string other = other_kind(all.substr(0, 512)); !other.empty())
    return make_error(ErrorCode::kCorrupt, "{}: no safetensors file: it is {}", path, other);
  if (file_size < kLengthBytes || bytes.size() < kLengthBytes)
    return make_error(ErrorCode::kCorrupt, "{}: {} bytes are too short for a safetensors file", path, file_size);
  uint64_t header_size = 0;
  std::memcpy(&header_size, bytes.data(), kLengthBytes);
  if (header_size > kMaxHeaderBytes || header_size > file_size - kLengthBytes ||
      header_size > bytes.size() - kLengthBytes)
    return make_error(ErrorCode::kCorrupt,
                      "{}: its header claims {} bytes; the file has {}: no safetensors file, or truncated", path,
                      header_size, file_size);

  ASSIGN_OR_RETURN(const boost::json::value root, parse_json(all.substr(kLengthBytes, header_size), path + ": header"));
  if (!root.is_object()) return make_error(ErrorCode::kCorrupt, "{}: header is no JSON object", path);

  const uint64_t data_begin = kLengthBytes + header_size;
  std::vector<TensorPlace> places;
  for (const boost::json::key_value_pair& entry : root.get_object()) {
    if (entry.key() == "__metadata__") continue;
    ASSIGN_OR_RETURN(TensorPlace place, parse_entry(entry, data_begin, file_size - data_begin, path));
    places.push_back(std::move(place));
  }
  std::ranges::sort(places, {}, [](const TensorPlace& place) { return std::pair(place.begin, place.end); });
  RETURN_IF_ERROR(check_cover(places, data_begin, file_size, path));
  return places;
}

Result<SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  ASSIGN_OR_RETURN(MappedFile mapping, MappedFile::open(path));
  const std::span<const std::byte> bytes = mapping.bytes();
  ASSIGN_OR_RETURN(const std::vector<TensorPlace> places, parse_safetensors_header(bytes, bytes.size(), path));

  SafetensorsFile file(std::move(mapping));
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), kLengthBytes);
  file.header_size_ = kLengthBytes + header_bytes;
  file.path_ = std::make_unique<std::string>(path);
  for (const TensorPlace& place : places) {
    std::span<const std::byte> data = bytes.subspan(place.begin, place.end - place.begin);
    if (place.begin % dtype_size(place.spec.dtype) != 0) {  // some writers do not pad the header
      file.copies_.push_back(std::make_unique<std::byte[]>(data.size()));
      std::ranges::copy(data, file.copies_.back().get());
      data = {file.copies_.back().get(), data.size()};
      file.num_copied_bytes_ += data.size();
    }
    file.tensors_.push_back({place.spec, data, file.path_.get()});
  }
  return file;
}

}  // namespace cachalot
