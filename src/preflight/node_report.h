#pragma once

#include <boost/describe/class.hpp>
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
};
BOOST_DESCRIBE_STRUCT(NodeQuestion, (), (address, ports, first_address, network_interface, model, hash_everything))

struct PortFault {
  int port = 0;
  std::string why;
};
BOOST_DESCRIBE_STRUCT(PortFault, (), (port, why))

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
};
BOOST_DESCRIBE_STRUCT(NodeReport, (),
                      (host, version, isa, num_cores, num_numa_domains, memory_bytes, available_bytes, memory_source,
                       open_files, most_open_files, locked_bytes, shared_memory_fault, address_fault, taken_ports,
                       interface, interface_fault, own_interface, rdma_devices, model_fault, fingerprint,
                       tokenizer_fault, config_json, model_bytes, unix_seconds))

// Bytes of this machine that are free or could be; 0: the kernel does not tell.
uint64_t available_memory();

// Looks at this machine. Binds the ports for a moment, and leaves nothing behind.
NodeReport inspect_node(const NodeQuestion& question);

}  // namespace cachalot
