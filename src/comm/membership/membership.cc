#include "comm/membership/membership.h"

#include <fcntl.h>

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "comm/membership/agreement.h"
#include "comm/membership/asio_network.h"
#include "comm/membership/group_state.h"
#include "comm/membership/hub.h"
#include "comm/membership/spoke.h"

namespace cachalot {

namespace asio = boost::asio;

// A loss is told at once, so nothing but a rank that hangs makes a goodbye take longer.
constexpr std::chrono::milliseconds kGoodbyeTimeout{1'500};

struct Membership::Impl {
  explicit Impl(const JoinOptions& options) : state(options), work(asio::make_work_guard(context)) {}
  ~Impl() {
    context.stop();
    if (thread.joinable()) thread.join();
  }

  Status start(const JoinOptions& options, control::Hello own);
  void run();
  template <class Task>
  void post(Task task) {
    if (role) asio::post(context, std::move(task));
  }

  control::GroupState state;
  asio::io_context context{1};
  asio::executor_work_guard<asio::io_context::executor_type> work;
  control::AsioNetwork network{context};
  std::unique_ptr<control::Role> role;  // none in a group of one
  std::atomic<bool> departed{false};
  std::thread thread;
};

Status Membership::Impl::start(const JoinOptions& options, control::Hello own) {
  if (options.rank == 0) {
    auto hub = std::make_unique<control::Hub>(network, options, std::move(own), state);
    RETURN_IF_ERROR(hub->listen());
    role = std::move(hub);
  } else {
    role = std::make_unique<control::Spoke>(network, options, std::move(own), state);
  }
  post([this] { role->start(); });
  thread = std::thread([this] { run(); });
  return {};
}

// Memory that is not to be had costs one message, not the process's heartbeats.
void Membership::Impl::run() {
  control::prefer_this_thread();
  for (bool has_failed = false;;) {
    try {
      if (std::exchange(has_failed, false)) {
        network.resume();
        role->resume();
      }
      context.run();
      return;
    } catch (const std::exception& exception) {
      has_failed = true;
      try {
        log::error("the control thread goes on after: {}", exception.what());
      } catch (const std::exception&) {  // not even for the line
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));  // memory may come back
    }
  }
}

Result<std::unique_ptr<Membership>> Membership::join(const JoinOptions& options) {
  CHECK(options.size > 0 && options.rank >= 0 && options.rank < options.size);
  ASSIGN_OR_RETURN(control::Hello own, control::hello_of(options));
  auto impl = std::make_unique<Impl>(options);
  if (options.size == 1) {
    impl->state.set_formed(
        {.members = {control::member_of(own, "")}, .isa_level = own.isa_level, .isa_name = own.isa_name});
    impl->state.set_all_ready();
  } else {
    if (options.rank == 0 && options.secret.empty()) {
      log::warn("without a group secret (--group-secret-file) whoever reaches {}:{} may join the group", options.host,
                options.port);
    }
    RETURN_IF_ERROR(impl->start(options, std::move(own)));
  }
  const std::stop_callback on_stop(options.stop,
                                   [raw = impl.get()] { raw->post([raw] { raw->role->stop_joining(); }); });
  ASSIGN_OR_RETURN(control::Formed formed, impl->state.wait_until_formed());
  return std::unique_ptr<Membership>(new Membership(std::move(impl), options, std::move(formed.members),
                                                    formed.isa_level, std::move(formed.isa_name)));
}

Membership::Membership(std::unique_ptr<Impl> impl, const JoinOptions& options, std::vector<Member> members,
                       int isa_level, std::string isa_name)
    : impl_(std::move(impl)),
      rank_(options.rank),
      epoch_(options.epoch),
      members_(std::move(members)),
      isa_level_(isa_level),
      isa_name_(std::move(isa_name)) {}

Membership::~Membership() {
  leave();
}

void Membership::set_activity(Phase phase, uint64_t step) {
  impl_->state.set_activity(phase, step);
}

void Membership::set_percent(int percent) {
  impl_->state.set_percent(percent);
}

Status Membership::wait_until_all_ready() {
  impl_->state.set_activity(Phase::kReady, 0);
  impl_->post([impl = impl_.get()] { impl->role->set_ready(); });
  return impl_->state.wait_until_all_ready();
}

void Membership::set_lost_handler(std::function<void(const LostRank&)> handler) {
  impl_->state.set_lost_handler(std::move(handler));
}

void Membership::set_progress_handler(std::function<void(int rank, const Activity&)> handler) {
  impl_->state.set_progress_handler(std::move(handler));
}

std::optional<LostRank> Membership::first_lost() const {
  return impl_->state.first_lost();
}

Status Membership::watch_process(int rank, int pidfd) {
  CHECK(rank >= 0 && rank < size() && rank != rank_);
  const int own_copy = fcntl(pidfd, F_DUPFD_CLOEXEC, 0);
  if (own_copy < 0) {
    return make_error(ErrorCode::kIo, "cannot watch the process of {}: {}", members_[rank].name(),
                      std::strerror(errno));
  }
  impl_->post([impl = impl_.get(), rank, own_copy] {
    auto watched = std::make_shared<asio::posix::stream_descriptor>(impl->context, own_copy);
    watched->async_wait(asio::posix::stream_descriptor::wait_read,
                        [impl, rank, watched](boost::system::error_code error) {
                          if (!error) impl->role->process_ended(rank);
                        });
  });
  return {};
}

void Membership::give_up(const std::string& why) {
  depart(why);
}

void Membership::leave() {
  depart(std::nullopt);
}

void Membership::depart(std::optional<std::string> why) {
  if (!impl_->role || impl_->departed.exchange(true)) return;
  impl_->post([impl = impl_.get(), why = std::move(why)] { why ? impl->role->give_up(*why) : impl->role->leave(); });
  impl_->state.wait_until_gone(kGoodbyeTimeout);
}

}  // namespace cachalot
