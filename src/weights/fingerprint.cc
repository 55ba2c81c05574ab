#include "weights/fingerprint.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <memory>

#include "base/file.h"

namespace cachalot {
namespace {

constexpr size_t kPageBytes = 4096;

class Hasher {
 public:
  Hasher() : state_(XXH3_createState(), XXH3_freeState) { XXH3_128bits_reset(state_.get()); }

  // Length first, so that no two lists of parts give the same stream.
  void add(std::span<const std::byte> part) {
    const uint64_t size = part.size();
    XXH3_128bits_update(state_.get(), &size, sizeof size);
    XXH3_128bits_update(state_.get(), part.data(), part.size());
  }
  std::string hex() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
    return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
  }

 private:
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state_;
};

// In pieces, whose pages are let go of behind them: a checkpoint is larger than memory.
void add_whole(Hasher& hasher, const MappedFile& file, std::span<const std::byte> data) {
  constexpr size_t kPiece = size_t{64} << 20;
  for (size_t begin = 0; begin < data.size(); begin += kPiece) {
    const std::span<const std::byte> piece = data.subspan(begin, std::min(kPiece, data.size() - begin));
    file.prefetch(piece);
    hasher.add(piece);
    file.drop(piece);
  }
}

void add_samples(Hasher& hasher, std::span<const std::byte> data) {
  const size_t stride = std::max(data.size() / kSampledPages, kPageBytes);
  for (size_t begin = 0; begin < data.size(); begin += stride)
    hasher.add(data.subspan(begin, std::min(kPageBytes, data.size() - begin)));
}

}  // namespace

Result<std::string> fingerprint_of(const Checkpoint& checkpoint, FingerprintDepth depth) {
  Hasher hasher;
  ASSIGN_OR_RETURN(const std::string config, read_file(checkpoint.folder() + "/config.json"));
  hasher.add(std::as_bytes(std::span(config)));
  for (const SafetensorsFile& file : checkpoint.files()) {
    hasher.add(file.header());
    const std::span<const std::byte> bytes = file.mapping().bytes();
    const uint64_t size = bytes.size();
    hasher.add(std::as_bytes(std::span(&size, 1)));
    const std::span<const std::byte> data = bytes.subspan(file.header().size());
    if (depth == FingerprintDepth::kWhole) {
      add_whole(hasher, file.mapping(), data);
    } else {
      add_samples(hasher, data);
    }
  }
  return hasher.hex();
}

}  // namespace cachalot
