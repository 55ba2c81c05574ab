#include "weights/checkpoint.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <boost/json.hpp>
#include <filesystem>
#include <memory>
#include <set>

#include "base/file.h"
#include "base/text.h"
#include "config/json.h"
#include "config/model_folder.h"

namespace cachalot {
namespace {

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";

bool is_plain_file_name(std::string_view name) {
  const auto is_no_part = [](unsigned char c) { return c == '/' || c < ' ' || c == 0x7f; };
  return !name.empty() && name != "." && name != ".." && std::ranges::none_of(name, is_no_part);
}

bool is_file(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

}  // namespace

Result<Checkpoint::Index> Checkpoint::read_index(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_file(path, kMostTableBytes));
  ASSIGN_OR_RETURN(const boost::json::object object, parse_json_object(text, path));
  const boost::json::value* weight_map = object.if_contains("weight_map");
  if (!weight_map || !weight_map->is_object())
    return make_error(ErrorCode::kCorrupt, "{}: weight_map must be an object of tensor and file names", path);
  Index files;
  for (const auto& [tensor, file] : weight_map->get_object()) {
    if (!file.is_string() || !is_plain_file_name(std::string_view(file.get_string())))
      return make_error(ErrorCode::kCorrupt, "{}: weight_map: tensor {}: {} is no file name", path, name_text(tensor),
                        shown(file));
    files.emplace(tensor, file.get_string());
  }
  if (files.empty()) return make_error(ErrorCode::kCorrupt, "{}: weight_map is empty", path);
  return files;
}

Result<Checkpoint> Checkpoint::open(const std::string& folder) {
  Checkpoint checkpoint;
  checkpoint.folder_ = folder;
  const std::string single(kSingleFile), index_path = fmt::format("{}/{}", folder, kIndexFile);
  const bool has_single = is_file(folder + "/" + single), has_index = is_file(index_path);
  if (!has_single && !has_index)
    return make_error(ErrorCode::kNotFound, "{}: neither {} nor {} is there (found: {}); weights must be safetensors",
                      folder, kSingleFile, kIndexFile, weights_like_files(folder));
  if (!has_index) {
    RETURN_IF_ERROR(checkpoint.add_file(single));
    return checkpoint;
  }
  ASSIGN_OR_RETURN(const Index index, read_index(index_path));
  if (has_single && std::ranges::none_of(index, [&](const auto& entry) { return entry.second == single; })) {
    const std::string& shard = index.begin()->second;
    if (std::ranges::any_of(index, [&](const auto& entry) { return is_file(folder + "/" + entry.second); }))
      return make_error(ErrorCode::kCorrupt,
                        "{}: holds two models, {} and the shards that {} names ({}, ...); move one of them elsewhere",
                        folder, kSingleFile, kIndexFile, name_text(shard));
    checkpoint.notes_.push_back(fmt::format("{}: {} is read; {} names shards that are not there ({}, ...)", folder,
                                            kSingleFile, kIndexFile, name_text(shard)));
    RETURN_IF_ERROR(checkpoint.add_file(single));
    return checkpoint;
  }
  RETURN_IF_ERROR(checkpoint.open_shards(index));
  return checkpoint;
}

Status Checkpoint::open_shards(const Index& index) {
  std::set<std::string> names;
  for (const auto& [tensor, file] : index) names.insert(file);
  std::vector<std::string> absent;
  for (const std::string& name : names)
    if (!is_file(folder_ + "/" + name)) absent.push_back(name);
  if (!absent.empty())
    return make_error(ErrorCode::kNotFound,
                      "{}: {} of the {} files that {} names are not there: {}; is the download unfinished?", folder_,
                      absent.size(), names.size(), kIndexFile, listed(absent));
  files_.reserve(names.size());
  for (const std::string& name : names)
    if (Status added = add_file(name); !added)
      return make_error(added.error().code, "{} (named by {})", added.error().message, kIndexFile);
  return check_index(index);
}

Status Checkpoint::add_file(const std::string& name) {
  ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::open(folder_ + "/" + name));
  for (const TensorRef& tensor : file.tensors()) {
    const auto [place, is_new] = tensors_.emplace(tensor.spec.name, tensor);
    if (!is_new)
      return make_error(ErrorCode::kCorrupt, "{}: tensor {} is a duplicate: it is in {} as well", file.path(),
                        name_text(tensor.spec.name), *place->second.file);
  }
  if (file.num_copied_bytes() > 0) num_copied_bytes_ += file.num_copied_bytes(), num_copied_files_++;
  files_.push_back(std::move(file));
  return {};
}

// What the index says must be what the files hold. Tensors that it omits are left out.
Status Checkpoint::check_index(const Index& index) {
  for (const auto& [name, file] : index) {
    const TensorRef* tensor = find(name);
    if (!tensor)
      return make_error(ErrorCode::kCorrupt, "{}: tensor {} is not in {}, where {} has it", folder_, name_text(name),
                        file, kIndexFile);
    if (*tensor->file != folder_ + "/" + file)
      return make_error(ErrorCode::kCorrupt, "{}: tensor {} is here; {} has it in {}", *tensor->file, name_text(name),
                        kIndexFile, file);
  }
  std::vector<std::string> omitted;
  for (const auto& [name, tensor] : tensors_)
    if (!index.contains(name)) omitted.push_back(name);
  if (omitted.empty()) return {};
  for (const std::string& name : omitted) tensors_.erase(name);
  notes_.push_back(fmt::format("{}: {} tensors are not in {} and are left out: {}", folder_, omitted.size(), kIndexFile,
                               listed(omitted)));
  return {};
}

Status Checkpoint::select_part(std::string_view prefix, const std::vector<std::string>& other_parts) {
  std::map<std::string, TensorRef, std::less<>> selected;
  for (const auto& [name, tensor] : tensors_) {
    if (std::ranges::any_of(other_parts, [&](const std::string& part) { return name.starts_with(part); })) {
      set_aside_.push_back(tensor);
      continue;
    }
    const std::string own = name.starts_with(prefix) ? name.substr(prefix.size()) : name;
    const auto [place, is_new] = selected.emplace(own, tensor);
    if (!is_new)
      return make_error(ErrorCode::kCorrupt, "{}: tensor {} is there with and without {}", *tensor.file, name_text(own),
                        prefix);
  }
  tensors_ = std::move(selected);
  if (!set_aside_.empty())
    notes_.push_back(fmt::format("{}: {} tensors are of parts that are not served and are left out ({})", folder_,
                                 set_aside_.size(), listed(other_parts)));
  return {};
}

const TensorRef* Checkpoint::find(std::string_view name) const {
  const auto entry = tensors_.find(name);
  return entry == tensors_.end() ? nullptr : &entry->second;
}

std::vector<std::string> Checkpoint::notes() const {
  std::vector<std::string> notes = notes_;
  if (num_copied_bytes_ > 0)
    notes.push_back(fmt::format("{}: {} bytes of tensors are misaligned in {} files and were copied to memory", folder_,
                                num_copied_bytes_, num_copied_files_));
  return notes;
}

uint64_t Checkpoint::num_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [name, tensor] : tensors_) bytes += tensor.data.size();
  return bytes;
}

// Null for a tensor that was copied to memory.
const SafetensorsFile* Checkpoint::file_of(std::span<const std::byte> range) const {
  for (const SafetensorsFile& file : files_)
    if (!range.empty() && file.mapping().contains(range.data())) return &file;
  return nullptr;
}

void Checkpoint::prefetch(std::span<const std::byte> range) const {
  if (const SafetensorsFile* file = file_of(range)) file->mapping().prefetch(range);
}

Status Checkpoint::fetch_pages(std::span<const std::byte> range) const {
  const SafetensorsFile* file = file_of(range);
  if (!file || file->mapping().fetch(range)) return {};
  return make_error(ErrorCode::kIo, "{}: cannot be read: {}", file->path(), std::strerror(errno));
}

void Checkpoint::drop_pages(std::span<const std::byte> range) const {
  if (const SafetensorsFile* file = file_of(range)) file->mapping().drop(range);
}

namespace {

constexpr size_t kPageBytes = 4096;

class Hasher {
 public:
  Hasher() : state_(XXH3_createState(), XXH3_freeState) { XXH3_128bits_reset(state_.get()); }

  // Length first, so that no two lists of parts give the same stream.
  void add(std::span<const std::byte> part) {
    const uint64_t size = part.size();
    XXH3_128bits_update(state_.get(), &size, sizeof size);
    XXH3_128bits_update(state_.get(), part.data(), part.size());
  }
  std::string hex() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
    return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
  }

 private:
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state_;
};

// In pieces, whose pages are let go of behind them: a checkpoint is larger than memory.
void add_whole(Hasher& hasher, const MappedFile& file, std::span<const std::byte> data) {
  constexpr size_t kPiece = size_t{64} << 20;
  for (size_t begin = 0; begin < data.size(); begin += kPiece) {
    const std::span<const std::byte> piece = data.subspan(begin, std::min(kPiece, data.size() - begin));
    file.prefetch(piece);
    hasher.add(piece);
    file.drop(piece);
  }
}

void add_samples(Hasher& hasher, std::span<const std::byte> data) {
  const size_t stride = std::max(data.size() / kSampledPages, kPageBytes);
  for (size_t begin = 0; begin < data.size(); begin += stride)
    hasher.add(data.subspan(begin, std::min(kPageBytes, data.size() - begin)));
}

}  // namespace

Result<std::string> fingerprint_of(const Checkpoint& checkpoint, FingerprintDepth depth) {
  Hasher hasher;
  ASSIGN_OR_RETURN(const std::string config, read_file(checkpoint.folder() + "/config.json"));
  hasher.add(std::as_bytes(std::span(config)));
  for (const SafetensorsFile& file : checkpoint.files()) {
    hasher.add(file.header());
    const std::span<const std::byte> bytes = file.mapping().bytes();
    const uint64_t size = bytes.size();
    hasher.add(std::as_bytes(std::span(&size, 1)));
    const std::span<const std::byte> data = bytes.subspan(file.header().size());
    if (depth == FingerprintDepth::kWhole) {
      add_whole(hasher, file.mapping(), data);
    } else {
      add_samples(hasher, data);
    }
  }
  return hasher.hex();
}

}  // namespace cachalot
