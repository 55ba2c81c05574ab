#include "http/exchange.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace cachalot::http {

void Exchange::signal(std::unique_lock<std::mutex> lock) {
  // The handler's on_close often owns the handler's state, which owns a Responder: let go of it with the end.
  const std::function<void()> released = finished_ ? std::exchange(on_close_, nullptr) : nullptr;
  const bool wake = !std::exchange(signalled_, true);
  lock.unlock();
  if (wake) wake_();
}

void Exchange::respond(Response response) {
  std::unique_lock lock(mutex_);
  if (closed_ || finished_) return;
  CHECK(!begun_, "respond() after begin()");
  begun_ = finished_ = true;
  ready_.has_head = true;
  ready_.status = response.status;
  ready_.headers = std::move(response.headers);
  ready_.pieces.push_back({std::move(response.body), {}});
  ready_.ended = true;
  signal(std::move(lock));
}

void Exchange::begin(int status, Headers headers) {
  std::unique_lock lock(mutex_);
  if (closed_ || finished_) return;
  CHECK(!begun_, "a second begin()");
  begun_ = true;
  ready_.has_head = ready_.streamed = true;
  ready_.status = status;
  ready_.headers = std::move(headers);
  signal(std::move(lock));
}

bool Exchange::write(std::string bytes, std::function<void()> on_written) {
  std::unique_lock lock(mutex_);
  if (closed_ || finished_) return false;
  CHECK(begun_, "write() before begin()");
  if (queued_bytes_ > max_queued_bytes_) {
    // The connection learns it from the batch, breaks itself and then calls on_close.
    ready_.aborted = true;
    closed_ = true;
    const bool wake = !std::exchange(signalled_, true);
    lock.unlock();
    if (wake) wake_();
    return false;
  }
  queued_bytes_ += bytes.size();
  if (!bytes.empty() || on_written) ready_.pieces.push_back({std::move(bytes), std::move(on_written)});
  signal(std::move(lock));
  return true;
}

void Exchange::end() {
  std::unique_lock lock(mutex_);
  if (closed_ || finished_) return;
  CHECK(begun_, "end() before begin()");
  finished_ = ready_.ended = true;
  signal(std::move(lock));
}

void Exchange::abort() {
  std::unique_lock lock(mutex_);
  if (closed_ || finished_) return;
  finished_ = ready_.aborted = true;
  signal(std::move(lock));
}

void Exchange::on_close(std::function<void()> callback) {
  std::unique_lock lock(mutex_);
  if (finished_) return;
  if (!closed_) {
    on_close_ = std::move(callback);
    return;
  }
  lock.unlock();
  callback();
}

bool Exchange::closed() const {
  std::lock_guard lock(mutex_);
  return closed_;
}

void Exchange::abandon() {
  bool begun;
  {
    std::lock_guard lock(mutex_);
    begun = begun_;
  }
  if (begun)
    abort();
  else
    respond(Response::text(500, "the request was dropped\n"));
}

Exchange::Batch Exchange::take() {
  std::lock_guard lock(mutex_);
  signalled_ = false;
  return std::exchange(ready_, {});
}

void Exchange::acknowledge(size_t num_bytes) {
  std::lock_guard lock(mutex_);
  queued_bytes_ -= std::min(queued_bytes_, num_bytes);
}

void Exchange::close() {
  std::function<void()> callback;
  Batch dropped;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    if (!finished_) callback = std::move(on_close_);
    on_close_ = nullptr;
    dropped = std::exchange(ready_, {});
  }
  if (callback) callback();
}

}  // namespace cachalot::http
