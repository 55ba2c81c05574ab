#include "comm/mesh.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "base/error.h"

namespace cachalot {

namespace {

void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

Result<std::unique_ptr<Mesh>> Mesh::create(MeshOptions options, std::vector<std::unique_ptr<Transport>> transports) {
  CHECK(options.rank >= 0 && options.rank < options.size);
  CHECK(options.rank_names.empty() || static_cast<int>(options.rank_names.size()) == options.size);
  for (int rank = static_cast<int>(options.rank_names.size()); rank < options.size; rank++)
    options.rank_names.push_back(fmt::format("rank {}", rank));

  FileDescriptor wake_fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_fd) return make_error(ErrorCode::kIo, "cannot make an eventfd: {}", std::strerror(errno));
  std::vector<int> living = options.living;
  for (int rank = 0; options.living.empty() && rank < options.size; rank++) living.push_back(rank);
  std::unique_ptr<Mesh> mesh(new Mesh(std::move(options), std::move(wake_fd)));
  RETURN_IF_ERROR(mesh->connect(living, std::move(transports)));
  return mesh;
}

Mesh::Mesh(MeshOptions options, FileDescriptor wake_fd) : options_(std::move(options)), wake_fd_(std::move(wake_fd)) {}

Status Mesh::connect(std::span<const int> living, std::vector<std::unique_ptr<Transport>> transports) {
  transports_ = std::move(transports);
  transport_of_.assign(static_cast<size_t>(size()), nullptr);
  for (const int peer : living) {
    if (peer == rank()) continue;
    const auto found =
        std::ranges::find_if(transports_, [&](const auto& transport) { return transport->connects(peer); });
    if (found == transports_.end())
      return make_error(ErrorCode::kUnavailable, "{}: no transport connects it to {}", rank_name(rank()),
                        rank_name(peer));
    transport_of_[peer] = found->get();
  }
  poll_fds_ = {{.fd = wake_fd_.get(), .events = POLLIN}};
  for (const auto& transport : transports_) poll_fds_.push_back({.fd = transport->event_fd(), .events = POLLIN});
  poll_fds_.push_back({.fd = -1, .events = POLLIN});  // passed over
  return {};
}

Status Mesh::begin_epoch(uint32_t epoch, std::span<const int> living,
                         std::vector<std::unique_ptr<Transport>> transports) {
  past_ = traffic();
  close();
  {
    const std::lock_guard lock(mutex_);
    if (failure_ && !ends_epoch(*failure_)) return std::unexpected(*failure_);
    if (epoch <= over_.first) return std::unexpected(over_.second);
    failure_.reset();
    failed_.store(false);
    options_.epoch = epoch;
  }
  closed_ = false;
  if (const Status connected = connect(living, std::move(transports)); !connected) return fail(connected.error());
  return {};
}

Mesh::~Mesh() {
  close();
}

void Mesh::close() {
  if (std::exchange(closed_, true)) return;
  for (const auto& transport : transports_) transport->close();
}

void Mesh::start(SendOp& op) {
  CHECK(op.peer >= 0 && op.peer < size() && transport_of_[op.peer] != nullptr && !op.done);
  if (!closed_) transport_of_[op.peer]->start(op);
}

void Mesh::start(ReceiveOp& op) {
  CHECK(op.peer >= 0 && op.peer < size() && transport_of_[op.peer] != nullptr && !op.done);
  if (!closed_) transport_of_[op.peer]->start(op);
}

Error Mesh::at_site(const CollectiveSite& site, Error error) const {
  error.message = fmt::format("{}: {}: {}", site.text(), rank_name(rank()), error.message);
  return error;
}

Result<bool> Mesh::move(const CollectiveSite* site) {
  bool moved = false;
  for (const auto& transport : transports_) {
    if (failed_.load()) break;
    Result<bool> result = transport->progress();
    if (!result) fail(site != nullptr ? at_site(*site, std::move(result.error())) : std::move(result.error()));
    moved |= result && *result;
  }
  if (!failed_.load()) return moved;
  close();  // so that ranks that wait for this one wake, too
  return std::unexpected(*failure());
}

Status Mesh::progress() {
  RETURN_IF_ERROR(move(nullptr));
  return {};
}

template <class Done, class Missing>
Status Mesh::wait(Done done, Missing missing, std::span<const ReceiveOp> receives, Board* board,
                  const CollectiveSite& site) {
  const Clock::time_point deadline = Clock::now() + options_.deadline;
  constexpr Clock::time_point kNever = Clock::time_point::max();
  Clock::time_point idle_since = kNever;  // nothing has moved since then
  for (;;) {
    ASSIGN_OR_RETURN(const bool moved, move(&site));
    const bool is_done = done();
    if (idle_since != kNever && (moved || is_done))
      clock_.add_wait(std::exchange(idle_since, kNever), Clock::now(), site.layer);
    if (is_done) return {};
    if (moved) continue;
    const Clock::time_point now = Clock::now();
    idle_since = std::min(idle_since, now);
    if (now < idle_since + options_.spin)
      pause_core();
    else if (now < deadline)
      RETURN_IF_ERROR(sleep(receives, false, board, done, deadline));
    else
      fail(missed_deadline(missing(), site));
  }
}

Status Mesh::wait(std::span<SendOp> sends, std::span<ReceiveOp> receives, const CollectiveSite& site) {
  const auto done = [&] {
    return std::ranges::all_of(sends, &SendOp::done) && std::ranges::all_of(receives, &ReceiveOp::done);
  };
  const auto missing = [&] {
    std::vector<int> ranks;
    for (const SendOp& op : sends)
      if (!op.done) ranks.push_back(op.peer);
    for (const ReceiveOp& op : receives)
      if (!op.done) ranks.push_back(op.peer);
    return ranks;
  };
  return wait(done, missing, receives, nullptr, site);
}

Status Mesh::wait(Board& board, const CollectiveSite& site) {
  const auto done = [&] {
    if (board.is_published()) return true;
    if (Status members = board.check_members(); !members) fail(at_site(site, std::move(members.error())));
    return false;
  };
  return wait(done, [&] { return board.awaited(); }, {}, &board, site);
}

std::unique_ptr<Board> Mesh::make_board(std::span<const int> members) {
  for (const auto& transport : transports_)
    if (std::unique_ptr<Board> board = transport->make_board(members)) return board;
  return nullptr;
}

Result<bool> Mesh::wait_for_any(std::span<ReceiveOp> receives) {
  for (;;) {
    ASSIGN_OR_RETURN(const bool moved, move(nullptr));
    if (std::ranges::any_of(receives, &ReceiveOp::done)) return true;
    if (woken_.exchange(false)) return false;
    if (!moved) RETURN_IF_ERROR(sleep(receives, true, nullptr, [] { return false; }, Clock::time_point::max()));
  }
}

// The order is what loses no wake-up: a transport that has prepared is looked at once more, and a board too, and what
// comes after that look makes its descriptor readable. wake() and fail() write wake_fd_, which stays readable until it
// is read here.
template <class Done>
Status Mesh::sleep(std::span<const ReceiveOp> receives, bool any, Board* board, Done done, Clock::time_point deadline) {
  Status prepared;
  size_t num_prepared = 0;
  for (; num_prepared < transports_.size() && prepared; num_prepared++) {
    transports_[num_prepared]->await(receives, any);
    prepared = transports_[num_prepared]->prepare_sleep();
  }
  if (!prepared) fail(prepared.error());
  poll_fds_.back().fd = board != nullptr ? board->prepare_sleep() : -1;
  const Result<bool> moved = move(nullptr);
  if (moved && !*moved && !done()) poll_until(deadline);
  if (board != nullptr) board->end_sleep();
  for (size_t idx = 0; idx < num_prepared; idx++) transports_[idx]->end_sleep();
  RETURN_IF_ERROR(moved);
  return {};
}

void Mesh::poll_until(Clock::time_point deadline) {
  timespec left{}, *timeout = nullptr;
  if (deadline != Clock::time_point::max()) {
    const auto nanoseconds = std::max<int64_t>((deadline - Clock::now()).count(), 0);
    left = {.tv_sec = nanoseconds / 1'000'000'000, .tv_nsec = nanoseconds % 1'000'000'000};
    timeout = &left;
  }
  // Whatever ends it, a signal too, the caller looks again.
  if (ppoll(poll_fds_.data(), poll_fds_.size(), timeout, nullptr) > 0 && poll_fds_[0].revents != 0) {
    eventfd_t count;
    eventfd_read(wake_fd_.get(), &count);
  }
}

Error Mesh::missed_deadline(std::span<const int> missing, const CollectiveSite& site) const {
  const std::set<int> ranks(missing.begin(), missing.end());
  std::string names;
  for (const int rank : ranks) names += (names.empty() ? "" : ", ") + rank_name(rank);
  return {
      ErrorCode::kDeadlineExceeded,
      fmt::format("{}: {} waited {} ms for {}", site.text(), rank_name(this->rank()), options_.deadline.count(), names),
      {}};
}

void Mesh::wake() {
  woken_.store(true);
  eventfd_write(wake_fd_.get(), 1);
}

std::unexpected<Error> Mesh::fail(Error error) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_ || (ends_epoch(*failure_) && !ends_epoch(error))) failure_ = error;
  }
  failed_.store(true);
  eventfd_write(wake_fd_.get(), 1);
  return std::unexpected(std::move(error));
}

void Mesh::end_epoch(uint32_t epoch, Error error) {
  {
    const std::lock_guard lock(mutex_);
    if (epoch > over_.first) over_ = {epoch, error};
    if (epoch < options_.epoch) return;
    if (!failure_) failure_ = std::move(error);
    failed_.store(true);
  }
  eventfd_write(wake_fd_.get(), 1);
}

void Mesh::abandon() {
  if (!failed_.load())
    fail({ErrorCode::kCancelled, fmt::format("{} has given up what was under way", rank_name(rank())), {}});
  close();
}

std::optional<Error> Mesh::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

std::vector<Mesh::Traffic> Mesh::traffic() const {
  std::vector<Traffic> all = past_;
  for (Traffic& traffic : all) traffic.num_peers = 0;
  for (const auto& transport : transports_) {
    auto traffic = std::ranges::find(all, transport->name(), &Traffic::transport);
    if (traffic == all.end()) traffic = all.insert(all.end(), {.transport = std::string(transport->name())});
    traffic->bytes_sent += transport->bytes_sent();
    traffic->bytes_received += transport->bytes_received();
    traffic->num_peers += static_cast<int>(std::ranges::count(transport_of_, transport.get()));
  }
  return all;
}

std::string_view Mesh::transport_of(int peer) const {
  CHECK(peer >= 0 && peer < size() && transport_of_[peer] != nullptr);
  return transport_of_[peer]->name();
}

}  // namespace cachalot
