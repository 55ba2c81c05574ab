#include "preflight/node_report.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "cluster/up_down.h"
#include "comm/membership/member.h"
#include "comm/ucx/ucx_endpoint.h"
#include "config/version.h"
#include "device/device.h"
#include "device/thread_pool.h"
#include "text/chat_template.h"
#include "text/folder_config.h"
#include "text/tokenizer.h"
#include "weights/checkpoint.h"
#include "weights/model_files.h"

namespace cachalot {
namespace {

void inspect_network(const NodeQuestion& question, NodeReport& report) {
  if (auto fault = listen_fault(question.address, 0)) {  // any port: whether the address is this node's
    report.address_fault = std::move(fault->why);
  } else {
    for (const int port : question.ports) {
      if (auto taken = listen_fault(question.address, static_cast<uint16_t>(port)))
        report.taken_ports.push_back({port, std::move(taken->why)});
    }
    report.own_interface = network_interface_to(question.address).value_or("");
  }
  const Result<std::string> route = network_interface_to(question.first_address);
  report.interface = !question.network_interface.empty() ? question.network_interface : route.value_or("");
  if (!route) {
    report.interface_fault = route.error().message;
  } else if (const Status usable = check_network_interfaces(report.interface); !usable) {
    report.interface_fault = usable.error().message;
  }
  report.rdma_devices = rdma_devices();
}

// Ranks of a node share memory that has no name: a file in memory, sealed, handed over by its descriptor.
std::string shared_memory_fault() {
  const FileDescriptor memory(memfd_create("cachalot-check", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory) return fmt::format("memfd_create: {}", std::strerror(errno));
  if (ftruncate(memory.get(), 4096) != 0) return fmt::format("ftruncate: {}", std::strerror(errno));
  if (fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
    return fmt::format("F_ADD_SEALS: {}", std::strerror(errno));
  return {};
}

rlimit limit(__rlimit_resource resource) {
  rlimit limits{};
  getrlimit(resource, &limits);
  for (rlim_t* value : {&limits.rlim_cur, &limits.rlim_max})
    if (*value > NodeReport::kUnlimited) *value = NodeReport::kUnlimited;
  return limits;
}

void inspect_machine(NodeReport& report) {
  report.host = this_host();
  report.version = kVersion;
  report.isa = isa_name(detect_isa());
  const std::vector<int> cores = allowed_cores();
  report.num_cores = static_cast<int>(cores.size());
  report.num_numa_domains = static_cast<int>(numa_domains(cores).size());
  const MemoryInfo memory = memory_info();
  report.memory_bytes = memory.total_bytes;
  report.memory_source = memory.source;
  report.available_bytes = available_memory();
  report.open_files = limit(RLIMIT_NOFILE).rlim_cur;
  report.most_open_files = limit(RLIMIT_NOFILE).rlim_max;
  report.locked_bytes = limit(RLIMIT_MEMLOCK).rlim_cur;
  report.shared_memory_fault = shared_memory_fault();
}

// What would end a server's start once it has the weights; empty: nothing.
std::string text_fault(const std::string& model, int vocab_size) {
  std::error_code ignored;
  if (const std::string file = Tokenizer::file_of(model); !std::filesystem::is_regular_file(file, ignored))
    return file + " is not there";
  if (const auto tokenizer = Tokenizer::load(model, vocab_size); !tokenizer) return tokenizer.error().message;
  const auto chat_template = ChatTemplate::load(model);
  if (!chat_template && chat_template.error().code != ErrorCode::kNotFound) return chat_template.error().message;
  const auto generation_config = load_generation_config(model, vocab_size);
  return generation_config ? "" : generation_config.error().message;
}

void inspect_model(const NodeQuestion& question, NodeReport& report) {
  const Result<ModelFiles> files = ModelFiles::open(question.model);
  if (!files) {
    report.model_fault = files.error().message;
    return;
  }
  report.model_bytes = files->checkpoint().num_bytes();
  report.config_json = read_file(question.model + "/config.json").value_or("");
  const Result<std::string> fingerprint = fingerprint_of(
      files->checkpoint(), question.hash_everything ? FingerprintDepth::kWhole : FingerprintDepth::kSampled);
  if (fingerprint) {
    report.fingerprint = *fingerprint;
  } else {
    report.model_fault = fingerprint.error().message;
  }
  report.tokenizer_fault = text_fault(question.model, files->config().vocab_size);
}

}  // namespace

uint64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string key, unit;
  for (uint64_t kilobytes = 0; file >> key >> kilobytes >> unit;)
    if (key == "MemAvailable:") return kilobytes << 10;
  return 0;
}

NodeReport inspect_node(const NodeQuestion& question) {
  NodeReport report;
  inspect_machine(report);
  inspect_network(question, report);
  inspect_model(question, report);
  report.unix_seconds = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  return report;
}

}  // namespace cachalot
