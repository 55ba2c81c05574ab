#include "page/feed.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "base/log.h"
#include "page/page_files.h"

namespace cachalot::page {

namespace {

constexpr std::chrono::seconds kInterval{1}, kSilence{15};
constexpr size_t kMostUnread = 30;  // looks, of one who is slow to listen; then it is to come again

// One look's events, the same for all; null: the end.
using News = std::shared_ptr<const std::string>;
using Listener = http::Mailbox<News>;

int64_t unix_ms() {
  using std::chrono::system_clock;
  return std::chrono::duration_cast<std::chrono::milliseconds>(system_clock::now().time_since_epoch()).count();
}

}  // namespace

struct Feed::Hub {
  explicit Hub(ClusterHistory::Names names) : history(std::move(names)) {}

  // As long as it lives, it hears; null: too many do.
  class Visit {
   public:
    Visit(Hub& hub, std::shared_ptr<Listener> listener) : hub_(hub), listener_(std::move(listener)) {}
    ~Visit() {
      listener_->close();
      const std::lock_guard lock(hub_.mutex);
      std::erase(hub_.listeners, listener_);
    }
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;

   private:
    Hub& hub_;
    std::shared_ptr<Listener> listener_;
  };
  // What was until now, and nothing twice; empty: too many listen, or it is over.
  std::string enter(const std::shared_ptr<Listener>& listener) {
    const std::lock_guard lock(mutex);
    if (is_over || std::ssize(listeners) >= kMostListeners) return {};
    listeners.push_back(listener);
    return history.greeting();
  }
  void tell_all(const News& news) {
    for (const std::shared_ptr<Listener>& listener : listeners) listener->put(news);
  }

  std::mutex mutex;  // guards what follows
  ClusterHistory history;
  std::vector<std::shared_ptr<Listener>> listeners;
  bool is_over = false;
};

Feed::Feed(ClusterHistory::Names names) : hub_(std::make_shared<Hub>(std::move(names))) {}

Feed::~Feed() {
  thread_ = {};
  end();
}

void Feed::register_routes(http::Server& server) {
  register_page(server);
  server.route("GET", std::string(kEventsPath), [hub = hub_](http::ServerCall& call) { return tell(hub, call); });
}

void Feed::start(Look look) {
  thread_ = std::jthread([hub = hub_, look = std::move(look)](const std::stop_token& stopped) {
    std::mutex mutex;
    std::condition_variable_any changed;
    std::unique_lock lock(mutex);
    for (auto next = std::chrono::steady_clock::now(); !stopped.stop_requested(); next += kInterval) {
      try {
        ClusterView cluster = look();
        const std::lock_guard history_lock(hub->mutex);
        hub->tell_all(std::make_shared<const std::string>(hub->history.observe(unix_ms(), std::move(cluster))));
      } catch (const std::exception& exception) {
        log::error("looking at the cluster failed: {}", exception.what());
      }
      next = std::max(next, std::chrono::steady_clock::now() - kInterval);  // what was missed is not made up for
      changed.wait_until(lock, stopped, next + kInterval, [] { return false; });
    }
  });
}

void Feed::end() {
  const std::lock_guard lock(hub_->mutex);
  hub_->is_over = true;
  hub_->tell_all(nullptr);
}

http::awaitable<void> Feed::tell(std::shared_ptr<Hub> hub, http::ServerCall& call) {
  auto listener = std::make_shared<Listener>(co_await boost::asio::this_coro::executor, kMostUnread);
  const Hub::Visit visit(*hub, listener);
  std::string text = hub->enter(listener);
  if (text.empty()) {
    http::Response refusal = http::Response::text(503, "as many watch the cluster as may\n");
    refusal.headers.add("Retry-After", "10");
    co_return co_await call.respond(std::move(refusal));
  }
  call.begin(200, {{"Content-Type", "text/event-stream; charset=utf-8"},
                   {"Cache-Control", "no-store"},
                   {"X-Accel-Buffering", "no"},  // for proxies that would gather it
                   {"X-Content-Type-Options", "nosniff"},
                   {"Cross-Origin-Resource-Policy", "same-origin"}});
  for (;;) {
    co_await call.send(std::move(text));
    const auto news = co_await listener->take_before(std::chrono::steady_clock::now() + kSilence);
    text = news ? "" : ": keep-alive\n\n";
    if (!news) continue;
    if (news->empty() || std::ranges::find(*news, nullptr) != news->end()) co_return co_await call.end();
    for (const News& piece : *news) text += *piece;
  }
}

}  // namespace cachalot::page
