#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace cachalot::openai {

// How many requests each client has under way. Thread-safe; places may outlive it.
class ClientPlaces {
 public:
  struct Place {
    std::shared_ptr<const void> held;  // until the request ends
    bool is_alone = false;             // the client has no other
  };

  Place enter(uint64_t client) const {
    const std::lock_guard lock(state_->mutex);
    const bool is_alone = ++state_->num_places[client] == 1;
    return {std::shared_ptr<const void>(state_.get(), [state = state_, client](const void*) { leave(*state, client); }),
            is_alone};
  }

 private:
  struct State {
    std::mutex mutex;
    std::unordered_map<uint64_t, int> num_places;
  };
  static void leave(State& state, uint64_t client) {
    const std::lock_guard lock(state.mutex);
    if (--state.num_places[client] == 0) state.num_places.erase(client);
  }

  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace cachalot::openai
