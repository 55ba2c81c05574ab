#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace cachalot {

// What is asked of a node before a cluster is started on it.
struct NodeQuestion {
  std::string address;            // where its servers are to listen
  std::vector<int> ports;         // at that address
  std::string first_address;      // of the first node, where ranks meet
  std::string network_interface;  // that the file names; may be empty
  std::string model;              // folder
  bool hash_everything = false;

  template <class Archive, class Self>
  static void fields(Archive& archive, Self& self) {
    archive("address", self.address);
    archive("ports", self.ports);
    archive("first_address", self.first_address);
    archive("network_interface", self.network_interface);
    archive("model", self.model);
    archive("hash_everything", self.hash_everything);
  }
};

struct PortFault {
  int port = 0;
  std::string why;

  template <class Archive, class Self>
  static void fields(Archive& archive, Self& self) {
    archive("port", self.port);
    archive("why", self.why);
  }
};

// What it says. A fault is what the operating system or the files said; empty: none.
struct NodeReport {
  static constexpr uint64_t kUnlimited = ~uint64_t{0} >> 1;  // of limits

  std::string host, version, isa;
  int num_cores = 0, num_numa_domains = 0;
  uint64_t memory_bytes = 0, available_bytes = 0;
  std::string memory_source;
  uint64_t open_files = 0, most_open_files = 0, locked_bytes = 0;  // soft limit, hard limit, RLIMIT_MEMLOCK
  std::string shared_memory_fault;
  std::string address_fault;  // it is not this node's
  std::vector<PortFault> taken_ports;
  // The interface of traffic to the first node (on that: which has its address), and the one with the node's address.
  std::string interface, interface_fault, own_interface;
  std::string rdma_devices;  // as UCX names them; empty: none
  std::string model_fault, fingerprint, tokenizer_fault;
  std::string config_json;
  uint64_t model_bytes = 0;
  double unix_seconds = 0;  // at the end

  template <class Archive, class Self>
  static void fields(Archive& archive, Self& self) {
    archive("host", self.host);
    archive("version", self.version);
    archive("isa", self.isa);
    archive("num_cores", self.num_cores);
    archive("num_numa_domains", self.num_numa_domains);
    archive("memory_bytes", self.memory_bytes);
    archive("available_bytes", self.available_bytes);
    archive("memory_source", self.memory_source);
    archive("open_files", self.open_files);
    archive("most_open_files", self.most_open_files);
    archive("locked_bytes", self.locked_bytes);
    archive("shared_memory_fault", self.shared_memory_fault);
    archive("address_fault", self.address_fault);
    archive("taken_ports", self.taken_ports);
    archive("interface", self.interface);
    archive("interface_fault", self.interface_fault);
    archive("own_interface", self.own_interface);
    archive("rdma_devices", self.rdma_devices);
    archive("model_fault", self.model_fault);
    archive("fingerprint", self.fingerprint);
    archive("tokenizer_fault", self.tokenizer_fault);
    archive("config_json", self.config_json);
    archive("model_bytes", self.model_bytes);
    archive("unix_seconds", self.unix_seconds);
  }
};

// Looks at this machine. Binds the ports for a moment, and leaves nothing behind.
NodeReport inspect_node(const NodeQuestion& question);

}  // namespace cachalot
