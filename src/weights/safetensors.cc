#include "weights/safetensors.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstring>
#include <optional>

#include "base/text.h"
#include "config/json.h"
#include "config/model_folder.h"

namespace cachalot {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

std::optional<DType> dtype_by_name(std::string_view name) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3, DType::kI64, DType::kI32,
                            DType::kI16, DType::kI8, DType::kU8, DType::kBool, DType::kF64})
    if (dtype_name(dtype) == name) return dtype;
  return std::nullopt;
}

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
