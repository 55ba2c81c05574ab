#pragma once

#include <string>
#include <vector>

// Who may come in, and how: the same for a server and the router, under vLLM's names where it has them.
namespace cachalot {

struct TlsOptions {
  std::string certfile, keyfile;  // PEM; no certificate: plain HTTP. No key: it stands in the certificate's file
  std::string ca_certs;           // that clients' certificates are checked by
  int cert_reqs = 0;              // a client's certificate: 0: is not asked for; 1: may come; 2: must come
  std::string ciphers;            // OpenSSL's words, for TLS 1.2; empty: its own
  bool refresh = false;           // the files are read again when they change

  bool is_on() const { return !certfile.empty(); }
};

// What pages of other addresses may do (CORS). Nothing, unless origins are named.
struct CorsOptions {
  std::vector<std::string> origins;  // "https://chat.example"; "*": all
  std::vector<std::string> methods{"*"}, headers{"*"};
  bool credentials = false;

  bool allows(const std::string& origin) const;
};

struct DoorOptions {
  TlsOptions tls;
  CorsOptions cors;
  std::string uds;                         // path of a socket, in place of a port
  std::vector<std::string> allowed_hosts;  // further names of a server that listens on loopback; "*": any
  std::string api_key_file;
};

inline bool CorsOptions::allows(const std::string& origin) const {
  for (const std::string& allowed : origins)
    if (allowed == "*" || allowed == origin) return true;
  return false;
}

}  // namespace cachalot
