#pragma once

#include <functional>
#include <memory>

namespace boost::asio {
class io_context;
}

namespace cachalot::http {

// The threads on which connections live and callbacks run. Outlives the servers and clients that use it.
class IoThreads {
 public:
  explicit IoThreads(int num_threads);
  // Joins when nothing is left to do: what was posted has run, and every connection and call has ended.
  ~IoThreads();
  IoThreads(const IoThreads&) = delete;
  IoThreads& operator=(const IoThreads&) = delete;

  boost::asio::io_context& context() const;
  // Runs the task on one of the threads; from any thread.
  void post(std::function<void()> task) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace cachalot::http
