#include "config/model_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "base/text.h"

namespace cachalot {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFolderWanted =
    "a model is a folder with a HuggingFace checkpoint: config.json, tokenizer.json and model*.safetensors";

bool begins_with(std::string_view text, std::string_view lower_case) {
  return text.size() >= lower_case.size() &&
         std::ranges::equal(text.substr(0, lower_case.size()), lower_case, [](unsigned char given, char wanted) {
           return (given >= 'A' && given <= 'Z' ? given + 32 : given) == static_cast<unsigned char>(wanted);
         });
}

// owner/name, as the hub's models are called, and no path that somebody would write.
bool is_hub_id(std::string_view model) {
  const size_t slash = model.find('/');
  if (slash == std::string_view::npos || slash == 0 || slash + 1 == model.size()) return false;
  for (const std::string_view file : {".gguf", ".safetensors", ".bin", ".pt", ".json"})
    if (model.ends_with(file)) return false;
  if (model.find('/', slash + 1) != std::string_view::npos || model.front() == '.' || model.front() == '~')
    return false;
  return std::ranges::all_of(
      model, [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_' || c == '.' || c == '/'; });
}

Status fault(const std::string& model, std::string_view what) {
  return std::unexpected(Error{ErrorCode::kNotFound, fmt::format("{}: {}", escaped(model, 400), what), "model"});
}

std::string hub_advice(std::string_view id) {
  const std::string_view name = id.substr(id.find('/') + 1);
  return fmt::format(
      "there is no such folder. It looks like a model's name on huggingface.co; nothing is downloaded "
      "here: fetch it with `hf download {} --local-dir {}`, then --model {}",
      id, name, name);
}

Status check_file(const std::string& model) {
  const fs::path path(model);
  const std::string folder = path.parent_path().empty() ? "." : path.parent_path().string();
  const std::string extension = path.extension();
  if (extension == ".gguf")
    return fault(model,
                 "a GGUF file, llama.cpp's format, which is not read here; take the HuggingFace checkpoint that "
                 "it was made of (config.json, tokenizer.json, safetensors); `cachalot quantize` makes int4 of it");
  if (extension == ".bin" || extension == ".pt" || extension == ".pth")
    return fault(model, "a PyTorch file; weights must be safetensors, in a folder with config.json and tokenizer.json");
  if (extension == ".safetensors" || path.filename() == "config.json" || path.filename() == "tokenizer.json" ||
      path.filename() == "model.safetensors.index.json")
    return fault(model, fmt::format("a single file of a model; give the folder that it is in: --model {}",
                                    escaped(folder, 400)));
  return fault(model, fmt::format("a file, not a folder; {}", kFolderWanted));
}

// Where in a folder without a config.json one is: HuggingFace's cache (snapshots/HASH), or a folder further down.
std::string folder_below(const fs::path& folder) {
  std::error_code ignored;
  std::vector<std::string> found;
  for (const fs::path& parent : {folder, folder / "snapshots"})
    for (const fs::directory_entry& entry : fs::directory_iterator(parent, ignored))
      if (fs::is_regular_file(entry.path() / "config.json", ignored)) found.push_back(entry.path());
  return found.size() == 1 ? found.front() : "";
}

}  // namespace

std::string other_kind(std::string_view begin) {
  if (begin.empty()) return "empty; is the download unfinished?";
  if (begin.starts_with("version https://git-lfs.github.com/"))
    return "a git-lfs pointer, which stands in for the real file; run `git lfs pull` in the model's folder, or fetch "
           "it with `hf download`";
  const std::string_view text = begin.substr(std::min(begin.find_first_not_of(" \t\r\n"), begin.size()));
  if (text.empty()) return "nothing but white space";
  for (const std::string_view page : {"<!doctype html", "<html", "<head", "<?xml"})
    if (begins_with(text, page))
      return "a web page, saved in the file's place; download the file itself (its page's \"download\", or `hf "
             "download`)";
  for (const std::string_view answer :
       {"Entry not found", "Invalid username or password", "Repository not found", "Access to model"})
    if (text.starts_with(answer))
      return fmt::format("a server's answer, {}, saved in the file's place; fetch it again with `hf download`",
                         cachalot::quoted(text.substr(0, 80)));
  if (begin.starts_with("GGUF")) return "a GGUF file, llama.cpp's format, which is not read here";
  if (begin.starts_with(std::string_view("PK\x03\x04", 4)))
    return "a zip archive (a PyTorch file?); weights must be safetensors";
  if (begin.starts_with("\x1f\x8b")) return "compressed with gzip; unpack it";
  return "";
}

std::string other_than_json(std::string_view text) {
  if (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff")) return "in UTF-16; JSON is UTF-8";
  if (const std::string kind = other_kind(text.substr(0, 512)); !kind.empty()) return kind;
  // A safetensors file: eight bytes of length, then JSON.
  if (text.size() > 9 && text[8] == '{' && text.substr(0, 8).contains('\0')) return "a safetensors file";
  return "";
}

Status check_model_folder(const std::string& model) {
  std::error_code error;
  const fs::file_status status = fs::status(model, error);
  if (model.empty()) return fault("--model", fmt::format("is empty; {}", kFolderWanted));
  if (status.type() == fs::file_type::not_found) {
    if (is_hub_id(model)) return fault(model, hub_advice(model));
    return fault(model, fmt::format("there is no such folder; {}", kFolderWanted));
  }
  if (error) return fault(model, fmt::format("cannot be opened: {}", error.message()));
  if (status.type() != fs::file_type::directory) return check_file(model);
  if (fs::exists(model + "/config.json", error)) return {};
  if (error) return fault(model, fmt::format("config.json cannot be looked for: {}", error.message()));
  if (const std::string below = folder_below(model); !below.empty())
    return fault(model, fmt::format("config.json is not in it, but in {}: give --model {}", escaped(below, 400),
                                    escaped(below, 400)));
  return fault(model,
               fmt::format("config.json is not in it (found: {}); {}", weights_like_files(model), kFolderWanted));
}

std::string weights_like_files(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored)) {
    if (has_word(".safetensors .bin .pt .pth .gguf", entry.path().extension().string()))
      names.push_back(entry.path().filename());
  }
  if (names.empty()) return "no weights";
  std::ranges::sort(names);
  const std::string first = name_text(names.front());
  return names.size() == 1 ? first : fmt::format("{} and {} more like it", first, names.size() - 1);
}

}  // namespace cachalot
