#include "config/environment.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/text.h"

namespace cachalot {

std::string environment_variable(const char* name) {
  const char* const value = std::getenv(name);
  return value ? value : "";
}

std::vector<std::string> environment_variables(std::string_view prefix) {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; variable++) {
    if (std::string_view(*variable).starts_with(prefix)) variables.emplace_back(*variable);
  }
  std::ranges::sort(variables);
  return variables;
}

namespace {

constexpr int kMostLaunchedRanks = 1 << 16;
constexpr uint16_t kFirstPort = 20'000, kNumPorts = 12'000;

// Open MPI sets the last two since version 4 and 2, MPICH's Hydra and Intel's the third of theirs.
struct JobLauncher {
  const char* rank;
  const char* size;
  const char* local_size;
  const char* job[2];  // together they tell a job from others
};
constexpr JobLauncher kLaunchers[] = {
    {"OMPI_COMM_WORLD_RANK",
     "OMPI_COMM_WORLD_SIZE",
     "OMPI_COMM_WORLD_LOCAL_SIZE",
     {"PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"}},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS", {"PMI_JOBID", "SLURM_JOB_ID"}},
    {"SLURM_PROCID", "SLURM_NTASKS", nullptr, {"SLURM_JOB_ID", "SLURM_STEP_ID"}},
};

Result<int> read_number(const Environment& environment, const std::string& name, int least, int most) {
  const std::optional<std::string> text = environment(name);
  if (!text) return make_parameter_error(name, "{} is not set, though its companion is", name);
  const std::optional<int> value = parse_number<int>(*text);
  if (!value || *value < least || *value > most) {
    return make_parameter_error(name, "{}={} is no number from {} to {}", name, *text, least, most);
  }
  return *value;
}

// The same on every rank, and seldom that of another job.
uint16_t port_of_job(const Environment& environment, const JobLauncher& launcher, bool one_node) {
  uint32_t hash = 2'166'136'261;  // FNV-1a
  bool told = false;
  for (const char* name : launcher.job) {
    const std::string text = environment(name).value_or("");
    told |= !text.empty();
    for (const char character : text + '/') hash = (hash ^ static_cast<unsigned char>(character)) * 16'777'619;
  }
  if (told) return static_cast<uint16_t>(kFirstPort + hash % kNumPorts);
  // Hydra names no job; its processes of one node have one parent.
  return one_node ? static_cast<uint16_t>(kFirstPort + getppid() % kNumPorts) : uint16_t{0};
}

// mpirun's own address, as its processes are told it: "1234.0;tcp://10.0.0.1,10.1.0.1:45678". Rank 0 is on its node
// unless a host file says otherwise.
std::string open_mpi_address(const std::string& uri) {
  constexpr std::string_view kScheme = "tcp://";
  const size_t scheme = uri.find(kScheme);
  if (scheme == std::string::npos) return {};
  const size_t begin = scheme + kScheme.size();
  const size_t end = uri.find_first_of(",:", begin);
  return end == std::string::npos ? std::string() : uri.substr(begin, end - begin);
}

std::string address_of_rank_0(const Environment& environment) {
  if (const auto uri = environment("OMPI_MCA_orte_hnp_uri")) return open_mpi_address(*uri);
  for (const char* name : {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"}) {
    if (const auto nodes = environment(name)) return first_slurm_node(*nodes);
  }
  return {};
}

}  // namespace

std::string first_slurm_node(const std::string& nodes) {
  const size_t end = nodes.find_first_of(",[");
  if (end == std::string::npos || nodes[end] == ',') return nodes.substr(0, end);
  const size_t first = end + 1;
  return nodes.substr(0, end) + nodes.substr(first, nodes.find_first_of("-,]", first) - first);
}

Result<std::optional<LaunchedRank>> read_launched_rank(const Environment& environment) {
  for (const JobLauncher& launcher : kLaunchers) {
    if (!environment(launcher.rank)) continue;
    LaunchedRank launched{.variables = fmt::format("{} and {}", launcher.rank, launcher.size)};
    ASSIGN_OR_RETURN(launched.size, read_number(environment, launcher.size, 1, kMostLaunchedRanks));
    ASSIGN_OR_RETURN(launched.rank, read_number(environment, launcher.rank, 0, launched.size - 1));
    if (launcher.local_size && environment(launcher.local_size)) {
      ASSIGN_OR_RETURN(launched.local_size, read_number(environment, launcher.local_size, 1, launched.size));
    }
    const bool one_node = launched.local_size == launched.size || environment("SLURM_STEP_NUM_NODES") == "1" ||
                          environment("SLURM_NNODES") == "1";
    if (one_node) launched.local_size = launched.size;
    launched.address = one_node ? "127.0.0.1" : address_of_rank_0(environment);
    launched.port = port_of_job(environment, launcher, one_node);
    return launched;
  }
  return std::nullopt;
}

}  // namespace cachalot
