#include "simulation/world.h"

#include <algorithm>

namespace cachalot::simulation {

namespace {

constexpr size_t kMaxHistory = 20'000;
constexpr uint64_t kMostEventsAtOnce = 1'000'000;

}  // namespace

// --- Time and processes.

World::~World() {
  forget_all();
}

void World::forget_all() {
  for (const auto& weak : streams_)
    if (const StreamPtr stream = weak.lock()) stream->on_message = {}, stream->on_closed = {};
  events_ = {};
  waiting_for_mend_.clear();
  listeners_.clear();
  for (const ProcessPtr& process : processes_) process->deaths.clear(), process->backlog.clear();
}

void World::at(Time time, ProcessPtr process, std::function<void()> what) {
  events_.push({std::max(time, now_), num_ordered_++, std::move(process), std::move(what)});
}

void World::run_until(Time end) {
  while (!events_.empty() && events_.top().time <= end) {
    Event event = std::move(const_cast<Event&>(events_.top()));
    events_.pop();
    num_at_once_ = now_ == event.time ? num_at_once_ + 1 : 0;
    if (num_at_once_ > kMostEventsAtOnce) throw Violation("something goes on for ever, and no time passes");
    now_ = event.time;
    num_events_++;
    if (!event.process) {
      event.what();
    } else if (event.process->is_alive) {
      event.process->is_stopped ? event.process->backlog.push_back(std::move(event.what)) : event.what();
    }
  }
  now_ = std::max(now_, end);
}

ProcessPtr World::start_process(int host, std::string name) {
  processes_.push_back(std::make_shared<Process>(
      Process{.id = static_cast<int>(processes_.size()), .host = host, .name = std::move(name)}));
  return processes_.back();
}

void World::kill(const ProcessPtr& process, bool is_clean) {
  if (!std::exchange(process->is_alive, false)) return;
  note("{} ends", process->name);
  process->is_gone = !is_clean;
  process->backlog.clear();
  for (const auto& death : std::exchange(process->deaths, {})) death(is_clean);
}

void World::stop(const ProcessPtr& process) {
  process->is_stopped = true;
}

void World::wake(const ProcessPtr& process) {
  process->is_stopped = false;
  for (auto& what : std::exchange(process->backlog, {})) at(now_, process, std::move(what));
}

// --- Ways.

Duration World::delay(int from, int to) {
  const Duration usual = from == to ? random_.between(5us, 50us) : random_.between(50us, 500us);
  return random_.one_in(500) ? usual + random_.between(1ms, 40ms) : usual;
}

void World::cut(int from, int to) {
  cuts_[{from, to}]++;
}

void World::mend(int from, int to) {
  const auto found = cuts_.find({from, to});
  if (--found->second > 0) return;
  cuts_.erase(found);
  for (auto& what : std::exchange(waiting_for_mend_[{from, to}], {})) what();
}

void Way::send(std::function<void()> arrive, std::function<void()> lost, Duration more) {
  Time ready = world_.now() + world_.delay(from_->host, to_->host) + more;
  if (!under_way_.empty()) ready = std::max(ready, under_way_.back().ready);
  under_way_.push_back({world_.now(), ready, std::move(arrive), std::move(lost)});
  if (under_way_.size() == 1) world_.at(ready, nullptr, [self = shared_from_this()] { self->deliver(); });
}

void Way::deliver() {
  if (world_.is_cut(from_->host, to_->host)) {
    world_.waiting_for_mend_[{from_->host, to_->host}].push_back([self = shared_from_this()] {
      if (self->from_->is_gone) return self->under_way_.clear();
      // TCP tries again after a while.
      self->world_.after(self->world_.random_.between(1ms, 300ms), nullptr, [self] { self->deliver(); });
    });
    return;
  }
  Letter letter = std::move(under_way_.front());
  under_way_.pop_front();
  if (to_->is_alive)
    world_.at(world_.now(), to_, std::move(letter.arrive));
  else if (letter.lost)
    world_.after(world_.delay(to_->host, from_->host), from_, std::move(letter.lost));
  if (!under_way_.empty())
    world_.at(under_way_.front().ready, nullptr, [self = shared_from_this()] { self->deliver(); });
}

// --- Connections.

std::pair<StreamPtr, StreamPtr> World::make_streams(const ProcessPtr& here, const ProcessPtr& there) {
  const auto make = [this](const ProcessPtr& own, const ProcessPtr& other) {
    auto stream = std::make_shared<Stream>();
    stream->world_ = this;
    stream->process_ = own;
    stream->way_ = std::make_shared<Way>(*this, own, other);
    stream->peer_host_ = other->host;
    own->deaths.push_back([weak = std::weak_ptr(stream)](bool is_clean) {
      const StreamPtr ending = weak.lock();
      if (!ending) return;
      if (is_clean) return ending->close();
      ending->has_ended_ = true;
      ending->forget_later();
    });
    std::erase_if(streams_, [](const std::weak_ptr<Stream>& old) { return old.expired(); });
    streams_.push_back(stream);
    return stream;
  };
  auto streams = std::pair(make(here, there), make(there, here));
  streams.first->peer_ = streams.second;
  streams.second->peer_ = streams.first;
  return streams;
}

void World::listen(const ProcessPtr& process, int port, std::function<void(StreamPtr)> taken) {
  listeners_[{process->host, port}] = {process, std::move(taken)};
}

void World::connect(const ProcessPtr& process, int host, int port, Duration timeout,
                    std::function<void(Result<StreamPtr>)> connected) {
  const auto fail = [connected](const std::string& why) {
    connected(std::unexpected(Error{ErrorCode::kUnavailable, why, {}}));
  };
  if (is_cut(process->host, host) || is_cut(host, process->host))
    return after(timeout, process, [fail] { fail("no answer in time"); });
  const auto found = listeners_.find({host, port});
  const Duration there = delay(process->host, host), back = delay(host, process->host);
  if (found == listeners_.end() || !found->second.process->is_alive)
    return after(there + back, process, [fail] { fail("Connection refused"); });
  const Listener& listener = found->second;
  auto [near, far] = make_streams(process, listener.process);
  // In this order, so that whoever hears of it has said how it listens before the first message.
  after(there + back, process,
        [connected, near = near, fail] { near->has_ended() ? fail("Connection reset by peer") : connected(near); });
  after(there + back, listener.process, [taken = listener.taken, far = far] { taken(far); });
}

void World::break_a_connection() {
  std::vector<StreamPtr> alive;
  for (const auto& weak : streams_)
    if (StreamPtr stream = weak.lock(); stream && !stream->has_ended() && stream->process_->is_alive)
      alive.push_back(std::move(stream));
  if (alive.empty()) return;
  const StreamPtr chosen = alive[static_cast<size_t>(random_.below(static_cast<int>(alive.size())))];
  note("a connection of {} breaks", chosen->process_->name);
  for (const StreamPtr& end : {chosen, chosen->peer_.lock()})
    if (end) at(now_, end->process_, [end] { end->end("Connection reset by peer"); });
}

void Stream::send(std::string message, Duration more_delay) {
  if (has_ended_ || is_shut_down_) return;
  const auto self = shared_from_this();
  way_->send(
      [weak = peer_, message = std::move(message)]() mutable {
        if (const StreamPtr peer = weak.lock(); peer && !peer->has_ended_ && peer->on_message)
          peer->on_message(std::move(message));
      },
      [self] { self->end("Connection reset by peer"); }, more_delay);
  if (send_timeout_ < 1h) {
    world_->after(send_timeout_, process_, [self] {
      const auto oldest = self->way_->oldest();
      if (oldest && self->world_->now() - *oldest >= self->send_timeout_) self->end("Connection timed out");
    });
  }
}

void Stream::shut_down() {
  if (has_ended_ || std::exchange(is_shut_down_, true)) return;
  way_->send([weak = peer_] {
    if (const StreamPtr peer = weak.lock()) peer->end("");
  });
}

void Stream::close() {
  shut_down();
  has_ended_ = true;
  forget_later();
}

// What they hold may hold this, and one of them may have called.
void Stream::forget_later() {
  world_->at(world_->now(), nullptr, [self = shared_from_this()] { self->on_message = {}, self->on_closed = {}; });
}

void Stream::end(const std::string& why) {
  if (has_ended_) return;
  const auto closed = on_closed;
  close();
  if (closed) closed(why);
}

void World::add_line(std::string line) {
  const double seconds = std::chrono::duration<double>(now_.time_since_epoch()).count() - 1000;
  history_.push_back(fmt::format("{:10.4f}  {}", seconds, line));
  if (history_.size() > kMaxHistory) history_.pop_front();
}

}  // namespace cachalot::simulation
