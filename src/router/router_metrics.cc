#include "router/router_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <map>
#include <mutex>

namespace cachalot::router {

namespace {

using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;
using Labels = std::map<std::string, std::string>;

// From what the router itself takes to the longest answers.
const Histogram::BucketBoundaries kSeconds{0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2,
                                           0.5,    1,     2,     5,     10,   30,   60,   300, 1800};

}  // namespace

struct RouterMetrics::Impl {
  // The family of that name, which is made once.
  template <class Metric>
  prometheus::Family<Metric>& family(prometheus::detail::Builder<Metric> builder, const char* name, const char* help) {
    return builder.Name(name).Help(help).Labels(common).Register(registry);
  }
  Gauge& gauge(const char* name, const char* help, const Labels& labels) {
    return family(prometheus::BuildGauge(), name, help).Add(labels);
  }
  Counter& counter(const char* name, const char* help, const Labels& labels) {
    return family(prometheus::BuildCounter(), name, help).Add(labels);
  }
  Histogram& histogram(const char* name, const char* help, const Labels& labels) {
    return family(prometheus::BuildHistogram(), name, help).Add(labels, kSeconds);
  }
  Counter& bytes(const std::string& url, const char* direction) {
    return counter("cachalot:router_bytes_total", "Bytes of bodies passed on",
                   {{"replica", url}, {"direction", direction}});
  }

  struct OfReplica {
    Impl& all;
    std::string url;
    Labels label{{"replica", url}};
    Gauge& up = all.gauge("cachalot:router_replica_up", "1 while the replica gets requests", label);
    Gauge& in_flight =
        all.gauge("cachalot:router_in_flight", "Requests that are at the replica, as the router knows", label);
    Counter& retries = all.counter("cachalot:router_retries_total",
                                   "Requests that this replica did not answer and another one was sent", label);
    Counter& takeovers = all.counter("cachalot:router_takeovers_total",
                                     "Answers that this replica had begun and another one goes on with", label);
    Counter& falls = all.counter("cachalot:router_ejections_total", "How often the replica was taken out", label);
    Counter& broken =
        all.counter("cachalot:router_broken_answers_total", "Answers of the replica that broke off midway", label);
    Counter& bytes_out = all.bytes(url, "to_replica");
    Counter& bytes_in = all.bytes(url, "to_client");
    Histogram& first_byte = all.histogram("cachalot:router_first_byte_seconds",
                                          "From a request's arrival to its answer's first byte", label);
    Histogram& whole =
        all.histogram("cachalot:router_request_seconds", "From a request's arrival to its answer's end", label);
  };

  const Labels common;  // of every series
  prometheus::Registry registry;
  std::mutex render_mutex;
  std::vector<OfReplica> replicas{};
  Gauge& connections = gauge("cachalot:router_client_connections", "Open connections of clients", {});
  Histogram& pauses =
      histogram("cachalot:router_takeover_pause_seconds",
                "From the loss of an answer's replica to the next token of the one that goes on with it", {});
  Counter& blames = counter("cachalot:router_blamed_requests_total",
                            "Requests that ended because three servers had died at the same token of theirs", {});
  // Their series come with the statuses.
  prometheus::Family<Counter>& answers =
      family(prometheus::BuildCounter(), "cachalot:router_answers_total", "Answers of the replica, by status");
  prometheus::Family<Counter>& refusals = family(prometheus::BuildCounter(), "cachalot:router_refused_total",
                                                 "Requests that the router itself refused, by status");
};

RouterMetrics::RouterMetrics(const std::vector<std::string>& urls, const std::string& model)
    : impl_(std::make_unique<Impl>(model.empty() ? Labels{} : Labels{{"model_name", model}})) {
  for (const std::string& url : urls) impl_->replicas.push_back({.all = *impl_, .url = url});
}

RouterMetrics::~RouterMetrics() = default;

void RouterMetrics::answer_began(size_t replica, double seconds) {
  impl_->replicas[replica].first_byte.Observe(seconds);
}

void RouterMetrics::answer_ended(size_t replica, int status, double seconds, bool is_whole) {
  Impl::OfReplica& of = impl_->replicas[replica];
  of.whole.Observe(seconds);
  if (!is_whole) of.broken.Increment();
  impl_->answers.Add({{"replica", of.url}, {"code", std::to_string(status)}}).Increment();
}

void RouterMetrics::passed_bytes(size_t replica, size_t num_to_replica, size_t num_to_client) {
  impl_->replicas[replica].bytes_out.Increment(static_cast<double>(num_to_replica));
  impl_->replicas[replica].bytes_in.Increment(static_cast<double>(num_to_client));
}

void RouterMetrics::retried(size_t replica) {
  impl_->replicas[replica].retries.Increment();
}

void RouterMetrics::taken_over(size_t replica) {
  impl_->replicas[replica].takeovers.Increment();
}

void RouterMetrics::waited(double seconds) {
  impl_->pauses.Observe(seconds);
}

void RouterMetrics::blamed() {
  impl_->blames.Increment();
}

void RouterMetrics::refused(int status) {
  impl_->refusals.Add({{"code", std::to_string(status)}}).Increment();
}

std::string RouterMetrics::render(const std::vector<ReplicaStatus>& replicas, int num_connections) {
  const std::lock_guard lock(impl_->render_mutex);
  for (size_t idx = 0; idx < replicas.size(); idx++) {
    Impl::OfReplica& of = impl_->replicas[idx];
    of.up.Set(replicas[idx].health.is_up() ? 1 : 0);
    of.in_flight.Set(replicas[idx].num_in_flight);
    of.falls.Increment(replicas[idx].health.num_falls() - of.falls.Value());
  }
  impl_->connections.Set(num_connections);
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace cachalot::router
