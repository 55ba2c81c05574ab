#include "agents/running_agent.h"

#include <fcntl.h>
#include <openssl/rand.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <deque>
#include <future>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "agents/rank_link.h"
#include "agents/state_folder.h"
#include "base/file.h"
#include "base/log.h"
#include "comm/membership/asio_network.h"
#include "config/version.h"

namespace cachalot::agents {

namespace asio = boost::asio;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

namespace {

// What an agent says last reaches the others.
constexpr std::chrono::milliseconds kLastWords{100};

// Writes states, one after the other, on a thread of its own.
class StateWriter {
 public:
  using Done = std::function<void(Status)>;

  StateWriter(std::optional<StateFolder> folder, asio::io_context& context)
      : folder_(std::move(folder)), context_(context), thread_([this](const std::stop_token& stop) { run(stop); }) {}

  void write(std::string state, Done done) {
    const std::lock_guard lock(mutex_);
    writes_.emplace_back(std::move(state), std::move(done));
    changed_.notify_all();
  }

 private:
  void run(const std::stop_token& stop) {
    while (true) {
      std::pair<std::string, Done> next;
      {
        std::unique_lock lock(mutex_);
        if (!changed_.wait(lock, stop, [this] { return !writes_.empty(); })) return;
        next = std::move(writes_.front());
        writes_.pop_front();
      }
      Status stored = folder_ ? folder_->store(next.first) : Status();
      asio::post(context_, [done = std::move(next.second), stored = std::move(stored)] { done(stored); });
    }
  }

  const std::optional<StateFolder> folder_;  // none: memory is enough
  asio::io_context& context_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable_any changed_;
  std::deque<std::pair<std::string, Done>> writes_;
  std::jthread thread_;
};

// A rank's process, and the agent's end of the link to it. Its events hold it.
struct Child : std::enable_shared_from_this<Child> {
  Child(asio::io_context& context, int its_rank, uint64_t its_id, Process its_process, int link_fd,
        FileDescriptor its_words)
      : rank(its_rank),
        id(its_id),
        process(std::move(its_process)),
        end(context, fcntl(process.pidfd(), F_DUPFD_CLOEXEC, 0)),
        link(context, asio::local::stream_protocol(), link_fd),
        words(std::move(its_words)) {}

  // One that takes nothing for a while gets the newest when it does.
  void tell(const Order& order) {
    next = encode_frame(order);
    if (writing.empty()) write();
  }
  void write() {
    writing = std::exchange(next, {});
    if (writing.empty()) return;
    asio::async_write(link, asio::buffer(writing), [self = shared_from_this()](error_code error, size_t) {
      if (!error) self->write();
    });
  }
  void read(const std::function<void(const RankReport&)>& said) {
    link.async_read_some(asio::buffer(bytes), [self = shared_from_this(), said](error_code error, size_t size) {
      if (error) return;  // it is ending, or silent from now on
      self->reader.add({self->bytes.data(), size});
      while (true) {
        const auto fields = self->reader.next();
        if (fields && !*fields) break;
        const auto report = fields ? decode_report(**fields) : std::unexpected(fields.error());
        if (!report) return log::error("rank {} is not understood: {}", self->rank, report.error().message);
        said(*report);
      }
      self->read(said);
    });
  }
  void close() {
    error_code ignored;
    link.close(ignored);
    end.close(ignored);
  }

  const int rank;
  const uint64_t id;
  Process process;
  asio::posix::stream_descriptor end;
  asio::local::stream_protocol::socket link;
  const FileDescriptor words;  // memory in which it says why it ends
  const uint64_t memory_kills = num_memory_kills();
  bool was_ready = false;
  std::array<char, 16 << 10> bytes{};
  FrameReader reader;
  std::string writing, next;
};
using ChildPtr = std::shared_ptr<Child>;

}  // namespace

struct RunningAgent::Impl : AgentHost {
  Impl(RunningAgentOptions its_options, std::optional<StateFolder> folder)
      : options(std::move(its_options)),
        state(folder ? folder->state() : std::nullopt),
        writer(std::move(folder), context),
        others(sockets, options.network,
               {.message = [this](int server, std::string_view word) { agent->receive(Clock::now(), server, word); },
                .request = [this](const OperatorRequest& request) { return answer(request); }}) {}
  ~Impl() override {
    if (!thread.joinable()) return;
    asio::post(context, [this] { context.stop(); });
    thread.join();
  }

  void run();
  void tick();
  template <class Body>
  auto on_thread(Body body) {
    std::packaged_task<decltype(body())()> task(std::move(body));
    auto done = task.get_future();
    asio::post(context, std::move(task));
    return done.get();
  }

  // AgentHost
  void send(int server, std::string message) override { others.send(server, std::move(message)); }
  void start_rank(int rank, uint64_t process) override;
  void kill_rank(int rank, uint64_t process) override;
  void tell_rank(int rank, uint64_t process, const Order& order) override;
  uint64_t random() override;
  void write(std::string bytes, std::function<void(Status)> done) override {
    writer.write(std::move(bytes), std::move(done));
  }

  Result<ChildPtr> start_child(int rank, uint64_t process);
  void on_report(const ChildPtr& child, const RankReport& report);
  void on_end(const ChildPtr& child);
  OperatorAnswer answer(const OperatorRequest& request);
  GroupView view() const;
  Status confirm_lost(const std::vector<int>& servers);
  bool are_ended() const { return children.empty(); }

  const RunningAgentOptions options;
  const std::optional<LogState> state;
  asio::io_context context{1};
  asio::executor_work_guard<asio::io_context::executor_type> work = asio::make_work_guard(context);
  control::AsioNetwork sockets{context};
  StateWriter writer;
  // The thread's:
  AgentNetwork others;
  std::optional<Agent> agent;
  asio::steady_timer timer{context};
  std::map<int, ChildPtr> children;  // by rank

  std::mutex mutex;
  std::condition_variable ended;  // the last child has
  bool has_children = false;      // guarded by the mutex
  std::thread thread;
};

void RunningAgent::Impl::run() {
  log::debug("the agent of server {} runs", options.agent.server);
  control::prefer_this_thread();
  context.run();
  // Children die with the thread that has started them, and are reaped here.
  for (const auto& [rank, child] : children) child->process.kill();
  children.clear();
}

void RunningAgent::Impl::tick() {
  agent->tick(Clock::now());
  timer.expires_after(agent->tick_interval());
  timer.async_wait([this](error_code error) {
    if (!error) tick();
  });
}

uint64_t RunningAgent::Impl::random() {
  uint64_t number = 0;
  CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(&number), sizeof number) == 1, "the system gives no random bytes");
  return number;
}

// --- Ranks.

void RunningAgent::Impl::start_rank(int rank, uint64_t process) {
  Result<ChildPtr> child = start_child(rank, process);
  if (!child) {
    asio::post(context, [this, rank, process, why = child.error().message] {
      agent->rank_ended(Clock::now(), rank, process, why);
    });
    return;
  }
  children[rank] = *child;
  const std::lock_guard lock(mutex);
  has_children = true;
}

Result<ChildPtr> RunningAgent::Impl::start_child(int rank, uint64_t process) {
  ASSIGN_OR_RETURN(auto ends, make_rank_link());
  FileDescriptor words(memfd_create("cachalot-end", MFD_CLOEXEC));
  if (!words) return make_error(ErrorCode::kIo, "memfd_create: {}", std::strerror(errno));
  ProcessOptions command = options.command(rank, process, ends.second.get());
  command.kept.insert(command.kept.end(), {ends.second.get(), words.get()});
  command.environment.push_back(fmt::format("{}={}", kEndReportVariable, words.get()));
  ASSIGN_OR_RETURN(Process started, Process::start(command));
  const int link = fcntl(ends.first.get(), F_DUPFD_CLOEXEC, 0);
  const auto child = std::make_shared<Child>(context, rank, process, std::move(started), link, std::move(words));
  child->read([this, weak = std::weak_ptr(child)](const RankReport& report) {
    if (const ChildPtr speaker = weak.lock()) on_report(speaker, report);
  });
  child->end.async_wait(asio::posix::stream_descriptor::wait_read, [this, child](error_code error) {
    if (!error) on_end(child);
  });
  return child;
}

void RunningAgent::Impl::on_report(const ChildPtr& child, const RankReport& report) {
  child->was_ready = child->was_ready || report.phase != RankPhase::kLoading;
  agent->rank_said(Clock::now(), report);
}

void RunningAgent::Impl::on_end(const ChildPtr& child) {
  const EndReport end = read_end_report(child->words.get(), child->process.wait(), child->memory_kills);
  child->close();
  children.erase(child->rank);
  if (options.rank_ended) options.rank_ended(child->rank, end, child->was_ready);
  agent->rank_ended(Clock::now(), child->rank, child->id, end.text());
  const std::lock_guard lock(mutex);
  has_children = !children.empty();
  ended.notify_all();
}

void RunningAgent::Impl::kill_rank(int rank, uint64_t process) {
  const auto child = children.find(rank);
  if (child != children.end() && child->second->id == process) child->second->process.kill();
}

void RunningAgent::Impl::tell_rank(int rank, uint64_t process, const Order& order) {
  const auto child = children.find(rank);
  if (child != children.end() && child->second->id == process) child->second->tell(order);
}

// --- People.

GroupView RunningAgent::Impl::view() const {
  const auto now = Clock::now();
  const Epoch& epoch = agent->epoch();
  const auto leader = agent->log() ? agent->log()->leader_server() : std::nullopt;
  GroupView view{.server = options.agent.server,
                 .has_majority = agent->has_majority(now),
                 .leads = agent->leads(),
                 .leader = agent->leads() ? options.agent.server : leader.value_or(-1),
                 .epoch = epoch.number,
                 .placement_version = epoch.placement_version,
                 .servers = {}};
  for (int server = 0; server < options.agent.num_agents(); server++) {
    const auto idx = static_cast<size_t>(server);
    view.servers.push_back(
        {.server = server,
         .address = idx < options.network.addresses.size() ? options.network.addresses[idx].text() : "",
         .is_heard = agent->hears(server, now),
         .num_members = static_cast<int>(std::ranges::count(epoch.members, server, &EpochMember::server))});
  }
  return view;
}

Status RunningAgent::Impl::confirm_lost(const std::vector<int>& servers) {
  return agent->confirm_lost(Clock::now(), servers);
}

OperatorAnswer RunningAgent::Impl::answer(const OperatorRequest& request) {
  OperatorAnswer answer;
  if (!request.lost.empty()) {
    const Status confirmed = confirm_lost(request.lost);
    answer.is_refused = !confirmed;
    if (!confirmed) answer.why = confirmed.error().message;
  }
  answer.view = view();
  return answer;
}

// --- From other threads.

RunningAgent::RunningAgent(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

RunningAgent::~RunningAgent() = default;

Result<std::unique_ptr<RunningAgent>> RunningAgent::start(RunningAgentOptions options) {
  std::optional<StateFolder> folder;
  if (!options.state_dir.empty()) {
    ASSIGN_OR_RETURN(folder, StateFolder::open(options.state_dir, options.agent.server));
  }
  if (options.agent.num_agents() > 1 && options.network.secret.empty())
    log::warn(
        "without a group secret (--group-secret-file) whoever reaches an agent's port may take part in the group");
  auto impl = std::make_unique<Impl>(std::move(options), std::move(folder));
  impl->agent.emplace(impl->options.agent, impl->state, *impl, Clock::now());
  if (!impl->options.network.addresses.empty()) RETURN_IF_ERROR(impl->others.start());
  impl->thread = std::thread([raw = impl.get()] { raw->run(); });
  asio::post(impl->context, [raw = impl.get()] { raw->tick(); });
  return std::unique_ptr<RunningAgent>(new RunningAgent(std::move(impl)));
}

void RunningAgent::end_ranks() {
  impl_->on_thread([this] {
    impl_->agent->start_no_more();
    for (const auto& [rank, child] : impl_->children) child->process.signal(SIGTERM);
  });
}

bool RunningAgent::ranks_end_within(std::chrono::milliseconds patience) {
  {
    std::unique_lock lock(impl_->mutex);
    if (!impl_->ended.wait_for(lock, patience, [this] { return !impl_->has_children; })) return false;
  }
  std::this_thread::sleep_for(kLastWords);
  return true;
}

GroupView RunningAgent::view() const {
  return impl_->on_thread([this] { return impl_->view(); });
}

Status RunningAgent::confirm_lost(const std::vector<int>& servers) {
  return impl_->on_thread([this, &servers] { return impl_->confirm_lost(servers); });
}

Result<RunningAgentOptions> agent_options(const AgentsOptions& flags, int server, int ranks_per_server,
                                          int failure_timeout_ms, const std::string& secret_file,
                                          const std::vector<std::pair<std::string, std::string>>& settings) {
  const auto num_servers = std::max(static_cast<int>(flags.addresses.size()), 1);
  const std::chrono::milliseconds failure_timeout(failure_timeout_ms);
  RunningAgentOptions options{.agent = {.server = server,
                                        .num_servers = num_servers,
                                        .ranks_per_server = ranks_per_server,
                                        .has_witness = flags.has_witness,
                                        .failure_timeout = failure_timeout},
                              .network = {.server = server,
                                          .addresses = {},
                                          .has_witness = flags.has_witness,
                                          .secret = {},
                                          .program_version = cachalot::kVersion,
                                          .settings = {},
                                          .failure_timeout = failure_timeout},
                              .state_dir = flags.state_dir,
                              .command = {}};
  std::string addresses;
  for (const std::string& text : flags.addresses) {
    ASSIGN_OR_RETURN(AgentAddress address, parse_agent_address(text));
    addresses += (addresses.empty() ? "" : ",") + address.text();
    options.network.addresses.push_back(std::move(address));
  }
  if (!secret_file.empty()) {
    ASSIGN_OR_RETURN(options.network.secret, read_file(secret_file, kMostHandwrittenBytes));
  }
  options.network.settings = {{"--agents", addresses},
                              {"--witness", flags.has_witness ? "on" : "off"},
                              {"--failure-timeout-ms", std::to_string(failure_timeout_ms)}};
  options.network.settings.insert(options.network.settings.end(), settings.begin(), settings.end());
  return options;
}

Result<OperatorAnswer> ask_agent(const AgentAddress& agent, const std::string& secret, const OperatorRequest& request,
                                 std::chrono::milliseconds patience) {
  asio::io_context context{1};
  control::AsioNetwork network(context);
  std::optional<Result<OperatorAnswer>> answer;
  OperatorCall call(network, secret);
  call.start(agent, request, patience, [&](Result<OperatorAnswer> answered) {
    answer = std::move(answered);
    context.stop();
  });
  context.run();
  if (!answer) return make_error(ErrorCode::kUnavailable, "nobody answers at {}", agent.text());
  return std::move(*answer);
}

}  // namespace cachalot::agents
