#include "text/generation_config.h"

#include <boost/json.hpp>
#include <limits>
#include <string_view>

#include "base/file.h"
#include "config/json_keys.h"

namespace cachalot {
namespace {

namespace json = boost::json;

constexpr int kMaxInt = std::numeric_limits<int>::max();

template <class T, class... Range>
void read(JsonKeys& keys, std::string_view key, std::optional<T>& field, Range... range) {
  if (keys.find(key)) keys.optional(key, field.emplace(), range...);
}

void read_ids(JsonKeys& keys, std::string_view key, std::vector<TokenId>& ids) {
  const json::value* value = keys.find(key);
  if (!value) return;
  const json::array one = {*value};
  for (const json::value& item : value->is_array() ? value->get_array() : one) {
    if (!item.is_int64() || item.get_int64() < 0 || item.get_int64() > kMaxInt) {
      return keys.fault(key, "is " + json::serialize(*value), "a token id or a list of token ids");
    }
    ids.push_back(static_cast<TokenId>(item.get_int64()));
  }
}

}  // namespace

Result<GenerationConfig> parse_generation_config(const std::string& text, const std::string& path) {
  boost::system::error_code fault;
  const json::value root = json::parse(text, fault);
  if (fault) return make_error(ErrorCode::kCorrupt, "{}: not JSON: {}", path, fault.message());
  if (!root.is_object()) return make_error(ErrorCode::kCorrupt, "{}: holds no JSON object", path);
  GenerationConfig config;
  JsonKeys keys(root.get_object(), path);
  read(keys, "do_sample", config.do_sample);
  read(keys, "temperature", config.temperature, 0.0, 100.0);
  read(keys, "top_p", config.top_p, 0.0, 1.0);
  read(keys, "min_p", config.min_p, 0.0, 1.0);
  read(keys, "repetition_penalty", config.repetition_penalty, 0.0, 100.0);
  read(keys, "top_k", config.top_k, 0, kMaxInt);
  read(keys, "max_new_tokens", config.max_new_tokens, 1, kMaxInt);
  read_ids(keys, "eos_token_id", config.eos_token_ids);
  RETURN_IF_ERROR(keys.status());
  return config;
}

Result<GenerationConfig> load_generation_config(const std::string& model_folder) {
  const std::string path = model_folder + "/generation_config.json";
  const Result<std::string> text = read_file(path);
  if (text) return parse_generation_config(*text, path);
  if (text.error().code == ErrorCode::kNotFound) return GenerationConfig{};
  return std::unexpected(text.error());
}

}  // namespace cachalot
