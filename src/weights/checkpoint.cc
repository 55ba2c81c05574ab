#include "weights/checkpoint.h"

#include <algorithm>
#include <boost/json.hpp>
#include <filesystem>
#include <set>

#include "base/file.h"
#include "base/log.h"

namespace cachalot {
namespace {

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";

bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos;
}

// Tensor name -> file name.
Result<std::map<std::string, std::string>> read_index(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_file(path));
  boost::system::error_code parse_error;
  const boost::json::value root = boost::json::parse(text, parse_error);
  if (parse_error) return make_error(ErrorCode::kCorrupt, "{}: no valid JSON: {}", path, parse_error.message());
  const boost::json::object* object = root.if_object();
  const boost::json::value* weight_map = object ? object->if_contains("weight_map") : nullptr;
  if (!weight_map || !weight_map->is_object())
    return make_error(ErrorCode::kCorrupt, "{}: weight_map must be an object of tensor and file names", path);
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : weight_map->get_object()) {
    if (!file.is_string() || !is_plain_file_name(std::string_view(file.get_string())))
      return make_error(ErrorCode::kCorrupt, "{}: tensor {}: {} is no file name", path, std::string_view(tensor),
                        boost::json::serialize(file));
    files.emplace(tensor, file.get_string());
  }
  if (files.empty()) return make_error(ErrorCode::kCorrupt, "{}: weight_map is empty", path);
  return files;
}

// What stands in the folder instead, since the usual fault is another weight format or a download that did not finish.
std::string weights_like_files(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string extension = entry.path().extension();
    if (extension == ".safetensors" || extension == ".bin" || extension == ".pt" || extension == ".pth" ||
        extension == ".gguf")
      names.push_back(entry.path().filename());
  }
  if (names.empty()) return "no weights";
  std::ranges::sort(names);
  return names.front() + (names.size() > 1 ? fmt::format(" and {} more like it", names.size() - 1) : "");
}

}  // namespace

Result<Checkpoint> Checkpoint::open(const std::string& folder) {
  Checkpoint checkpoint;
  checkpoint.folder_ = folder;
  std::error_code ignored;
  if (std::filesystem::exists(folder + "/" + std::string(kSingleFile), ignored)) {
    RETURN_IF_ERROR(checkpoint.add_file(std::string(kSingleFile), nullptr));
    return checkpoint;
  }
  const std::string index_path = folder + "/" + std::string(kIndexFile);
  if (!std::filesystem::exists(index_path, ignored))
    return make_error(ErrorCode::kNotFound, "{}: neither {} nor {} is there (found: {}); weights must be safetensors",
                      folder, kSingleFile, kIndexFile, weights_like_files(folder));

  ASSIGN_OR_RETURN(const auto file_of_tensor, read_index(index_path));
  std::set<std::string> file_names;
  for (const auto& [tensor, file] : file_of_tensor) file_names.insert(file);
  for (const std::string& name : file_names)
    if (Status added = checkpoint.add_file(name, &file_of_tensor); !added)
      return make_error(added.error().code, "{} (named by {})", added.error().message, kIndexFile);
  for (const auto& [tensor, file] : file_of_tensor)
    if (!checkpoint.find(tensor))
      return make_error(ErrorCode::kCorrupt, "{}: tensor {} is not in {}, where {} has it", folder, tensor, file,
                        kIndexFile);
  return checkpoint;
}

Status Checkpoint::add_file(const std::string& name, const std::map<std::string, std::string>* file_of_tensor) {
  ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::open(folder_ + "/" + name));
  for (const TensorRef& tensor : file.tensors()) {
    if (file_of_tensor) {
      const auto entry = file_of_tensor->find(tensor.spec.name);
      if (entry == file_of_tensor->end()) {
        log::warn("{}: tensor {} is not in {} and is left out", file.path(), tensor.spec.name, kIndexFile);
        continue;
      }
      if (entry->second != name)
        return make_error(ErrorCode::kCorrupt, "{}: tensor {} is a duplicate: {} has it in {}", file.path(),
                          tensor.spec.name, kIndexFile, entry->second);
    }
    tensors_.emplace(tensor.spec.name, tensor);
  }
  files_.push_back(std::move(file));
  return {};
}

const TensorRef* Checkpoint::find(std::string_view name) const {
  const auto entry = tensors_.find(name);
  return entry == tensors_.end() ? nullptr : &entry->second;
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

void Checkpoint::drop_pages(std::span<const std::byte> range) const {
  if (const SafetensorsFile* file = file_of(range)) file->mapping().drop(range);
}

}  // namespace cachalot
