#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "agents/epoch.h"
#include "base/error.h"
#include "base/file.h"

// How an agent and one of its ranks speak: over a pair of sockets, of which the rank inherits one as --agent-fd. Each
// word is a frame:
//
//   u32 length | fields [length]      as comm/membership/wire.h writes them
//
// Down come orders, up go reports. Times are the steady clock's, which is one on a node.
namespace cachalot::agents {

std::string encode_frame(const Order& order);
std::string encode_frame(const RankReport& report);
Result<Order> decode_order(std::string_view fields);
Result<RankReport> decode_report(std::string_view fields);

// Bytes as they come, to words.
class FrameReader {
 public:
  void add(std::string_view bytes) { bytes_ += bytes; }
  // The next word's fields; none: it is not there whole yet. Errors: too long for a word.
  Result<std::optional<std::string>> next();

 private:
  std::string bytes_;
};

// Both ends of a link: the agent's, which never blocks, and the rank's. A child gets the latter alone (ProcessOptions'
// `kept`).
Result<std::pair<FileDescriptor, FileDescriptor>> make_rank_link();

// The rank's end, with a thread of its own. Where the agent's end closes, this process ends at once: a rank that nobody
// can stop must not serve.
class RankLink {
 public:
  RankLink(FileDescriptor fd, std::chrono::milliseconds failure_timeout);
  ~RankLink();

  // Takes each order that comes, on the link's thread, and at once the newest of those that have come already; in place
  // of whoever took them before, who is not being called any more when this returns. Not from within such a call.
  void on_order(std::function<void(const Order&)> take);
  // What the rank has to say from now on: at once, and again ten times within the failure timeout. From any thread.
  void report(const RankReport& report);

 private:
  void run();
  void read();
  void write();
  [[noreturn]] static void end(std::string_view why);

  const FileDescriptor fd_, wake_;
  const std::chrono::milliseconds interval_;
  FrameReader reader_;  // the thread's

  std::mutex orders_mutex_;  // guards what follows; held while an order is taken
  std::function<void(const Order&)> take_;
  std::optional<Order> newest_;

  std::mutex report_mutex_;  // guards what follows
  std::optional<RankReport> report_;
  bool is_news_ = false, is_stopped_ = false;

  std::thread thread_;
};

}  // namespace cachalot::agents
