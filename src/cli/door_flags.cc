#include <boost/json/parse.hpp>

#include "base/log.h"
#include "cli/flags.h"
#include "config/environment.h"

namespace cachalot {

namespace {

// As vLLM has them, a JSON list; or the words themselves.
void add_words(CLI::App& app, const std::string& name, std::vector<std::string>& target, const std::string& help) {
  app.add_option_function<std::vector<std::string>>(
         name,
         [&target, name](const std::vector<std::string>& texts) {
           target.clear();
           for (const std::string& text : texts) {
             boost::system::error_code error;
             const boost::json::value list = text.starts_with('[') ? boost::json::parse(text, error)
                                                                   : boost::json::array{boost::json::string(text)};
             const boost::json::array* const words = error ? nullptr : list.if_array();
             for (size_t idx = 0; words && idx < words->size(); idx++)
               if ((*words)[idx].is_string()) target.emplace_back((*words)[idx].get_string());
             if (!words || (words->size() > 0 && !words->back().is_string()))
               throw CLI::ValidationError(name, "must be a JSON list of strings, as [\"https://chat.example\"]");
           }
         },
         help)
      ->expected(1, -1)
      ->type_name("JSON")
      ->trigger_on_parse(false);
}

void add_tls_flags(CLI::App& app, TlsOptions& tls) {
  app.add_option("--ssl-certfile", tls.certfile,
                 "Certificate (PEM), with those that vouch for it; with it TLS is spoken, and nothing else");
  app.add_option("--ssl-keyfile", tls.keyfile, "Its key (PEM), if it is not in the same file");
  app.add_option("--ssl-ca-certs", tls.ca_certs, "Authorities (PEM) that clients' certificates are checked by");
  add_whole(app, "--ssl-cert-reqs", tls.cert_reqs, {.most = 2},
            "A client's certificate: 0: is not asked for, 1: may come, 2: must come");
  app.add_option("--ssl-ciphers", tls.ciphers, "Ciphers of TLS 1.2, in OpenSSL's words");
  add_switch(app, "enable-ssl-refresh", tls.refresh, "Read certificate and key again when they change (off)");
}

}  // namespace

void add_door_flags(CLI::App& app, DoorOptions& door) {
  app.add_option("--api-key-file", door.api_key_file,
                 "YAML: a list of name, key and limits of each client; read again when it changes");
  add_words(app, "--allowed-origins", door.cors.origins,
            "Addresses whose pages may ask this server (CORS), or *; none if absent");
  add_words(app, "--allowed-methods", door.cors.methods, "The methods that they may use, or *");
  add_words(app, "--allowed-headers", door.cors.headers, "The headers that they may send, or *");
  add_switch(app, "allow-credentials", door.cors.credentials, "Let them send cookies (off)");
  add_words(app, "--allowed-hosts", door.allowed_hosts,
            "Further names by which a server on loopback may be called, or *; others than localhost are refused");
  app.add_option("--uds", door.uds, "Path of a Unix domain socket to listen on, in place of a port");
  add_tls_flags(app, door.tls);
}

Status check_door(const DoorOptions& door) {
  const TlsOptions& tls = door.tls;
  if (!tls.is_on() && (!tls.keyfile.empty() || !tls.ca_certs.empty() || tls.cert_reqs > 0 || tls.refresh))
    return make_parameter_error("--ssl-certfile", "--ssl-certfile is missing: without a certificate there is no TLS");
  return {};
}

Status complete_api_keys(std::vector<std::string>& keys, const std::string& key_file) {
  if (std::ranges::find(keys, "") != keys.end())
    return make_parameter_error("--api-key",
                                "--api-key '': a key may not be empty; leave --api-key out for an open API");
  std::string source = !key_file.empty() ? "--api-key-file" : keys.empty() ? "" : "--api-key";
  for (const char* name : {"CACHALOT_API_KEY", "VLLM_API_KEY"}) {
    const std::string key = environment_variable(name);
    if (key.empty()) continue;
    if (source.empty()) {
      keys.push_back(key);
      source = name;
    } else if (std::ranges::find(keys, key) == keys.end()) {
      log::info("{} holds; {} names another key, which opens nothing", source, name);
    }
  }
  return {};
}

}  // namespace cachalot
