#include "calibrate/texts.h"

#include <algorithm>
#include <boost/json.hpp>
#include <limits>
#include <memory>
#include <numeric>
#include <string_view>

#include "base/file.h"
#include "base/text.h"
#include "openai/request/chat_request.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace cachalot {
namespace {

namespace json = boost::json;

constexpr size_t kPieceBytes = 4096, kMostPieceBytes = 16384;  // of plain text: to the next end of a line, or cut there

struct Piece {
  std::string_view text;
  int line = 0;  // the first, from 1
};

std::vector<Piece> pieces_of(std::string_view text, bool by_line) {
  std::vector<Piece> pieces;
  for (int line = 1; !text.empty();) {
    size_t end = text.find('\n', by_line ? 0 : std::min(kPieceBytes, text.size()));
    if (!by_line) end = std::min(end, kMostPieceBytes);
    const std::string_view piece = text.substr(0, std::min(end, text.size()));
    if (!trimmed(piece).empty()) pieces.push_back({piece, line});
    text.remove_prefix(std::min(piece.size() + (by_line || text.substr(piece.size()).starts_with('\n')), text.size()));
    line += static_cast<int>(std::ranges::count(piece, '\n')) + 1;
  }
  return pieces;
}

class TextReader {
 public:
  TextReader(const std::string& folder, const ModelConfig& config) : folder_(folder), config_(config) {}

  Result<std::vector<TokenId>> text(std::string_view text) {
    RETURN_IF_ERROR(load_tokenizer());
    return tokenizer_->encode(to_valid_utf8(text), true);
  }

  Result<std::vector<TokenId>> line(std::string_view line) {
    boost::system::error_code error;
    const json::value value = json::parse(line, error);
    if (error) return make_error(ErrorCode::kInvalidArgument, "not JSON: {}", error.message());
    const json::object* object = value.if_object();
    if (object && object->contains("messages")) return chat(*object);
    if (const json::value* found = object ? object->if_contains("text") : nullptr; found && found->is_string())
      return text(found->get_string());
    if (const json::value* found = object ? object->if_contains("token_ids") : nullptr; found && found->is_array())
      return ids(found->get_array());
    return make_error(ErrorCode::kInvalidArgument, "not an object with `messages`, `text` or `token_ids`");
  }

 private:
  Status load_tokenizer() {
    if (tokenizer_) return {};
    ASSIGN_OR_RETURN(tokenizer_, Tokenizer::load(folder_, config_.vocab_size));
    return {};
  }

  Result<std::vector<TokenId>> chat(const json::object& line) {
    RETURN_IF_ERROR(load_tokenizer());
    if (!template_) {
      ASSIGN_OR_RETURN(template_, ChatTemplate::load(folder_));
    }
    json::object body{{"messages", line.at("messages")}};
    if (const json::value* tools = line.if_contains("tools")) body["tools"] = *tools;
    const openai::RequestLimits limits{.vocab_size = config_.vocab_size,
                                       .max_model_len = config_.max_position_embeddings};
    auto request = openai::parse_chat_request(body, {}, limits);
    if (!request) return make_error(ErrorCode::kInvalidArgument, "{}", request.error().message);
    request->conversation.add_generation_prompt = false;
    ASSIGN_OR_RETURN(const openai::RenderedChat chat, openai::render(request->conversation, *template_));
    return tokenizer_->encode(chat.text, false);
  }

  Result<std::vector<TokenId>> ids(const json::array& list) const {
    std::vector<TokenId> ids;
    for (const json::value& value : list) {
      boost::system::error_code error;
      const auto id = value.to_number<int64_t>(error);
      if (error || id < 0 || id >= config_.vocab_size)
        return make_error(ErrorCode::kInvalidArgument, "`token_ids`: {} is no token id; the model has 0 to {}",
                          json::serialize(value), config_.vocab_size - 1);
      ids.push_back(static_cast<TokenId>(id));
    }
    return ids;
  }

  const std::string& folder_;
  const ModelConfig& config_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> template_;
};

// All of 0 .. count - 1, such that however many are taken from the start, they are spread over all.
std::vector<size_t> spread_order(size_t count) {
  size_t stride = std::max<size_t>(1, count * 618 / 1000);
  while (std::gcd(stride, count) != 1) stride++;
  std::vector<size_t> order(count);
  for (size_t idx = 0; idx < count; idx++) order[idx] = idx * stride % count;
  return order;
}

}  // namespace

Result<std::vector<std::vector<TokenId>>> read_calibration_texts(const std::string& path,
                                                                 const std::string& model_folder,
                                                                 const ModelConfig& config, int64_t most_tokens) {
  ASSIGN_OR_RETURN(const std::string text, read_file(path, kMostTableBytes));
  const bool by_line = path.ends_with(".jsonl");
  const std::vector<Piece> pieces = pieces_of(text, by_line);
  TextReader reader(model_folder, config);
  std::vector<std::vector<TokenId>> sequences;
  const int64_t most_of_one = std::min(kSequenceTokens, config.max_position_embeddings);
  for (const size_t idx : spread_order(pieces.size())) {
    if (most_tokens <= 0) break;
    const Piece& piece = pieces[idx];
    Result<std::vector<TokenId>> ids = by_line ? reader.line(piece.text) : reader.text(piece.text);
    if (!ids) return make_error(ids.error().code, "{}:{}: {}", path, piece.line, ids.error().message);
    if (ids->empty()) continue;
    const int64_t count = std::min({std::ssize(*ids), most_of_one, most_tokens});
    ids->resize(static_cast<size_t>(count));
    most_tokens -= count;
    sequences.push_back(std::move(*ids));
  }
  if (sequences.empty())
    return make_error(ErrorCode::kInvalidArgument, "{}: there is no text in it to calibrate with", path);
  return sequences;
}

}  // namespace cachalot
