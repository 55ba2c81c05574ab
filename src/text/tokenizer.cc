#include "text/tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "base/file.h"
#include "base/math.h"
#include "base/text.h"
#include "config/json.h"
#include "text/folder_config.h"
#include "text/rust_bridge.h"

namespace cachalot {

namespace {

struct TokenizerDeleter {
  void operator()(cachalot_tokenizer* handle) const { cachalot_tokenizer_free(handle); }
};
using Handle = std::unique_ptr<cachalot_tokenizer, TokenizerDeleter>;

// The bytes of every token, one after another.
struct TokenTable {
  std::string bytes;
  std::vector<size_t> begins = {0};  // [id]; one more at the end
  std::vector<bool> is_special;      // [id]

  int num_holes = 0;  // ids that no token has, below the largest
  int first_hole = -1;

  int size() const { return static_cast<int>(is_special.size()); }

  // In the order of ids; an id that was left out is a token of no bytes.
  void append(uint32_t id, std::string_view token_bytes, bool special) {
    if (size() < static_cast<int>(id) && num_holes == 0) first_hole = size();
    num_holes += static_cast<int>(id) - size();
    is_special.resize(id, false);
    begins.resize(size_t{id} + 1, bytes.size());
    bytes += token_bytes;
    begins.push_back(bytes.size());
    is_special.push_back(special);
  }
};

Result<std::string> read_tokenizer_json(const std::string& model_folder) {
  Result<std::string> text = read_file(model_folder + "/tokenizer.json");
  if (text || text.error().code != ErrorCode::kNotFound) return text;
  for (const char* other : {"tiktoken.model", "tokenizer.model"}) {
    if (!std::filesystem::exists(model_folder + "/" + other)) continue;
    return make_error(ErrorCode::kUnsupported,
                      "{}: has {} but no tokenizer.json, the one format that is read here; convert it once, with "
                      "transformers.convert_slow_tokenizer or the model page's own script, and put tokenizer.json "
                      "beside it",
                      model_folder, other);
  }
  return text;
}

Result<Handle> parse_tokenizer(std::string_view json, const std::string& path, int vocab_size) {
  RETURN_IF_ERROR(check_json(json, path));
  if (json.starts_with("\xef\xbb\xbf")) json.remove_prefix(3);
  cachalot_tokenizer* handle = nullptr;
  std::string error;
  const cachalot_text_status status =
      cachalot_tokenizer_new(as_view(json), static_cast<uint32_t>(vocab_size), &handle, sink_into(error));
  RETURN_IF_ERROR(to_status(status, path, error));
  return Handle(handle);
}

Result<std::vector<TokenId>> encode_with(const cachalot_tokenizer* handle, std::string_view text, bool post_process) {
  std::vector<TokenId> ids;
  const cachalot_ids_sink sink = {&ids, [](void* context, const uint32_t* values, size_t num_ids) {
                                    static_cast<std::vector<TokenId>*>(context)->assign(values, values + num_ids);
                                  }};
  std::string error;
  const cachalot_text_status status =
      cachalot_tokenizer_encode(handle, as_view(text), post_process ? 1 : 0, sink, sink_into(error));
  RETURN_IF_ERROR(to_status(status, "cannot tokenize", error));
  return ids;
}

Result<TokenTable> read_table(const cachalot_tokenizer* handle, const std::string& path) {
  TokenTable table;
  const cachalot_token_visitor visitor = {
      &table, [](void* context, uint32_t id, cachalot_text_view bytes, int is_special) {
        static_cast<TokenTable*>(context)->append(id, {bytes.data, bytes.size}, is_special != 0);
      }};
  std::string error;
  const cachalot_text_status status = cachalot_tokenizer_visit_tokens(handle, visitor, sink_into(error));
  RETURN_IF_ERROR(to_status(status, path, error));
  return table;
}

std::optional<TokenId> find_token(const cachalot_tokenizer* handle, std::string_view token) {
  const int64_t id = cachalot_tokenizer_token_id(handle, as_view(token));
  return id < 0 ? std::nullopt : std::optional(static_cast<TokenId>(id));
}

}  // namespace

struct Tokenizer::Impl {
  Handle handle;
  TokenTable table;
  TokenizerConfig config;
  std::optional<TokenId> bos_id;
  bool add_bos = false;
  std::vector<std::string> notes;
};

Tokenizer::Tokenizer() : impl_(std::make_unique<Impl>()) {}
Tokenizer::~Tokenizer() = default;

Result<std::unique_ptr<Tokenizer>> Tokenizer::load(const std::string& model_folder, int vocab_size) {
  const std::string path = model_folder + "/tokenizer.json";
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer);
  Impl& impl = *tokenizer->impl_;
  ASSIGN_OR_RETURN(impl.config, load_tokenizer_config(model_folder));
  ASSIGN_OR_RETURN(const std::string json, read_tokenizer_json(model_folder));
  ASSIGN_OR_RETURN(impl.handle, parse_tokenizer(json, path, vocab_size));
  ASSIGN_OR_RETURN(impl.table, read_table(impl.handle.get(), path));
  if (!impl.config.bos_token.empty()) impl.bos_id = find_token(impl.handle.get(), impl.config.bos_token);
  if (impl.config.add_bos_token) {
    impl.add_bos = *impl.config.add_bos_token;
  } else {
    ASSIGN_OR_RETURN(const std::vector<TokenId> added, encode_with(impl.handle.get(), "", true));
    impl.add_bos = impl.bos_id && !added.empty() && added.front() == *impl.bos_id;
  }
  if (impl.add_bos && !impl.bos_id) {
    return make_error(ErrorCode::kCorrupt,
                      "{}/tokenizer_config.json: add_bos_token is true, but bos_token \"{}\" is no token of {}",
                      model_folder, escaped(impl.config.bos_token, 80), path);
  }
  if (impl.table.num_holes > 0)
    impl.notes.push_back(
        fmt::format("{}: {} ids below its largest ({}) are no token, the first is {}; they stand for no text", path,
                    impl.table.num_holes, impl.table.size() - 1, impl.table.first_hole));
  if (const std::string& eos = impl.config.eos_token; !eos.empty() && !find_token(impl.handle.get(), eos))
    impl.notes.push_back(fmt::format("{}/tokenizer_config.json: eos_token {} is no token of {}, and ends no answer",
                                     model_folder, cachalot::quoted(eos, 80), path));
  return tokenizer;
}

Result<std::vector<TokenId>> Tokenizer::encode(std::string_view text, bool add_bos) const {
  ASSIGN_OR_RETURN(std::vector<TokenId> ids, encode_with(impl_->handle.get(), text, false));
  const bool has_bos = !ids.empty() && impl_->bos_id == ids.front();
  if (add_bos && impl_->add_bos && !has_bos) ids.insert(ids.begin(), *impl_->bos_id);
  return ids;
}

std::string_view Tokenizer::token_bytes(TokenId id, bool skip_special) const {
  const TokenTable& table = impl_->table;
  if (id < 0 || id >= table.size() || (skip_special && table.is_special[id])) return {};
  return std::string_view(table.bytes).substr(table.begins[id], table.begins[id + 1] - table.begins[id]);
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special) const {
  std::string bytes;
  for (const TokenId id : ids) bytes += token_bytes(id, skip_special);
  return to_valid_utf8(bytes);
}

bool Tokenizer::is_special(TokenId id) const {
  return id >= 0 && id < impl_->table.size() && impl_->table.is_special[id];
}

std::optional<TokenId> Tokenizer::token_id(std::string_view token) const {
  return find_token(impl_->handle.get(), token);
}

int Tokenizer::vocab_size() const {
  return impl_->table.size();
}
const std::string& Tokenizer::bos_token() const {
  return impl_->config.bos_token;
}
const std::string& Tokenizer::eos_token() const {
  return impl_->config.eos_token;
}
const std::vector<std::string>& Tokenizer::notes() const {
  return impl_->notes;
}
bool Tokenizer::add_bos_token() const {
  return impl_->add_bos;
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
  may_cut_ = !may_change_text_ && cuts_before_lines();
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

Result<std::vector<TokenId>> TextBounds::encode(std::string_view text, bool add_bos) const {
  std::vector<TokenId> tokens;
  do {
    const size_t size = piece_size(text);
    ASSIGN_OR_RETURN(const std::vector<TokenId> piece, tokenizer_.encode(text.substr(0, size), add_bos));
    tokens.insert(tokens.end(), piece.begin(), piece.end());
    text.remove_prefix(size);
    add_bos = false;
  } while (!text.empty());
  return tokens;
}

}  // namespace cachalot
