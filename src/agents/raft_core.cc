#include "agents/raft_core.h"

#include <utility>

#include "base/error.h"

namespace {

thread_local const std::function<uint64_t()>* random_now = nullptr;

}  // namespace

// In place of the C library's generator, by third_party/raft/CMakeLists.txt.
extern "C" int cachalot_raft_chance() {
  CHECK(random_now, "the log's core asks for chance outside of a call");
  return static_cast<int>((*random_now)() >> 33);
}

namespace cachalot::agents {

RaftChance::RaftChance(const std::function<uint64_t()>& random) {
  CHECK(!std::exchange(random_now, &random), "a call into the log's core within another");
}
RaftChance::~RaftChance() {
  random_now = nullptr;
}

}  // namespace cachalot::agents
