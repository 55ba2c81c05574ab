#include "http/io_threads.h"

#include <boost/asio/error.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/log.h"

namespace cachalot::http {

namespace asio = boost::asio;

struct IoThreads::Impl {
  explicit Impl(int num_threads) : context(num_threads), work(context.get_executor()) {}

  asio::io_context context;
  asio::executor_work_guard<asio::io_context::executor_type> work;
  std::vector<std::jthread> threads;
};

namespace {

// A task that throws (out of memory, say) costs its own request, never the process.
void run_until_stopped(asio::io_context& context) {
  for (;;) {
    try {
      context.run();
      return;
    } catch (const std::exception& exception) {
      log::error("a task on an I/O thread failed: {}", exception.what());
    }
  }
}

}  // namespace

IoThreads::IoThreads(int num_threads) {
  CHECK(num_threads > 0);
  impl_ = std::make_unique<Impl>(num_threads);
  for (int i = 0; i < num_threads; ++i) impl_->threads.emplace_back([this] { run_until_stopped(impl_->context); });
}

IoThreads::~IoThreads() {
  impl_->work.reset();
  impl_->threads.clear();
}

asio::io_context& IoThreads::context() const {
  return impl_->context;
}

Error IoThreads::describe(const std::exception_ptr& exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const boost::system::system_error& error) {
    if (error.code() == asio::error::operation_aborted) return {ErrorCode::kCancelled, "given up", {}};
    return {ErrorCode::kInternal, error.what(), {}};
  } catch (const std::exception& failure) {
    return {ErrorCode::kInternal, failure.what(), {}};
  }
}

}  // namespace cachalot::http
