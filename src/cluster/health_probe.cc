#include "cluster/health_probe.h"

namespace cachalot {

HealthProbe::HealthProbe(const http::Client& client, http::Url url) : client_(client), url_(std::move(url)) {
  url_.target = "/health";
}

HealthProbe::~HealthProbe() {
  reset();
}

void HealthProbe::ask(std::chrono::milliseconds interval) {
  hear();
  const Clock::time_point now = Clock::now();
  if (call_ || now - asked_ < interval) return;
  asked_ = now;
  call_ = client_.start({.url = url_});
}

void HealthProbe::reset() {
  if (call_) call_->cancel();
  call_.reset();
  status_ = 0;
  heard_ = Clock::now();
}

// The answer, if it has come.
void HealthProbe::hear() {
  if (!call_ || !call_->is_done()) return;
  const Result<http::Response> answer = call_->wait();
  call_.reset();
  if (!answer) return;
  status_ = answer->status;
  heard_ = Clock::now();
}

}  // namespace cachalot
