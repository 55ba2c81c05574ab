#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/file.h"

namespace cachalot {

// "127.0.0.1:80", "[::1]:80"
std::string address_text(const std::string& host, uint16_t port);

// A free port of this machine, for a server that is yet to start, maybe in another process: as long as this lives, the
// system gives it to nobody else who asks for any, and whoever asks for it by its number, as servers do
// (SO_REUSEADDR), can listen there.
class KeptPort {
 public:
  static Result<KeptPort> keep(const std::string& host = "127.0.0.1");
  uint16_t port() const { return port_; }

 private:
  KeptPort(FileDescriptor keeper, uint16_t port) : keeper_(std::move(keeper)), port_(port) {}

  FileDescriptor keeper_;  // bound, and does not listen
  uint16_t port_;
};

struct ListenFault {
  bool is_of_address;  // at no port; else this port cannot be had
  std::string why;
};
// Why nobody can listen there on this machine; nothing: one can. Port 0: any. Binds it for a moment.
std::optional<ListenFault> listen_fault(const std::string& host, uint16_t port);

// What the operating system's refusal to listen at a port means, with the process that holds it, where that can be
// seen.
std::string listen_error_text(int error, uint16_t port);

}  // namespace cachalot
