#include "comm/ucx/ucx_transport.h"

#include <poll.h>
#include <sys/syscall.h>
#include <ucs/config/global_opts.h>
#include <ucs/debug/debug.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <deque>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "comm/membership/member.h"

namespace cachalot {

namespace {

using Config = std::unique_ptr<ucp_config_t, decltype([](ucp_config_t* config) { ucp_config_release(config); })>;

std::unexpected<Error> ucx_error(ErrorCode code, std::string_view what, ucs_status_t status) {
  return make_error(code, "UCX: {}: {}", what, ucs_status_string(status));
}

// UCX prints faults of connections by itself; here they are errors, which are told once. A level that the user has
// asked for (UCX_LOG_LEVEL) stays.
void quiet_ucx() {
  std::array<char, 32> level{};
  if (log::shows(log::Level::kDebug) || ucs_global_opts_get_value("LOG_LEVEL", level.data(), level.size()) != UCS_OK)
    return;
  if (std::string_view(level.data()) == "WARN") ucs_global_opts_set_value("LOG_LEVEL", "FATAL");
}

// As the kernel has it on these machines.
struct KernelAction {
  void* handler;
  unsigned long flags;
  void* restorer;
  unsigned long mask;
};
KernelAction hangup_action;
unsigned long mask_before;

// Before any library is loaded: what UCX takes SIGHUP from, nohup's decision for one. And one that comes while UCX is
// loaded waits: its handler crashes until that is done. Nothing but system calls yet.
void note_hangup_action(int, char**, char**) {
  syscall(SYS_rt_sigaction, SIGHUP, nullptr, &hangup_action, sizeof hangup_action.mask);
  constexpr unsigned long kHangup = 1UL << (SIGHUP - 1);
  syscall(SYS_rt_sigprocmask, SIG_BLOCK, &kHangup, &mask_before, sizeof mask_before);
}
[[gnu::section(".preinit_array"), gnu::used]] void (*const note_hangup_action_first)(int, char**,
                                                                                     char**) = note_hangup_action;

// UCX, once loaded, catches SIGHUP for a debugger, and signals of crashes, for which it prints a trace of its own. They
// are none of its business, unless the user has chosen what it does (UCX_DEBUG_SIGNO, UCX_HANDLE_ERRORS). Runs when the
// program is loaded, after UCX.
[[gnu::constructor]] void give_back_signals() {
  if (std::getenv("UCX_DEBUG_SIGNO") == nullptr)
    ::signal(SIGHUP, hangup_action.handler == reinterpret_cast<void*>(SIG_IGN) ? SIG_IGN : SIG_DFL);
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask_before, nullptr, sizeof mask_before);
  std::array<char, 64> handling{};
  if (ucs_global_opts_get_value("HANDLE_ERRORS", handling.data(), handling.size()) != UCS_OK ||
      std::string_view(handling.data()) != "bt")
    return;
  for (unsigned idx = 0; idx < ucs_global_opts.error_signals.count; idx++)
    ucs_debug_disable_signal(ucs_global_opts.error_signals.signals[idx]);
}

Result<Config> make_config(const std::vector<UcxSetting>& settings) {
  ucp_config_t* read = nullptr;
  if (const ucs_status_t status = ucp_config_read(nullptr, nullptr, &read); status != UCS_OK)
    return ucx_error(ErrorCode::kInvalidArgument, "a UCX_ variable of the environment makes no sense", status);
  Config config(read);
  for (const auto& [key, value] : settings)
    if (const ucs_status_t status = ucp_config_modify(config.get(), key.c_str(), value.c_str()); status != UCS_OK)
      return make_error(ErrorCode::kInvalidArgument, "UCX does not take UCX_{}={}: {}", key, value,
                        ucs_status_string(status));
  return config;
}

}  // namespace

Result<std::unique_ptr<UcxWorker>> UcxWorker::create(const std::vector<UcxSetting>& settings) {
  quiet_ucx();
  ASSIGN_OR_RETURN(const Config config, make_config(settings));
  std::unique_ptr<UcxWorker> made(new UcxWorker);
  const ucp_params_t params{.field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_TAG | UCP_FEATURE_WAKEUP};
  if (const ucs_status_t status = ucp_init(&params, config.get(), &made->context_); status != UCS_OK)
    return ucx_error(ErrorCode::kUnavailable, "it finds no way to other hosts with these settings", status);
  const ucp_worker_params_t worker_params{.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                          .thread_mode = UCS_THREAD_MODE_SERIALIZED};
  if (const ucs_status_t status = ucp_worker_create(made->context_, &worker_params, &made->worker_); status != UCS_OK)
    return ucx_error(ErrorCode::kUnavailable, "cannot make a worker", status);
  if (const ucs_status_t status = ucp_worker_get_efd(made->worker_, &made->event_fd_); status != UCS_OK)
    return ucx_error(ErrorCode::kUnsupported, "its transports cannot wake a sleeper", status);
  return made;
}

UcxWorker::~UcxWorker() {
  if (worker_ != nullptr) ucp_worker_destroy(worker_);
  if (context_ != nullptr) ucp_cleanup(context_);
}

Result<std::string> UcxWorker::address() const {
  ucp_address_t* bytes = nullptr;
  size_t size = 0;
  if (const ucs_status_t status = ucp_worker_get_address(worker_, &bytes, &size); status != UCS_OK)
    return ucx_error(ErrorCode::kUnavailable, "a worker has no address", status);
  std::string address(reinterpret_cast<const char*>(bytes), size);
  ucp_worker_release_address(worker_, bytes);
  return address;
}

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr ucp_tag_t kHelloTag = ucp_tag_t{1} << 63;
constexpr ucp_tag_t kWholeTag = ~ucp_tag_t{0};
constexpr int kMaxRanks = 1 << 16;

// How long close() waits for peers to take what was sent to them, where all went well and where not, and then for UCX
// to let go.
constexpr milliseconds kFlushTime{500}, kFlushTimeAfterFaults{20}, kCloseTime{1000};

struct Hello {
  static constexpr uint32_t kVersion = 1;
  uint32_t version = kVersion;
  int32_t rank = -1;
  uint64_t epoch = 0;
};

constexpr uint32_t kOpFields = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_MEMORY_TYPE;

// Messages over UCX's tag matching. A tag is
//
//   63      62 ... 48        47 ... 32   31 ... 0
//   hello   epoch % 2^15     source      sequence number of the pair
//
// so that a receive takes the message that it stands for, however UCX orders them, and nothing of another epoch. Before
// the first message each rank sends each peer a hello, whose tag bears no epoch: the peer's word about its own.
class UcxTransport : public Transport {
 public:
  UcxTransport(std::unique_ptr<UcxWorker> worker, int rank, uint64_t epoch)
      : worker_(std::move(worker)), rank_(rank), epoch_(epoch) {
    CHECK(rank >= 0 && rank < kMaxRanks);
  }

  ~UcxTransport() override { close(); }

  std::string_view name() const override { return "ucx"; }
  bool connects(int peer) const override { return link_of(peer) != nullptr; }
  int event_fd() const override { return worker_->event_fd(); }
  void end_sleep() override {}

  Status add_peer(int rank, std::string_view worker_address) {
    CHECK(rank >= 0 && rank < kMaxRanks && rank != rank_ && !connects(rank));
    auto link = std::make_unique<Link>(Link{.rank = rank});
    const ucp_ep_params_t params{
        .field_mask =
            UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER,
        .address = reinterpret_cast<const ucp_address_t*>(worker_address.data()),
        .err_mode = UCP_ERR_HANDLING_MODE_PEER,
        .err_handler = {.cb = on_fault, .arg = link.get()},
    };
    if (const ucs_status_t status = ucp_ep_create(worker_->handle(), &params, &link->ep); status != UCS_OK)
      return make_error(ErrorCode::kUnavailable, "rank {} (ucx): cannot connect: {}", rank, ucs_status_string(status));
    link_of_.resize(std::max(link_of_.size(), static_cast<size_t>(rank) + 1));
    link_of_[rank] = link.get();
    links_.push_back(std::move(link));
    return {};
  }

  Status greet_peers(milliseconds deadline, const std::stop_token& stop) {
    const Hello own{.rank = rank_, .epoch = epoch_};
    std::vector<Hello> hellos(links_.size());
    std::vector<SendOp> sends(links_.size());
    std::vector<ReceiveOp> receives(links_.size());
    const auto hello_tag = [](int source) { return kHelloTag | static_cast<ucp_tag_t>(source) << 32; };
    for (size_t idx = 0; idx < links_.size(); idx++) {
      const int peer = links_[idx]->rank;
      receives[idx] = {.peer = peer, .buffer = std::as_writable_bytes(std::span(&hellos[idx], 1))};
      sends[idx] = {.peer = peer, .data = std::as_bytes(std::span(&own, 1))};
      receive(receives[idx], hello_tag(peer));
      send(sends[idx], hello_tag(rank_));
    }
    if (Status status = wait_for_hellos(sends, receives, deadline, stop); !status) {
      close();  // the operations end here
      return status;
    }
    for (size_t idx = 0; idx < links_.size(); idx++) {
      const Hello& hello = hellos[idx];
      const int peer = links_[idx]->rank;
      if (receives[idx].size != sizeof(Hello) || hello.version != Hello::kVersion)
        return make_error(ErrorCode::kUnsupported, "rank {} (ucx): its greeting has version {}, this rank's {}", peer,
                          hello.version, Hello::kVersion);
      if (hello.rank != peer || hello.epoch != epoch_)
        return make_error(ErrorCode::kUnavailable,
                          "rank {} (ucx): rank {} of epoch {} answers, in this rank's epoch {}", peer, hello.rank,
                          hello.epoch, epoch_);
    }
    return {};
  }

  void start(SendOp& op) override {
    Link* link = link_of(op.peer);
    CHECK(link != nullptr, "rank {} is no peer over ucx", op.peer);
    send(op, tag(rank_, link->num_sent++));
  }

  void start(ReceiveOp& op) override {
    Link* link = link_of(op.peer);
    CHECK(link != nullptr, "rank {} is no peer over ucx", op.peer);
    receive(op, tag(op.peer, link->num_received++));
  }

  Result<bool> progress() override {
    bool moved = std::exchange(must_look_, false);
    moved |= ucp_worker_progress(worker_->handle()) != 0;
    for (const auto& link : links_)
      if (link->fault && link->num_sending + link->num_receiving > 0) return std::unexpected(*link->fault);
    return moved;
  }

  // From a successful arm on, whatever comes makes the descriptor readable, also if progress() takes it before poll().
  Status prepare_sleep() override {
    const ucs_status_t status = ucp_worker_arm(worker_->handle());
    must_look_ = status == UCS_ERR_BUSY;
    if (status != UCS_OK && status != UCS_ERR_BUSY)
      return make_error(ErrorCode::kIo, "ucx: cannot wait for events: {}", ucs_status_string(status));
    return {};
  }

  void close() override {
    if (std::exchange(closed_, true)) return;
    const ucp_request_param_t flush{}, force{.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS, .flags = UCP_EP_CLOSE_FLAG_FORCE};
    std::vector<void*> requests;
    // Sends that are done may still be in UCX's own buffers. A peer that computes takes its time; one that is stopped
    // must not keep the others from learning that this rank has gone.
    bool all_well = true;
    for (const auto& link : links_) {
      const bool well = !link->fault && link->num_sending == 0;
      if (well) requests.push_back(ucp_ep_flush_nbx(link->ep, &flush));
      all_well = all_well && well && link->num_receiving == 0;
    }
    await_requests(requests, all_well ? kFlushTime : kFlushTimeAfterFaults);
    for (Flight& flight : flights_)
      if (flight.receive != nullptr) ucp_request_cancel(worker_->handle(), flight.request);
    for (const auto& link : links_) requests.push_back(ucp_ep_close_nbx(link->ep, &force));
    await_requests(requests, kCloseTime);
    worker_.reset();
  }

 private:
  struct Link {
    int rank = -1;
    ucp_ep_h ep = nullptr;
    uint32_t num_sent = 0, num_received = 0;  // started: the next one's sequence number
    int num_sending = 0, num_receiving = 0;   // under way
    std::optional<Error> fault = {};          // why nothing more will come or go
  };
  // What UCX has of an operation until it has completed.
  struct Flight {
    UcxTransport* transport = nullptr;
    Link* link = nullptr;
    SendOp* send = nullptr;
    ReceiveOp* receive = nullptr;
    void* request = nullptr;  // UCX's
  };

  Link* link_of(int peer) const { return peer < static_cast<int>(link_of_.size()) ? link_of_[peer] : nullptr; }

  ucp_tag_t tag(int source, uint32_t sequence) const {
    return (epoch_ & 0x7fff) << 48 | static_cast<ucp_tag_t>(source) << 32 | sequence;
  }

  void send(SendOp& op, ucp_tag_t tag) {
    Link& link = *link_of(op.peer);
    link.num_sending++;
    if (link.fault) return;  // progress() tells it
    Flight& flight = take_flight(link);
    flight.send = &op;
    const ucp_request_param_t param{
        .op_attr_mask = kOpFields, .cb = {.send = on_sent}, .user_data = &flight, .memory_type = UCS_MEMORY_TYPE_HOST};
    flight.request = ucp_tag_send_nbx(link.ep, op.data.data(), op.data.size(), tag, &param);
    if (UCS_PTR_IS_PTR(flight.request)) return;
    const ucs_status_t status = UCS_PTR_STATUS(flight.request);
    land(flight);
    finish(op, link, status);
  }

  void receive(ReceiveOp& op, ucp_tag_t tag) {
    Link& link = *link_of(op.peer);
    link.num_receiving++;
    Flight& flight = take_flight(link);
    flight.receive = &op;
    // UCX 1.13 tells the size of a message that is there already only to the callback.
    const ucp_request_param_t param{.op_attr_mask = kOpFields | UCP_OP_ATTR_FLAG_NO_IMM_CMPL,
                                    .cb = {.recv = on_received},
                                    .user_data = &flight,
                                    .memory_type = UCS_MEMORY_TYPE_HOST};
    void* request = ucp_tag_recv_nbx(worker_->handle(), op.buffer.data(), op.buffer.size(), tag, kWholeTag, &param);
    if (UCS_PTR_IS_ERR(request)) {
      land(flight);
      finish(op, link, UCS_PTR_STATUS(request), 0);
    } else if (flight.receive == nullptr) {  // landed in the callback
      ucp_request_free(request);
    } else {
      flight.request = request;
    }
  }

  // What is found first is what is told.
  static void fail(Link& link, ErrorCode code, std::string_view cause) {
    if (!link.fault) link.fault = Error{code, fmt::format("rank {} (ucx): {}", link.rank, cause), {}};
  }

  void finish(SendOp& op, Link& link, ucs_status_t status) {
    if (status != UCS_OK) return on_fault(&link, link.ep, status);
    link.num_sending--;
    bytes_sent_ += op.data.size();
    op.done = true;
  }

  void finish(ReceiveOp& op, Link& link, ucs_status_t status, size_t size) {
    if (status == UCS_ERR_MESSAGE_TRUNCATED)
      return fail(link, ErrorCode::kCorrupt,
                  fmt::format("a message came that is longer than the {} bytes expected", op.buffer.size()));
    if (status != UCS_OK) return on_fault(&link, link.ep, status);
    link.num_receiving--;
    bytes_received_ += size;
    op.size = size;
    op.done = true;
  }

  Flight& take_flight(Link& link) {
    if (free_flights_.empty()) {
      free_flights_.push_back(&flights_.emplace_back());
      free_flights_.reserve(flights_.size());  // so that land() does not allocate
    }
    Flight& flight = *free_flights_.back();
    free_flights_.pop_back();
    flight = {.transport = this, .link = &link};
    return flight;
  }

  void land(Flight& flight) {
    flight = {};
    free_flights_.push_back(&flight);
  }

  // The callbacks come within ucp_worker_progress(), or within receive(), which then frees the request itself; or
  // within close(), when the operations are the caller's again and must not be touched.
  static void on_sent(void* request, ucs_status_t status, void* user_data) {
    const Flight flight = *static_cast<Flight*>(user_data);
    flight.transport->land(*static_cast<Flight*>(user_data));
    ucp_request_free(request);
    if (!flight.transport->closed_) flight.transport->finish(*flight.send, *flight.link, status);
  }

  static void on_received(void* request, ucs_status_t status, const ucp_tag_recv_info_t* info, void* user_data) {
    const Flight flight = *static_cast<Flight*>(user_data);
    flight.transport->land(*static_cast<Flight*>(user_data));
    if (flight.request != nullptr) ucp_request_free(request);
    if (!flight.transport->closed_) flight.transport->finish(*flight.receive, *flight.link, status, info->length);
  }

  static void on_fault(void* user_data, ucp_ep_h /*ep*/, ucs_status_t status) {
    fail(*static_cast<Link*>(user_data), ErrorCode::kUnavailable,
         fmt::format("the connection is lost: {}", ucs_status_string(status)));
  }

  Status wait_for_hellos(std::span<const SendOp> sends, std::span<const ReceiveOp> receives, milliseconds deadline,
                         const std::stop_token& stop) {
    constexpr milliseconds kLongestSleep{20};  // until a stop is seen
    const Clock::time_point end = Clock::now() + deadline;
    for (;;) {
      RETURN_IF_ERROR(prepare_sleep());
      ASSIGN_OR_RETURN(const bool moved, progress());
      if (std::ranges::all_of(sends, &SendOp::done) && std::ranges::all_of(receives, &ReceiveOp::done)) return {};
      const auto left = std::chrono::ceil<milliseconds>(end - Clock::now());
      if (left.count() <= 0) break;
      if (stop.stop_requested()) return make_error(ErrorCode::kCancelled, "ucx: it is not needed any more");
      pollfd polled{.fd = event_fd(), .events = POLLIN};
      if (!moved) poll(&polled, 1, static_cast<int>(std::min(left, kLongestSleep).count()));
    }
    std::vector<int> missing;
    for (size_t idx = 0; idx < receives.size(); idx++)
      if (!receives[idx].done || !sends[idx].done) missing.push_back(receives[idx].peer);
    std::ranges::sort(missing);
    return make_error(ErrorCode::kDeadlineExceeded, "ucx: rank {} waited {} ms for {}", rank_, deadline.count(),
                      rank_list(missing));
  }

  // Requests that are not through by then stay, those that are go.
  void await_requests(std::vector<void*>& requests, milliseconds deadline) {
    const Clock::time_point end = Clock::now() + deadline;
    for (;;) {
      std::erase_if(requests, [](void* request) {
        if (!UCS_PTR_IS_PTR(request)) return true;
        if (ucp_request_check_status(request) == UCS_INPROGRESS) return false;
        ucp_request_free(request);
        return true;
      });
      const auto left = std::chrono::ceil<milliseconds>(end - Clock::now());
      if (requests.empty() || left.count() <= 0) return;
      if (ucp_worker_progress(worker_->handle()) != 0 || ucp_worker_arm(worker_->handle()) != UCS_OK) continue;
      pollfd polled{.fd = worker_->event_fd(), .events = POLLIN};
      poll(&polled, 1, static_cast<int>(left.count()));
    }
  }

  std::unique_ptr<UcxWorker> worker_;
  int rank_;
  uint64_t epoch_;
  std::vector<std::unique_ptr<Link>> links_;
  std::vector<Link*> link_of_;  // [rank]
  std::deque<Flight> flights_;  // those in use and those in free_flights_; never moved
  std::vector<Flight*> free_flights_;
  bool must_look_ = false;  // UCX had more to do when it was to be put to sleep
  bool closed_ = false;
};

}  // namespace

Result<std::unique_ptr<Transport>> connect_over_ucx(std::unique_ptr<UcxWorker> worker, int rank, uint64_t epoch,
                                                    std::span<const UcxPeer> peers, std::chrono::milliseconds deadline,
                                                    const std::stop_token& stop) {
  auto transport = std::make_unique<UcxTransport>(std::move(worker), rank, epoch);
  for (const UcxPeer& peer : peers) RETURN_IF_ERROR(transport->add_peer(peer.rank, peer.worker_address));
  RETURN_IF_ERROR(transport->greet_peers(deadline, stop));
  return transport;
}

}  // namespace cachalot
