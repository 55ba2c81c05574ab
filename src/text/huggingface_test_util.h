#pragma once

#include <zlib.h>

#include <boost/json.hpp>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/types.h"

// For tests: what HuggingFace's libraries made of many strings and conversations (tests/tokenizer/make_fixture.py).
namespace cachalot {

inline const std::string kDeepseekFolder = CACHALOT_SOURCE_DIR "/tests/data/tokenizers/deepseek-v3";
inline const std::string kNanoFolder = CACHALOT_SOURCE_DIR "/models/nano";

// The rows of a fixture's part: "strings", "decoded" or "chats".
inline std::vector<boost::json::object> read_fixture(const std::string& part) {
  const std::string path = CACHALOT_SOURCE_DIR "/tests/data/tokenizers/fixture/" + part + ".jsonl.gz";
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (!file) throw std::runtime_error("cannot open " + path);
  std::string text;
  std::vector<char> chunk(1 << 16);
  for (int size; (size = gzread(file.get(), chunk.data(), static_cast<unsigned>(chunk.size()))) != 0;) {
    if (size < 0) throw std::runtime_error("cannot read " + path);
    text.append(chunk.data(), static_cast<size_t>(size));
  }
  std::vector<boost::json::object> rows;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    rows.push_back(boost::json::parse(std::string_view(text).substr(begin, end - begin)).as_object());
  }
  return rows;
}

inline std::string text_of(const boost::json::object& row, std::string_view key) {
  return std::string(row.at(key).as_string());
}

inline std::vector<TokenId> ids_of(const boost::json::object& row) {
  return boost::json::value_to<std::vector<TokenId>>(row.at("ids"));
}

}  // namespace cachalot
