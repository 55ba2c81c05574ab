#include "agents/rank_link.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <tuple>

#include "base/log.h"
#include "comm/membership/wire.h"

namespace cachalot::agents {

namespace {

constexpr size_t kLengthBytes = 4;
constexpr int kReportsInTimeout = 10;

struct OrderFields {
  static constexpr int kType = 1;
  Epoch epoch;
  int64_t serve_until_ns = 0;
  static auto fields(auto& self) { return std::tie(self.epoch, self.serve_until_ns); }
};
struct ReportFields {
  static constexpr int kType = 2;
  RankReport report;
  static auto fields(auto& self) { return std::tie(self.report); }
};

template <class Fields>
std::string framed(const Fields& fields) {
  const std::string payload = control::encode(fields);
  control::Writer length;
  length(static_cast<uint32_t>(payload.size()));
  return length.take() + payload;
}

}  // namespace

std::string encode_frame(const Order& order) {
  const auto since = std::chrono::duration_cast<std::chrono::nanoseconds>(order.serve_until.time_since_epoch());
  return framed(OrderFields{.epoch = order.epoch, .serve_until_ns = since.count()});
}

std::string encode_frame(const RankReport& report) {
  return framed(ReportFields{report});
}

Result<Order> decode_order(std::string_view fields) {
  ASSIGN_OR_RETURN(OrderFields read, control::decode<OrderFields>(fields));
  const std::chrono::nanoseconds since(read.serve_until_ns);
  return Order{.epoch = std::move(read.epoch), .serve_until = std::chrono::steady_clock::time_point(since)};
}

Result<RankReport> decode_report(std::string_view fields) {
  ASSIGN_OR_RETURN(ReportFields read, control::decode<ReportFields>(fields));
  return std::move(read.report);
}

Result<std::optional<std::string>> FrameReader::next() {
  if (bytes_.size() < kLengthBytes) return std::nullopt;
  uint32_t length = 0;
  control::Reader(std::string_view(bytes_).substr(0, kLengthBytes))(length);
  if (length > control::kMaxMessageBytes)
    return make_error(ErrorCode::kCorrupt, "a word of {} bytes between an agent and its rank", length);
  if (bytes_.size() < kLengthBytes + length) return std::nullopt;
  std::string fields = bytes_.substr(kLengthBytes, length);
  bytes_.erase(0, kLengthBytes + length);
  return fields;
}

Result<std::pair<FileDescriptor, FileDescriptor>> make_rank_link() {
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return make_error(ErrorCode::kIo, "socketpair: {}", std::strerror(errno));
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  return std::pair(FileDescriptor(ends[0]), FileDescriptor(ends[1]));
}

RankLink::RankLink(FileDescriptor fd, std::chrono::milliseconds failure_timeout)
    : fd_(std::move(fd)), wake_(eventfd(0, EFD_CLOEXEC)), interval_(failure_timeout / kReportsInTimeout) {
  CHECK(wake_, "eventfd: {}", std::strerror(errno));
  fcntl(fd_.get(), F_SETFD, FD_CLOEXEC);  // inherited, and to be inherited by nobody else
  thread_ = std::thread([this] { run(); });
}

RankLink::~RankLink() {
  {
    const std::lock_guard lock(report_mutex_);
    is_stopped_ = true;
  }
  eventfd_write(wake_.get(), 1);
  thread_.join();
}

void RankLink::on_order(std::function<void(const Order&)> take) {
  const std::lock_guard lock(orders_mutex_);
  take_ = std::move(take);
  if (take_ && newest_) take_(*newest_);
}

void RankLink::report(const RankReport& report) {
  {
    const std::lock_guard lock(report_mutex_);
    is_news_ = is_news_ || report_ != report;
    report_ = report;
    if (!is_news_) return;
  }
  eventfd_write(wake_.get(), 1);
}

void RankLink::run() {
  for (auto next = std::chrono::steady_clock::now();;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - std::chrono::steady_clock::now()).count();
    std::array<pollfd, 2> polled{
        {{.fd = fd_.get(), .events = POLLIN, .revents = 0}, {.fd = wake_.get(), .events = POLLIN, .revents = 0}}};
    poll(polled.data(), polled.size(), static_cast<int>(std::max<int64_t>(left, 0)));
    eventfd_t ignored = 0;
    if (polled[1].revents) eventfd_read(wake_.get(), &ignored);
    if (polled[0].revents) read();
    bool is_news = false;
    {
      const std::lock_guard lock(report_mutex_);
      if (is_stopped_) return;
      is_news = std::exchange(is_news_, false);
    }
    if (!is_news && std::chrono::steady_clock::now() < next) continue;
    write();
    next = std::chrono::steady_clock::now() + interval_;
  }
}

void RankLink::read() {
  std::array<char, 64 << 10> bytes;
  const ssize_t count = recv(fd_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) end("its agent has ended");
  reader_.add({bytes.data(), static_cast<size_t>(count)});
  while (true) {
    const Result<std::optional<std::string>> fields = reader_.next();
    if (!fields) end(fields.error().message);
    if (!*fields) return;
    Result<Order> order = decode_order(**fields);
    if (!order) end(order.error().message);
    const std::lock_guard lock(orders_mutex_);
    newest_ = std::move(*order);
    if (take_) take_(*newest_);
  }
}

void RankLink::write() {
  std::string frame;
  {
    const std::lock_guard lock(report_mutex_);
    if (!report_) return;
    frame = encode_frame(*report_);
  }
  // An agent that reads nothing for so long is stopped itself; the rank waits, as it could not serve either.
  for (size_t sent = 0; sent < frame.size();) {
    const ssize_t count = send(fd_.get(), frame.data() + sent, frame.size() - sent, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) end("its agent has ended");
    sent += static_cast<size_t>(count);
  }
}

void RankLink::end(std::string_view why) {
  log::error("this rank ends: {}", why);
  _exit(1);
}

}  // namespace cachalot::agents
