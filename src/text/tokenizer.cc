#include "text/tokenizer.h"

#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "base/math.h"
#include "base/text.h"
#include "config/json.h"
#include "config/model_folder.h"
#include "text/folder_config.h"
#include "text/rust_bridge.h"

namespace cachalot {

namespace {

constexpr std::string_view kTiktokenClass = "TikTokenTokenizer";
constexpr const char *kJsonFile = "/tokenizer.json", *kTiktokenFile = "/tiktoken.model";

Result<cachalot_tokenizer*> from_json(const std::string& model_folder, const TokenizerConfig& config,
                                      uint32_t num_ids) {
  const std::string path = model_folder + kJsonFile;
  const Result<std::string> text = read_file(path, kMostTableBytes);
  std::error_code ignored;
  if (!text && std::filesystem::exists(model_folder + "/tokenizer.model", ignored))
    return make_error(ErrorCode::kUnsupported,
                      "{}: has tokenizer.model but no tokenizer.json; convert it once, with "
                      "transformers.convert_slow_tokenizer or the model page's own script, and put tokenizer.json "
                      "beside it",
                      model_folder);
  if (!text && text.error().code == ErrorCode::kNotFound && config.tokenizer_class == kTiktokenClass)
    return make_error(ErrorCode::kNotFound,
                      "{}: neither tiktoken.model, which tokenizer_config.json asks for (tokenizer_class {}), nor "
                      "tokenizer.json is there; is the download unfinished?",
                      model_folder, kTiktokenClass);
  RETURN_IF_ERROR(text);
  RETURN_IF_ERROR(check_json(*text, path));
  std::string_view json = *text;
  if (json.starts_with("\xef\xbb\xbf")) json.remove_prefix(3);
  cachalot_tokenizer* handle = nullptr;
  std::string error;
  const cachalot_text_status status = cachalot_tokenizer_new(as_view(json), num_ids, &handle, sink_into(error));
  RETURN_IF_ERROR(to_status(status, path, error));
  return handle;
}

// Kimi's: how a text is split stands in the model's code, so that of no other model is known.
Result<cachalot_tokenizer*> from_tiktoken(const std::string& path, const TokenizerConfig& config, uint32_t num_ids) {
  if (!config.tokenizer_class.empty() && config.tokenizer_class != kTiktokenClass)
    return make_error(
        ErrorCode::kUnsupported,
        "{}: tokenizer_config.json names the tokenizer_class {}, and this file is read as Kimi's {} does, "
        "no other; a tokenizer.json beside it would be read instead",
        path, cachalot::quoted(config.tokenizer_class), kTiktokenClass);
  ASSIGN_OR_RETURN(const std::string text, read_file(path, kMostTableBytes));
  if (const std::string other = other_kind(std::string_view(text).substr(0, 512)); !other.empty())
    return make_error(ErrorCode::kCorrupt, "{}: no tokenizer: it is {}", path, other);
  std::vector<cachalot_added_token> added;
  RETURN_IF_ERROR(config.added_tokens);
  for (const TokenizerConfig::AddedToken& token : *config.added_tokens)
    added.push_back({static_cast<uint32_t>(token.id), as_view(token.text), token.is_special});
  cachalot_tokenizer* handle = nullptr;
  std::string error;
  const cachalot_text_status status =
      cachalot_tokenizer_of_tiktoken(as_view(text), added.data(), added.size(), num_ids, &handle, sink_into(error));
  RETURN_IF_ERROR(to_status(status, path, error));
  return handle;
}

// Tags that answers are divided at, whatever their file says of them.
constexpr std::string_view kNeverSpecial[] = {"<think>", "</think>"};

// What ends a turn in tokenizers that have another mark, too, whether or not a file beside them says so.
struct TurnEnd {
  std::string_view mark, beside;
};
constexpr TurnEnd kTurnEnds[] = {
    {"<|im_end|>", "<|im_middle|>"},  // Kimi, whose config.json names [EOS]
    {"<|user|>", "<|observation|>"},  // GLM: the next turn's beginning
    {"<|observation|>", "<|user|>"},  // behind calls
};

}  // namespace

void Tokenizer::Deleter::operator()(cachalot_tokenizer* handle) const {
  cachalot_tokenizer_free(handle);
}

Result<std::vector<TokenId>> Tokenizer::encode_with(std::string_view text, bool post_process,
                                                    std::span<const size_t> guards) const {
  std::vector<TokenId> ids;
  const cachalot_ids_sink sink = {&ids, [](void* context, const uint32_t* values, size_t num_ids) {
                                    static_cast<std::vector<TokenId>*>(context)->assign(values, values + num_ids);
                                  }};
  std::string error;
  const cachalot_text_status status = cachalot_tokenizer_encode(handle_.get(), as_view(text), post_process ? 1 : 0,
                                                                guards.data(), guards.size(), sink, sink_into(error));
  RETURN_IF_ERROR(to_status(status, "cannot tokenize", error));
  return ids;
}

// They come in the order of ids; an id that was left out is a token of no bytes.
Status Tokenizer::read_tokens(const std::string& path) {
  struct Visit {
    Tokenizer& tokenizer;
    int num_holes = 0, first_hole = -1;  // ids that no token has, below the largest
  } visit{*this};
  const auto add = [](void* context, uint32_t id, cachalot_text_view bytes, cachalot_token_kind kind) {
    Visit& visit = *static_cast<Visit*>(context);
    Tokenizer& tokenizer = visit.tokenizer;
    if (tokenizer.vocab_size() < static_cast<int>(id) && visit.num_holes == 0)
      visit.first_hole = tokenizer.vocab_size();
    visit.num_holes += static_cast<int>(id) - tokenizer.vocab_size();
    tokenizer.is_special_.resize(id, false);
    tokenizer.begins_.resize(size_t{id} + 1, tokenizer.bytes_.size());
    tokenizer.bytes_.append(bytes.data, bytes.size);
    tokenizer.begins_.push_back(tokenizer.bytes_.size());
    const bool is_tag = std::ranges::find(kNeverSpecial, to_view(bytes)) != std::end(kNeverSpecial);
    tokenizer.is_special_.push_back(kind == CACHALOT_TOKEN_SPECIAL && !is_tag);
    if (kind != CACHALOT_TOKEN_OWN) tokenizer.added_ids_.push_back(static_cast<TokenId>(id));
  };
  std::string error;
  RETURN_IF_ERROR(
      to_status(cachalot_tokenizer_visit_tokens(handle_.get(), {&visit, add}, sink_into(error)), path, error));
  if (visit.num_holes > 0)
    notes_.push_back(
        fmt::format("{}: {} ids below its largest ({}) are no token, the first is {}; they stand for no text", path,
                    visit.num_holes, vocab_size() - 1, visit.first_hole));
  return {};
}

std::string Tokenizer::file_of(const std::string& model_folder) {
  std::error_code ignored;
  const auto has = [&](const char* file) { return std::filesystem::exists(model_folder + file, ignored); };
  return model_folder + (!has(kJsonFile) && has(kTiktokenFile) ? kTiktokenFile : kJsonFile);
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::load(const std::string& model_folder, int vocab_size) {
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer);
  TokenizerConfig& config = tokenizer->config_;
  ASSIGN_OR_RETURN(config, load_tokenizer_config(model_folder));
  const std::string path = file_of(model_folder);
  const auto num_ids = static_cast<uint32_t>(vocab_size);
  tokenizer->is_tiktoken_ = path.ends_with(kTiktokenFile);
  ASSIGN_OR_RETURN(cachalot_tokenizer* const handle, tokenizer->is_tiktoken_
                                                         ? from_tiktoken(path, config, num_ids)
                                                         : from_json(model_folder, config, num_ids));
  tokenizer->handle_.reset(handle);
  RETURN_IF_ERROR(tokenizer->read_tokens(path));
  if (!config.bos_token.empty()) tokenizer->bos_id_ = tokenizer->token_id(config.bos_token);
  if (config.add_bos_token) {
    tokenizer->add_bos_ = *config.add_bos_token;
  } else {
    ASSIGN_OR_RETURN(const std::vector<TokenId> added, tokenizer->encode_with("", true));
    tokenizer->add_bos_ = tokenizer->bos_id_ && !added.empty() && added.front() == *tokenizer->bos_id_;
  }
  if (tokenizer->add_bos_ && !tokenizer->bos_id_)
    return make_error(ErrorCode::kCorrupt,
                      "{}/tokenizer_config.json: add_bos_token is true, but bos_token \"{}\" is no token of {}",
                      model_folder, escaped(config.bos_token, 80), path);
  if (const std::string& eos = config.eos_token; !eos.empty() && !tokenizer->token_id(eos))
    tokenizer->notes_.push_back(
        fmt::format("{}/tokenizer_config.json: eos_token {} is no token of {}, and ends no answer", model_folder,
                    cachalot::quoted(eos, 80), path));
  return tokenizer;
}

Result<std::vector<TokenId>> Tokenizer::encode(std::string_view text, bool add_bos,
                                               std::span<const size_t> guards) const {
  ASSIGN_OR_RETURN(std::vector<TokenId> ids, encode_with(text, false, guards));
  const bool has_bos = !ids.empty() && bos_id_ == ids.front();
  if (add_bos && add_bos_ && !has_bos) ids.insert(ids.begin(), *bos_id_);
  return ids;
}

std::string_view Tokenizer::token_bytes(TokenId id, bool skip_special) const {
  if (id < 0 || id >= vocab_size() || (skip_special && is_special(id))) return {};
  const auto idx = static_cast<size_t>(id);
  return std::string_view(bytes_).substr(begins_[idx], begins_[idx + 1] - begins_[idx]);
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special) const {
  std::string bytes;
  for (const TokenId id : ids) bytes += token_bytes(id, skip_special);
  return to_valid_utf8(bytes);
}

std::optional<TokenId> Tokenizer::token_id(std::string_view token) const {
  const int64_t id = cachalot_tokenizer_token_id(handle_.get(), as_view(token));
  return id < 0 ? std::nullopt : std::optional(static_cast<TokenId>(id));
}

std::vector<std::string> Tokenizer::marks() const {
  std::vector<std::string> marks;
  for (const TokenId id : added_ids_) {
    const std::string_view text = token_bytes(id, false);
    if (text.contains('<') || text.contains('[') || text.contains('|') || text.contains("｜")) marks.emplace_back(text);
  }
  return marks;
}

std::vector<TokenId> Tokenizer::turn_end_ids() const {
  std::vector<TokenId> ids;
  for (const TurnEnd& end : kTurnEnds)
    if (const auto id = token_id(end.mark); id && token_id(end.beside)) ids.push_back(*id);
  return ids;
}

namespace {

constexpr size_t kPieceBytes = 64 << 10;

bool is_word_byte(char byte) {
  return ('0' <= byte && byte <= '9') || ('a' <= byte && byte <= 'z') || ('A' <= byte && byte <= 'Z');
}

}  // namespace

TextBounds::TextBounds(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
  most_of_a_token_.fill(1);
  for (TokenId id = 0; id < tokenizer.vocab_size(); id++) {
    const Counts counts = count(tokenizer.token_bytes(id, false));
    for (size_t kind = 0; kind < counts.size(); kind++)
      most_of_a_token_[kind] = std::max(most_of_a_token_[kind], counts[kind]);
  }
  // A letter and its accent, a ligature, full width, white space around: what normalizers change.
  constexpr std::string_view kProbe = "  e\u0301 \ufb01 \uff21 A  ";
  const auto ids = tokenizer.encode(kProbe, false);
  may_change_text_ = !ids || tokenizer.decode(*ids, false) != kProbe;
  may_cut_ = !may_change_text_ && !tokenizer.cuts_texts() && cuts_before_lines();
}

TextBounds::Counts TextBounds::count(std::string_view text) {
  static constexpr auto kKinds = [] {
    std::array<uint8_t, 256> kinds{};
    for (int byte = 0; byte < 256; byte++) {
      const auto letter = static_cast<char>(byte | 0x20);
      kinds[static_cast<size_t>(byte)] = byte >= 0x80                               ? kHigh
                                         : '0' <= byte && byte <= '9'               ? kDigit
                                         : 'a' <= letter && letter <= 'z'           ? kLetter
                                         : byte == ' ' || (9 <= byte && byte <= 13) ? kSpace
                                                                                    : kOther;
    }
    return kinds;
  }();
  Counts counts{};
  for (const char byte : text) counts[kKinds[static_cast<unsigned char>(byte)]]++;
  counts[kAny] = static_cast<int64_t>(text.size());
  return counts;
}

int64_t TextBounds::least_num_tokens(std::string_view text) const {
  // Composition makes of three bytes or characters one, at most.
  const int64_t slack = may_change_text_ ? 4 : 1;
  const Counts counts = count(text);
  int64_t least = 0;
  for (size_t kind = 0; kind < counts.size(); kind++)
    least = std::max(least, ceil_div(counts[kind], most_of_a_token_[kind] * slack));
  return least;
}

// Whether texts may be cut between a line break and a letter or digit: no token spans one, and cutting there changes
// nothing around it.
bool TextBounds::cuts_before_lines() const {
  for (TokenId id = 0; id < tokenizer_.vocab_size(); id++) {
    const std::string_view bytes = tokenizer_.token_bytes(id, false);
    for (size_t idx = 1; idx < bytes.size(); idx++)
      if (bytes[idx - 1] == '\n' && is_word_byte(bytes[idx])) return false;
  }
  for (const std::string_view before : {"a", "1", ".", "a ", "\t", "\r", "}", "\n", "a\n ", "\u00e9", "\u4e2d", "  "})
    for (const std::string_view breaks : {"\n", "\n\n", " \n", "\r\n", "\n \n", "\n\n\n\n"})
      for (const std::string_view after : {"a", "A1", "1", "12345", "the end"}) {
        const std::string left = std::string(before) + std::string(breaks);
        auto both = tokenizer_.encode(left, false);
        const auto right = tokenizer_.encode(after, false), whole = tokenizer_.encode(left + std::string(after), false);
        if (!both || !right || !whole) return false;
        both->insert(both->end(), right->begin(), right->end());
        if (*both != *whole) return false;
      }
  return true;
}

// Up to the last place for a cut in the first kPieceBytes, or the first behind them.
size_t TextBounds::piece_size(std::string_view text) const {
  if (!may_cut_ || text.size() <= kPieceBytes) return text.size();
  const auto is_place = [&](size_t idx) { return text[idx - 1] == '\n' && is_word_byte(text[idx]); };
  for (size_t idx = kPieceBytes; idx > 0; idx--)
    if (is_place(idx)) return idx;
  for (size_t idx = kPieceBytes; idx < text.size(); idx++)
    if (is_place(idx)) return idx;
  return text.size();
}

Result<std::vector<TokenId>> TextBounds::encode(std::string_view text, bool add_bos,
                                                std::span<const size_t> guards) const {
  std::vector<TokenId> tokens;
  size_t begin = 0;
  do {
    const size_t size = piece_size(text);
    std::vector<size_t> places;  // of guards, in the piece
    for (; !guards.empty() && guards.front() < begin + size; guards = guards.subspan(1))
      places.push_back(guards.front() - begin);
    ASSIGN_OR_RETURN(const std::vector<TokenId> piece, tokenizer_.encode(text.substr(0, size), add_bos, places));
    tokens.insert(tokens.end(), piece.begin(), piece.end());
    text.remove_prefix(size);
    begin += size;
    add_bos = false;
  } while (!text.empty());
  return tokens;
}

}  // namespace cachalot
