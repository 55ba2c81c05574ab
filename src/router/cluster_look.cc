#include "router/cluster_look.h"

namespace cachalot::router {

namespace {

constexpr std::chrono::milliseconds kStatePatience{2'000};
constexpr int kPauseLooks = 30;
constexpr size_t kMaxStateBytes = 4 << 20;

}  // namespace

ClusterLook::ClusterLook(std::shared_ptr<ProxyContext> context)
    : context_(std::move(context)),
      client_(context_->threads, {.connect_timeout = kStatePatience,
                                  .idle_timeout = kStatePatience,
                                  .max_body_bytes = kMaxStateBytes,
                                  .max_idle_connections = 1,
                                  .tls = context_->tls}),
      questions_(context_->urls.size()) {}

ClusterLook::~ClusterLook() {
  for (const Question& question : questions_)
    if (question.running) question.running->cancel();
  for (Question& question : questions_)
    if (question.running) question.running->wait();  // it goes on in the client until then
}

std::vector<page::MemberView> ClusterLook::members() {
  std::vector<page::MemberView> members;
  const std::vector<ReplicaStatus> known = context_->table.status(ReplicaHealth::Time::clock::now());
  for (size_t idx = 0; idx < known.size(); idx++) {
    Question& question = questions_[idx];
    if (question.running && question.running->is_done()) {
      const Result<http::Response> answer = question.running->wait();
      question.running.reset();
      question.answer.reset();
      // Some other server, which has no such path.
      if (answer && answer->status == 404) question.pause = kPauseLooks;
      if (auto state =
              answer && answer->status == 200 ? page::parse_server_view(answer->body) : std::unexpected(Error{}))
        question.answer = std::move(*state);
    }
    if (!question.running && (question.pause == 0 || --question.pause == 0)) {
      http::ClientRequest request{.url = context_->urls[idx]};
      request.url.target = "/state";
      question.running = client_.start(std::move(request));
    }
    const ReplicaStatus& status = known[idx];
    members.push_back({.url = status.url,
                       .state = std::string(name_of(status.health.state())),
                       .reason = status.health.reason(),
                       .num_in_flight = status.num_in_flight,
                       .num_running = status.report.num_running,
                       .num_waiting = status.report.num_waiting,
                       .kv_usage = status.report.kv_usage,
                       .server = question.answer});
  }
  return members;
}

}  // namespace cachalot::router
