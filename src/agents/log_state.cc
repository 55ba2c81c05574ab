#include "agents/log_state.h"

#define XXH_INLINE_ALL  // header only
#include <xxhash.h>

#include "comm/membership/wire.h"

namespace cachalot::agents {

namespace {

constexpr uint32_t kMagic = 0x53484343;  // "CCHS"
constexpr uint16_t kVersion = 1;
constexpr size_t kHeaderBytes = 20;

}  // namespace

std::string encode_state(const LogState& state) {
  const std::string body = control::encode(state);
  control::Writer header;
  header(kMagic, kVersion, uint16_t{0}, static_cast<uint32_t>(body.size()), XXH3_64bits(body.data(), body.size()));
  return header.take() + body;
}

Result<LogState> decode_state(std::string_view bytes) {
  control::Reader reader(bytes.substr(0, kHeaderBytes));
  uint32_t magic = 0, length = 0;
  uint16_t version = 0, reserved = 0;
  uint64_t hash = 0;
  reader(magic, version, reserved, length, hash);
  if (!reader.complete() || magic != kMagic) return make_error(ErrorCode::kCorrupt, "it is no agent's state");
  if (version != kVersion) {
    return make_error(ErrorCode::kUnsupported, "another version of Cachalot wrote it (format {}; this one has {})",
                      version, kVersion);
  }
  const std::string_view body = bytes.substr(kHeaderBytes);
  if (body.size() != length || XXH3_64bits(body.data(), body.size()) != hash)
    return make_error(ErrorCode::kCorrupt, "it is damaged: {} bytes, which do not have their checksum", bytes.size());
  return control::decode<LogState>(body);
}

}  // namespace cachalot::agents
