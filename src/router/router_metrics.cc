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
  explicit Impl(const std::string& model) : model(model) {}

  template <class Metric>
  prometheus::Family<Metric>& family(prometheus::detail::Builder<Metric> builder, const char* name, const char* help) {
    return builder.Name(name)
        .Help(help)
        .Labels(model.empty() ? Labels{} : Labels{{"model_name", model}})
        .Register(registry);
  }
  prometheus::Family<Counter>& counters(const char* name, const char* help) {
    return family(prometheus::BuildCounter(), name, help);
  }
  prometheus::Family<Gauge>& gauges(const char* name, const char* help) {
    return family(prometheus::BuildGauge(), name, help);
  }
  prometheus::Family<Histogram>& histograms(const char* name, const char* help) {
    return family(prometheus::BuildHistogram(), name, help);
  }

  struct OfReplica {
    OfReplica(Impl& all, const std::string& url)
        : label{{"replica", url}},
          up(all.up.Add(label)),
          in_flight(all.in_flight.Add(label)),
          retries(all.retries.Add(label)),
          falls(all.falls.Add(label)),
          broken(all.broken.Add(label)),
          bytes_out(all.bytes.Add({{"replica", url}, {"direction", "to_replica"}})),
          bytes_in(all.bytes.Add({{"replica", url}, {"direction", "to_client"}})),
          first_byte(all.first_byte.Add(label, kSeconds)),
          whole(all.whole.Add(label, kSeconds)) {}

    Labels label;
    Gauge &up, &in_flight;
    Counter &retries, &falls, &broken, &bytes_out, &bytes_in;
    Histogram &first_byte, &whole;
  };

  const std::string model;
  prometheus::Registry registry;
  std::mutex render_mutex;
  prometheus::Family<Gauge>& up = gauges("cachalot:router_replica_up", "1 while the replica gets requests");
  prometheus::Family<Gauge>& in_flight =
      gauges("cachalot:router_in_flight", "Requests that are at the replica, as the router knows");
  prometheus::Family<Counter>& answers = counters("cachalot:router_answers_total", "Answers of the replica, by status");
  prometheus::Family<Counter>& retries =
      counters("cachalot:router_retries_total", "Requests that this replica did not answer and another one was sent");
  prometheus::Family<Counter>& falls =
      counters("cachalot:router_ejections_total", "How often the replica was taken out");
  prometheus::Family<Counter>& broken =
      counters("cachalot:router_broken_answers_total", "Answers of the replica that broke off midway");
  prometheus::Family<Counter>& bytes = counters("cachalot:router_bytes_total", "Bytes of bodies passed on");
  prometheus::Family<Counter>& refusals =
      counters("cachalot:router_refused_total", "Requests that the router itself refused, by status");
  prometheus::Family<Histogram>& first_byte =
      histograms("cachalot:router_first_byte_seconds", "From a request's arrival to its answer's first byte");
  prometheus::Family<Histogram>& whole =
      histograms("cachalot:router_request_seconds", "From a request's arrival to its answer's end");
  Gauge& connections = gauges("cachalot:router_client_connections", "Open connections of clients").Add({});
  std::vector<OfReplica> replicas;
};

RouterMetrics::RouterMetrics(const std::vector<std::string>& urls, const std::string& model)
    : impl_(std::make_unique<Impl>(model)) {
  for (const std::string& url : urls) impl_->replicas.emplace_back(*impl_, url);
}

RouterMetrics::~RouterMetrics() = default;

void RouterMetrics::answer_began(size_t replica, double seconds) {
  impl_->replicas[replica].first_byte.Observe(seconds);
}

void RouterMetrics::answer_ended(size_t replica, int status, double seconds, bool is_whole) {
  Impl::OfReplica& of = impl_->replicas[replica];
  of.whole.Observe(seconds);
  if (!is_whole) of.broken.Increment();
  impl_->answers.Add({{"replica", of.label["replica"]}, {"code", std::to_string(status)}}).Increment();
}

void RouterMetrics::passed_bytes(size_t replica, size_t num_to_replica, size_t num_to_client) {
  impl_->replicas[replica].bytes_out.Increment(static_cast<double>(num_to_replica));
  impl_->replicas[replica].bytes_in.Increment(static_cast<double>(num_to_client));
}

void RouterMetrics::retried(size_t replica) {
  impl_->replicas[replica].retries.Increment();
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
