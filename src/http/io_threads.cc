#include "http/io_threads.h"

#include <boost/asio/error.hpp>

#include "base/error.h"
#include "base/log.h"

namespace cachalot::http {

namespace asio = boost::asio;

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

IoThreads::IoThreads(int num_threads) : context_(num_threads), work_(context_.get_executor()) {
  CHECK(num_threads > 0);
  for (int idx = 0; idx < num_threads; idx++) threads_.emplace_back([this] { run_until_stopped(context_); });
}

IoThreads::~IoThreads() {
  work_.reset();
  threads_.clear();
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
