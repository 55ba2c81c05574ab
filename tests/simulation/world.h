#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"

// A world in one thread: hosts, processes that may be stopped and killed, ordered ways between them that may be slow or
// cut, and a clock that jumps from event to event. All that is left to chance follows from one seed.
namespace cachalot::simulation {

using Duration = std::chrono::nanoseconds;
using Time = std::chrono::time_point<std::chrono::steady_clock, Duration>;
using namespace std::chrono_literals;  // NOLINT(google-build-using-namespace)

// What must never be was.
struct Violation : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) { state_ = next() ^ seed << 32; }
  uint64_t next() {
    uint64_t value = state_ += 0x9e3779b97f4a7c15;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return value ^ (value >> 31);
  }
  int below(int bound) { return static_cast<int>(next() % static_cast<uint64_t>(bound)); }
  int between(int least, int most) { return least + below(most - least + 1); }
  bool one_in(int count) { return below(count) == 0; }
  Duration between(Duration least, Duration most) {
    return least + Duration(static_cast<int64_t>(next() % static_cast<uint64_t>((most - least).count() + 1)));
  }

 private:
  uint64_t state_;
};

// A process: what happens in it waits while it is stopped, and never happens once it is dead.
struct Process {
  int id = 0, host = 0;
  std::string name;
  bool is_alive = true, is_stopped = false;
  bool is_gone = false;                        // with its host: nobody is left who would send again what did not arrive
  std::vector<std::function<void()>> backlog;  // that came while it was stopped
  std::vector<std::function<void(bool is_clean)>> deaths;  // told of its end; not clean: nothing more leaves its host
};
using ProcessPtr = std::shared_ptr<Process>;

class World;

// What one process sends another arrives in order, later; while the way is cut, not before it is mended.
class Way : public std::enable_shared_from_this<Way> {
 public:
  Way(World& world, ProcessPtr from, ProcessPtr to) : world_(world), from_(std::move(from)), to_(std::move(to)) {}
  // `arrive` happens in the receiver, `lost` in the sender if the receiver is dead by then. more: beyond the usual
  // delay.
  void send(std::function<void()> arrive, std::function<void()> lost = {}, Duration more = {});
  size_t num_under_way() const { return under_way_.size(); }
  std::optional<Time> oldest() const {
    return under_way_.empty() ? std::nullopt : std::optional(under_way_.front().sent);
  }

 private:
  struct Letter {
    Time sent, ready;
    std::function<void()> arrive, lost;
  };
  void deliver();

  World& world_;
  const ProcessPtr from_, to_;
  std::deque<Letter> under_way_;
};

// A connection's end, as of TCP. Its events come in its process.
class Stream : public std::enable_shared_from_this<Stream> {
 public:
  std::function<void(std::string)> on_message;
  std::function<void(const std::string& why)> on_closed;  // once, unless close() came before; "": by the peer

  void send(std::string message, Duration more_delay = {});
  void shut_down();  // the peer hears the end behind what was sent
  void close();
  void set_send_timeout(Duration timeout) { send_timeout_ = timeout; }
  bool has_ended() const { return has_ended_; }
  size_t num_unsent() const { return way_->num_under_way(); }
  int peer_host() const { return peer_host_; }

 private:
  friend class World;
  void end(const std::string& why);
  void forget_later();

  World* world_ = nullptr;
  ProcessPtr process_;
  std::shared_ptr<Way> way_;
  std::weak_ptr<Stream> peer_;
  int peer_host_ = 0;
  Duration send_timeout_ = 1h;
  bool has_ended_ = false, is_shut_down_ = false;
};
using StreamPtr = std::shared_ptr<Stream>;

class World {
 public:
  explicit World(uint64_t seed) : random_(seed) {}
  ~World();

  Time now() const { return now_; }
  Random& random() { return random_; }
  // Nothing that was to happen will: for whoever goes before the world does.
  void forget_all();
  // Until then, or until nothing happens any more.
  void run_until(Time end);
  uint64_t num_events() const { return num_events_; }

  // `what` happens in that process, if it lives then; with none, outside of all.
  void at(Time time, ProcessPtr process, std::function<void()> what);
  void after(Duration delay, ProcessPtr process, std::function<void()> what) {
    at(now_ + delay, std::move(process), std::move(what));
  }

  ProcessPtr start_process(int host, std::string name);
  const ProcessPtr& process(int id) const { return processes_.at(static_cast<size_t>(id)); }
  // is_clean: the system closes its connections; else its host is gone.
  void kill(const ProcessPtr& process, bool is_clean = true);
  void stop(const ProcessPtr& process);
  void wake(const ProcessPtr& process);

  // What goes from one host to the other. Cuts are counted.
  void cut(int from, int to);
  void mend(int from, int to);
  bool is_cut(int from, int to) const { return cuts_.contains({from, to}); }

  void listen(const ProcessPtr& process, int port, std::function<void(StreamPtr)> taken);
  void connect(const ProcessPtr& process, int host, int port, Duration timeout,
               std::function<void(Result<StreamPtr>)> connected);
  // Breaks one of the connections that there are.
  void break_a_connection();

  // A line of the history.
  template <class... Args>
  void note(fmt::format_string<Args...> format, Args&&... args) {
    if (keeps_history_) add_line(fmt::format(format, std::forward<Args>(args)...));
  }
  void keep_history() { keeps_history_ = true; }
  const std::deque<std::string>& history() const { return history_; }

 private:
  friend class Way;
  friend class Stream;
  struct Event {
    Time time;
    uint64_t order;
    ProcessPtr process;
    std::function<void()> what;
    bool operator>(const Event& other) const { return std::pair(time, order) > std::pair(other.time, other.order); }
  };
  struct Listener {
    ProcessPtr process;
    std::function<void(StreamPtr)> taken;
  };
  Duration delay(int from, int to);
  std::pair<StreamPtr, StreamPtr> make_streams(const ProcessPtr& here, const ProcessPtr& there);
  void add_line(std::string line);

  Random random_;
  Time now_{1000s};
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  uint64_t num_events_ = 0, num_at_once_ = 0, num_ordered_ = 0;
  std::vector<ProcessPtr> processes_;
  std::map<std::pair<int, int>, int> cuts_;
  std::map<std::pair<int, int>, std::vector<std::function<void()>>> waiting_for_mend_;
  std::map<std::pair<int, int>, Listener> listeners_;  // by host and port
  std::vector<std::weak_ptr<Stream>> streams_;
  bool keeps_history_ = false;
  std::deque<std::string> history_;
};

}  // namespace cachalot::simulation
