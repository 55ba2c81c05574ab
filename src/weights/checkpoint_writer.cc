#include "weights/checkpoint_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "base/progress.h"

namespace cachalot {
namespace {

// The header's text, padded so that the data begins at a multiple of 8; the tensors in the order of their data.
std::string header_text(std::span<const TensorSpec> tensors) {
  boost::json::object header;
  header["__metadata__"] = {{"format", "pt"}};  // what transformers looks for
  uint64_t position = 0;
  for (const TensorSpec& tensor : tensors) {
    const uint64_t end = position + tensor.num_bytes();
    header[tensor.name] = {{"dtype", dtype_name(tensor.dtype)},
                           {"shape", boost::json::array(tensor.shape.begin(), tensor.shape.end())},
                           {"data_offsets", {position, end}}};
    position = end;
  }
  std::string text = boost::json::serialize(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

Result<SafetensorsWriter> SafetensorsWriter::create(const std::string& path, std::vector<TensorSpec> tensors) {
  std::ranges::stable_sort(tensors, std::greater{}, [](const TensorSpec& tensor) { return dtype_size(tensor.dtype); });
  const std::string header = header_text(tensors);

  const std::string part = path + ".part";
  FileDescriptor file(::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0644));
  if (!file) return os_error(part, "create");
  SafetensorsWriter writer(path, std::move(file));
  const uint64_t header_size = header.size();
  RETURN_IF_ERROR(writer.write_at(0, std::as_bytes(std::span(&header_size, 1))));
  RETURN_IF_ERROR(writer.write_at(sizeof header_size, std::as_bytes(std::span(header))));
  uint64_t position = sizeof header_size + header_size;
  for (const TensorSpec& tensor : tensors) {
    const bool is_new = writer.places_.emplace(tensor.name, Place{position, tensor.num_bytes()}).second;
    CHECK(is_new, "tensor {} is listed twice", tensor.name);
    position += tensor.num_bytes();
  }
  if (ftruncate(writer.file_.get(), static_cast<off_t>(position)) != 0) return os_error(part, "extend");
  return writer;
}

SafetensorsWriter::~SafetensorsWriter() {
  if (file_) ::unlink(part_path().c_str());
}

Status SafetensorsWriter::write(std::string_view tensor, uint64_t offset, std::span<const std::byte> data) {
  const auto place = places_.find(tensor);
  CHECK(place != places_.end(), "no tensor {} in {}", tensor, path_);
  CHECK(offset + data.size() <= place->second.size, "{} + {} bytes in a tensor of {}", offset, data.size(),
        place->second.size);
  return write_at(place->second.begin + offset, data);
}

Status SafetensorsWriter::write_at(uint64_t position, std::span<const std::byte> data) {
  while (!data.empty()) {
    const ssize_t written = ::pwrite(file_.get(), data.data(), data.size(), static_cast<off_t>(position));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return os_error(part_path(), "write");
    data = data.subspan(static_cast<size_t>(written));
    position += static_cast<uint64_t>(written);
  }
  return {};
}

Status SafetensorsWriter::finish() {
  if (!file_.close()) return os_error(part_path(), "close");
  if (std::rename(part_path().c_str(), path_.c_str()) != 0) return os_error(path_, "rename into place");
  return {};
}

Result<CheckpointWriter> CheckpointWriter::create(const std::string& folder, const std::vector<TensorSpec>& tensors,
                                                  uint64_t shard_bytes) {
  std::error_code made;
  std::filesystem::create_directories(folder, made);
  if (made) return make_error(ErrorCode::kIo, "{}: cannot make the folder: {}", folder, made.message());

  CheckpointWriter writer(folder);
  for (const TensorSpec& tensor : tensors) {
    const uint64_t bytes = tensor.num_bytes();
    if (writer.shards_.empty() ||
        (writer.shards_.back().num_bytes + bytes > shard_bytes && !writer.shards_.back().tensors.empty()))
      writer.shards_.emplace_back();
    Shard& shard = writer.shards_.back();
    shard.tensors.push_back(tensor);
    shard.num_bytes += bytes;
    writer.num_bytes_ += bytes;
    const bool is_new = writer.entries_.emplace(tensor.name, Entry{writer.shards_.size() - 1, bytes, 0}).second;
    CHECK(is_new, "tensor {} is listed twice", tensor.name);
  }
  const size_t count = writer.shards_.size();
  for (size_t idx = 0; idx < count; idx++)
    writer.shards_[idx].file =
        count == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", idx + 1, count);
  return writer;
}

Status CheckpointWriter::write(std::string_view tensor, std::span<const std::byte> data) {
  const auto found = entries_.find(tensor);
  CHECK(found != entries_.end(), "no tensor {}", tensor);
  Entry& entry = found->second;
  Shard& shard = shards_[entry.shard];
  if (!shard.writer) {
    CHECK(shard.num_written == 0, "{} was closed before tensor {}", shard.file, tensor);
    ASSIGN_OR_RETURN(SafetensorsWriter opened, SafetensorsWriter::create(folder_ + "/" + shard.file, shard.tensors));
    shard.writer = std::make_unique<SafetensorsWriter>(std::move(opened));
  }
  RETURN_IF_ERROR(shard.writer->write(tensor, entry.num_written, data));
  entry.num_written += data.size();
  shard.num_written += data.size();
  if (shard.num_written < shard.num_bytes) return {};
  const Status finished = shard.writer->finish();
  shard.writer.reset();
  return finished;
}

Status CheckpointWriter::finish() {
  boost::json::object weight_map;
  for (const auto& [name, entry] : entries_) {
    CHECK(entry.num_written == entry.num_bytes, "tensor {} has {} of {} bytes", name, entry.num_written,
          entry.num_bytes);
    weight_map[name] = shards_[entry.shard].file;
  }
  if (shards_.size() == 1) return {};
  const boost::json::object index{{"metadata", {{"total_size", num_bytes_}}}, {"weight_map", std::move(weight_map)}};
  return write_file(folder_ + "/model.safetensors.index.json", boost::json::serialize(index) + "\n");
}

Status check_output_folder(const std::string& folder) {
  std::error_code error;
  if (!std::filesystem::exists(folder, error)) return {};
  if (!std::filesystem::is_directory(folder, error))
    return make_error(ErrorCode::kInvalidArgument, "{}: is not a folder", folder);
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename();
    if (name == "config.json" || name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json"))
      return make_error(ErrorCode::kInvalidArgument, "{}: holds {} already; name a new folder or empty this one",
                        folder, name);
  }
  return {};
}

Status check_disk_space(const std::string& folder, uint64_t num_bytes) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  if (error) return make_error(ErrorCode::kIo, "{}: cannot ask for free space: {}", folder, error.message());
  if (space.available >= num_bytes) return {};
  return make_error(ErrorCode::kIo, "{}: {} are needed, {} are free", folder, bytes_text(num_bytes),
                    bytes_text(space.available));
}

}  // namespace cachalot
