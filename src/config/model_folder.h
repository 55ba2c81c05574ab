#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

// What people give instead of a model's folder, and what stands there instead of its files: names of the hub, single
// files, other formats, unfinished downloads. Each is called what it is, with what to do.
namespace cachalot {

// Empty, or what a file obviously is that should be another: "a git-lfs pointer (...)", "a web page (...)", "empty".
// `begin`: its first bytes, a few hundred if it has them.
std::string other_kind(std::string_view begin);
// The same, for a file that should be JSON.
std::string other_than_json(std::string_view text);

// An error unless `model`, what --model or a file says, is a folder with a config.json.
Status check_model_folder(const std::string& model);

// What of weights a folder holds that is not read here, for an error: "no weights", "q4.gguf and 3 more like it".
std::string weights_like_files(const std::string& folder);

}  // namespace cachalot
