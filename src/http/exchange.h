#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "http/message.h"

namespace cachalot::http {

// One request being answered: handler threads put the answer in, its connection takes it out. Every method may be
// called from any thread; callbacks run outside the lock.
class Exchange {
 public:
  // `wake` tells the connection to take(); called from the handlers' threads, must not block.
  Exchange(std::function<void()> wake, size_t max_queued_bytes)
      : wake_(std::move(wake)), max_queued_bytes_(max_queued_bytes) {}

  // The handler's side; see Responder.
  void respond(Response response);
  void begin(int status, Headers headers);
  bool write(std::string bytes, std::function<void()> on_written);
  void end();
  void abort();
  void on_close(std::function<void()> callback);
  bool closed() const;
  // The last handle is gone: breaks off what has not ended.
  void abandon();

  // The connection's side.
  struct Piece {
    std::string bytes;
    std::function<void()> on_written;
  };
  struct Batch {
    bool has_head = false;  // with the first batch: status and headers; a whole response's body is the only piece
    bool streamed = false;
    int status = 0;
    Headers headers;
    std::vector<Piece> pieces;
    bool ended = false;    // nothing follows
    bool aborted = false;  // break the connection
    bool empty() const { return !has_head && pieces.empty() && !ended && !aborted; }
  };
  Batch take();
  // So many of the bytes that were taken have left.
  void acknowledge(size_t num_bytes);
  // The client is gone: calls the handler's on_close, drops what is queued.
  void close();

 private:
  void signal(std::unique_lock<std::mutex> lock);

  const std::function<void()> wake_;
  const size_t max_queued_bytes_;
  mutable std::mutex mutex_;
  Batch ready_;
  size_t queued_bytes_ = 0;  // written by the handler and not acknowledged
  bool begun_ = false;       // a head was put in
  bool finished_ = false;    // ended or aborted
  bool closed_ = false;
  bool signalled_ = false;  // the connection knows already that there is something
  std::function<void()> on_close_;
};

}  // namespace cachalot::http
