// libFuzzer's program: cachalot_fuzz --target=NAME [libFuzzer's own flags] FOLDER...
#include <fmt/format.h>

#include <cstdint>
#include <string_view>

#include "base/log.h"
#include "targets.h"

namespace {

const cachalot::fuzz::Target* target = nullptr;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  cachalot::log::init("off", "");
  constexpr std::string_view kFlag = "--target=";
  for (int i = 1; i < *argc; i++) {
    const std::string_view word = (*argv)[i];
    if (word.starts_with(kFlag)) target = cachalot::fuzz::find_target(word.substr(kFlag.size()));
  }
  if (target != nullptr) return 0;
  fmt::print(stderr, "cachalot_fuzz: --target=NAME, one of:");
  for (const auto& known : cachalot::fuzz::targets()) fmt::print(stderr, " {}", known.name);
  fmt::print(stderr, "\n");
  std::exit(2);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > target->max_bytes) return -1;
  target->run({reinterpret_cast<const char*>(data), size});
  return 0;
}
