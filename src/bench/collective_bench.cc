#include "bench/collective_bench.h"

#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <numeric>
#include <span>

#include "base/math.h"
#include "comm/group.h"
#include "config/version.h"

namespace cachalot {

namespace {

using Clock = std::chrono::steady_clock;

// What one rank saw of a size. Every rank gets all ranks'.
struct RankFigure {
  std::vector<double> seconds;  // of each iteration
  double bytes_sent = 0;        // in all of them
  double num_wrong = 0;         // an integer, exact up to 2^53

  std::vector<double> words() const {
    std::vector<double> words = seconds;
    words.push_back(bytes_sent);
    words.push_back(num_wrong);
    return words;
  }
};

double bytes_sent_by(const Mesh& mesh) {
  double bytes = 0;
  for (const Mesh::Traffic& traffic : mesh.traffic()) bytes += static_cast<double>(traffic.bytes_sent);
  return bytes;
}

// Iterations follow each other without a barrier, as in a model's layers: no rank gets ahead of the others by more than
// one call, and its time is from the end of one call to the end of the next.
Result<RankFigure> measure(Collective& collective, Mesh& mesh, Group& group, const CollectiveBenchOptions& options) {
  RankFigure figure;
  figure.seconds.resize(static_cast<size_t>(options.iterations));
  RETURN_IF_ERROR(group.barrier({.operation = "bench barrier"}));
  for (int iteration = 0; iteration < options.warmup; iteration++) RETURN_IF_ERROR(collective.run());
  const double sent_before = bytes_sent_by(mesh);
  Clock::time_point start = Clock::now();
  for (double& seconds : figure.seconds) {
    RETURN_IF_ERROR(collective.run());
    const Clock::time_point end = Clock::now();
    seconds = std::chrono::duration<double>(end - start).count();
    start = end;
  }
  figure.bytes_sent = bytes_sent_by(mesh) - sent_before;
  for (int check = 0; check < options.checks; check++) {
    ASSIGN_OR_RETURN(const uint64_t num_wrong, collective.check());
    figure.num_wrong += static_cast<double>(num_wrong);
  }
  return figure;
}

// all [num_ranks][words of a RankFigure]
Result<std::vector<double>> gather(const RankFigure& own, Group& group) {
  const std::vector<double> words = own.words();
  const auto bytes = static_cast<int64_t>(words.size() * sizeof(double));
  std::vector<double> all(words.size() * static_cast<size_t>(group.size()));
  RETURN_IF_ERROR(
      group.all_gather(View<const std::byte, 2>(std::as_bytes(std::span(words)).data(), 1, bytes),
                       RowPartition(group.size(), group.size()),
                       View<std::byte, 2>(std::as_writable_bytes(std::span(all)).data(), group.size(), bytes),
                       {.operation = "bench figures"}));
  return all;
}

CollectiveFigure summarize(const std::vector<double>& all, int num_ranks, const CollectiveBenchOptions& options) {
  const size_t num_words = all.size() / static_cast<size_t>(num_ranks);
  std::vector<double> sums(num_words);
  for (size_t idx = 0; idx < all.size(); idx++) sums[idx % num_words] += all[idx];
  const auto num_iterations = static_cast<size_t>(options.iterations);
  return {
      .seconds = median(std::vector<double>(sums.begin(), sums.begin() + options.iterations)) / num_ranks,
      .bytes_sent = sums[num_iterations] / num_ranks / options.iterations,
      .num_wrong = static_cast<uint64_t>(sums[num_iterations + 1]),
      .was_checked = options.checks > 0,
  };
}

}  // namespace

std::vector<uint64_t> CollectiveBenchOptions::sizes() const {
  std::vector<uint64_t> sizes;
  for (uint64_t size = min_size; size <= max_size;) {
    sizes.push_back(size);
    const uint64_t step = step_size > 0 ? step_size : size * (step_factor - 1);
    if (step > max_size - size) break;
    size += step;
  }
  return sizes;
}

Status run_collective_bench(Collective& collective, Mesh& mesh, const CollectiveBenchOptions& options,
                            const std::function<void(const CollectiveFigure&)>& on_figure) {
  std::vector<int> members(static_cast<size_t>(mesh.size()));
  std::iota(members.begin(), members.end(), 0);
  ASSIGN_OR_RETURN(const std::unique_ptr<Group> group, make_message_group(mesh, {.members = members}));
  for (const uint64_t size : options.sizes()) {
    ASSIGN_OR_RETURN(const CollectiveSize actual, collective.set_size(size));
    ASSIGN_OR_RETURN(const RankFigure own, measure(collective, mesh, *group, options));
    ASSIGN_OR_RETURN(const std::vector<double> all, gather(own, *group));
    CollectiveFigure figure = summarize(all, mesh.size(), options);
    figure.size = actual;
    on_figure(figure);
  }
  return group->barrier({.operation = "bench end"});
}

namespace {

constexpr char kColumns[] = "{:>12}{:>14}{:>10}{:>12}{:>9}{:>9}{:>8}\n";

std::string comment(const std::string& columns) {
  return "#" + columns.substr(1);
}

}  // namespace

std::string CollectiveTable::header(const std::vector<Rank>& ranks, const CollectiveBenchOptions& options) const {
  std::string text = fmt::format(
      "# cachalot {} bench {}: ranks {} sizes {} to {} {} step {} warmup iters: {} iters: {} validation: {}\n#\n"
      "# Ranks\n",
      kVersion, name, ranks.size(), options.min_size, options.max_size, size_unit,
      options.step_size > 0 ? fmt::format("{}({})", options.step_size, size_unit)
                            : fmt::format("{}(factor)", options.step_factor),
      options.warmup, options.iterations, options.checks);
  for (size_t rank = 0; rank < ranks.size(); rank++) {
    text += fmt::format("#  Rank {:>3} Pid {:>7} on {}{}\n", rank, ranks[rank].pid, ranks[rank].host,
                        ranks[rank].transport.empty() ? "" : " through " + ranks[rank].transport);
  }
  text += "#\n";
  text += comment(fmt::format(kColumns, "size", "count", "type", "time", "algbw", "busbw", "#wrong"));
  text += comment(fmt::format(kColumns, "(B)", size_unit == "B" ? "(elements)" : "(" + std::string(size_unit) + ")", "",
                              "(us)", "(GB/s)", "(GB/s)", ""));
  return text;
}

std::string CollectiveTable::row(const CollectiveFigure& figure) const {
  return fmt::format(kColumns, figure.size.bytes, figure.size.count, type, fmt::format("{:.2f}", figure.seconds * 1e6),
                     fmt::format("{:.3f}", figure.algorithm_bandwidth() / 1e9),
                     fmt::format("{:.3f}", figure.bus_bandwidth() / 1e9),
                     figure.was_checked ? fmt::to_string(figure.num_wrong) : "N/A");
}

std::string CollectiveTable::footer(const std::vector<CollectiveFigure>& figures) {
  uint64_t num_wrong = 0;
  double bandwidth = 0;
  for (const CollectiveFigure& figure : figures) {
    num_wrong += figure.num_wrong;
    bandwidth += figure.bus_bandwidth() / 1e9 / static_cast<double>(figures.size());
  }
  return fmt::format("# Wrong values      : {} {}\n# Avg bus bandwidth : {:.4g}\n", num_wrong,
                     num_wrong == 0 ? "OK" : "FAILED", bandwidth);
}

}  // namespace cachalot
