#include "cluster/health_probe.h"

#include <mutex>

namespace cachalot {

struct HealthProbe::Heard {
  std::mutex mutex;  // guards what follows
  bool asking = false;
  int status = 0;
  Clock::time_point last = Clock::now();
};

HealthProbe::HealthProbe(const http::Client& client, http::Url url)
    : client_(client), url_(std::move(url)), heard_(std::make_shared<Heard>()) {
  url_.target = "/health";
}

HealthProbe::~HealthProbe() {
  reset();
}

void HealthProbe::ask(std::chrono::milliseconds interval) {
  const Clock::time_point now = Clock::now();
  {
    const std::lock_guard lock(heard_->mutex);
    if (heard_->asking || now - asked_ < interval) return;
    heard_->asking = true;
  }
  asked_ = now;
  call_ = client_.start({.url = url_}, [heard = heard_](const Result<http::ResponseHead>& head) {
    const std::lock_guard lock(heard->mutex);
    heard->asking = false;
    if (!head) return;
    heard->status = head->status;
    heard->last = Clock::now();
  });
}

void HealthProbe::reset() {
  if (call_) call_->cancel();
  call_.reset();
  heard_ = std::make_shared<Heard>();
}

int HealthProbe::status() const {
  const std::lock_guard lock(heard_->mutex);
  return heard_->status;
}

HealthProbe::Clock::duration HealthProbe::silence() const {
  const std::lock_guard lock(heard_->mutex);
  return Clock::now() - heard_->last;
}

}  // namespace cachalot
