#include "serve/rank_epochs.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "comm/group.h"

namespace cachalot {
namespace {

// Of each rank; who is no member has one of its own, for all that anybody knows.
std::vector<int> nodes_of(const std::vector<Member>& members, int num_ranks) {
  std::vector<int> nodes = consecutive(static_cast<int>(members.size()), num_ranks);
  for (const Member& member : members)
    nodes[static_cast<size_t>(member.rank)] =
        static_cast<int>(std::ranges::find(members, member.node, &Member::node) - members.begin());
  return nodes;
}

}  // namespace

RankEpochs::RankEpochs(WorldOptions options, Member own, std::function<void(const Standing&)> on_change)
    : options_(std::move(options)), own_(std::move(own)), on_change_(std::move(on_change)) {
  open_ways();
  on_change_(standing_);
}

void RankEpochs::attach(Mesh& mesh, Lockstep* lockstep) {
  const std::lock_guard lock(mutex_);
  mesh_ = &mesh;
  lockstep_ = lockstep;
}

void RankEpochs::open_ways() {
  Result<RankWays> ways = RankWays::open(options_);
  if (!ways) log::warn("this rank cannot be found in another epoch: {}", ways.error().message);
  standing_.card = ways ? ways->card(own_) : std::string();
  ways_.reset();
  if (ways) ways_.emplace(std::move(*ways));
  const std::lock_guard lock(mutex_);
  card_ = standing_.card;
}

bool RankEpochs::keeps_all(const Decision& before, const Decision& now) {
  return std::ranges::all_of(before.seats, [&](const Seat& seat) {
    const auto found = std::ranges::find(now.seats, seat.rank, &Seat::rank);
    return found != now.seats.end() && found->process == seat.process;
  });
}

void RankEpochs::decide(Decision decision) {
  const std::lock_guard lock(mutex_);
  if (decision.number <= latest_.number) return;
  latest_ = std::move(decision);
  changed_.notify_all();
  connecting_.request_stop();
  if (now_.number == 0 || !mesh_) return;
  if (lockstep_ && keeps_all(now_, latest_)) {
    lockstep_->end_epoch(now_.number);
  } else {
    mesh_->end_epoch(now_.number,
                     {ErrorCode::kUnavailable, fmt::format("epoch {} takes its place", latest_.number), {}});
  }
}

void RankEpochs::stand_behind_until(std::chrono::steady_clock::time_point time) {
  const std::lock_guard lock(mutex_);
  stands_until_ = time;
}

const RankEpochs::Seat* RankEpochs::new_seat() const {
  const auto seat = std::ranges::find(latest_.seats, own_.rank, &Seat::rank);
  return latest_.number > now_.number && seat != latest_.seats.end() ? &*seat : nullptr;
}

// Waits for a decision that has this rank, as it can be found now. One that has it as it was found before is over at
// once, as whoever decides then hears.
Result<RankEpochs::Decision> RankEpochs::await_decision(const Error& why) {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return is_cancelled_ || new_seat(); });
      if (is_cancelled_)
        return make_error(ErrorCode::kCancelled, "this rank looks for no other epoch: {}", why.message);
      const bool is_found = !card_.empty() && new_seat()->card == card_;
      now_ = latest_;
      connecting_ = {};
      if (is_found) return now_;
    }
    tell(now_.number);
  }
}

void RankEpochs::tell(uint32_t epoch) {
  standing_.epoch = epoch;
  on_change_(standing_);
}

Result<Epochs::Next> RankEpochs::next(const Error& why) {
  if (!ways_) open_ways();
  standing_.is_ready = true;
  standing_.is_member = false;
  tell(now_.number);
  ASSIGN_OR_RETURN(const Decision decision, await_decision(why));
  Next next{.epoch = {.number = decision.number, .members = {}}, .transports = {}};
  std::vector<Member> members;
  for (const Seat& seat : decision.seats) {
    ASSIGN_OR_RETURN(Member member, RankWays::read_card(seat.card));
    next.epoch.members.push_back({.rank = seat.rank, .process = seat.process, .name = member.name()});
    members.push_back(std::move(member));
  }
  {
    const std::lock_guard lock(mutex_);
    members_ = members;
  }
  next.epoch.nodes = nodes_of(members, options_.join.size);
  // The next epoch may be decided while this one is still to come.
  RankWays ways = std::move(*ways_);
  open_ways();
  on_change_(standing_);
  auto transports = ways.connect(decision.number, members, [](int, int) { return Status(); }, connecting_.get_token());
  // Who does not answer is lost, as the next decision will say.
  if (!transports)
    return make_error(ErrorCode::kUnavailable, "epoch {} does not come to be: {}", decision.number,
                      transports.error().message);
  next.transports = std::move(*transports);
  return next;
}

void RankEpochs::entered(uint32_t placement_version, uint64_t num_steps) {
  standing_.is_member = true;
  standing_.placement_version = placement_version;
  standing_.num_steps = num_steps;
  tell(now_.number);
}

std::vector<Member> RankEpochs::members() const {
  const std::lock_guard lock(mutex_);
  return members_;
}

bool RankEpochs::may_step() {
  const std::lock_guard lock(mutex_);
  return std::chrono::steady_clock::now() < stands_until_;
}

void RankEpochs::cancel() {
  const std::lock_guard lock(mutex_);
  is_cancelled_ = true;
  changed_.notify_all();
}

}  // namespace cachalot
