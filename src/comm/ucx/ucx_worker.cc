#include "comm/ucx/ucx_worker.h"

#include <ucs/config/global_opts.h>

#include <array>
#include <string_view>

#include "base/log.h"

namespace cachalot {
namespace {

using Config = std::unique_ptr<ucp_config_t, decltype([](ucp_config_t* config) { ucp_config_release(config); })>;

std::unexpected<Error> ucx_error(ErrorCode code, std::string_view what, ucs_status_t status) {
  return make_error(code, "UCX: {}: {}", what, ucs_status_string(status));
}

// UCX prints faults of connections by itself; here they are errors, which are told once. A level that the user has
// asked for (UCX_LOG_LEVEL) stays.
void quiet_ucx() {
  std::array<char, 32> level{};
  if (spdlog::should_log(spdlog::level::debug) ||
      ucs_global_opts_get_value("LOG_LEVEL", level.data(), level.size()) != UCS_OK)
    return;
  if (std::string_view(level.data()) == "WARN") ucs_global_opts_set_value("LOG_LEVEL", "FATAL");
}

Result<Config> make_config(const std::string& transports, const std::string& net_devices) {
  ucp_config_t* read = nullptr;
  if (const ucs_status_t status = ucp_config_read(nullptr, nullptr, &read); status != UCS_OK)
    return ucx_error(ErrorCode::kInvalidArgument, "a UCX_ variable of the environment makes no sense", status);
  Config config(read);
  const auto set = [&](const char* key, const std::string& value) -> Status {
    if (const ucs_status_t status = ucp_config_modify(config.get(), key, value.c_str()); status != UCS_OK)
      return make_error(ErrorCode::kInvalidArgument, "UCX does not take UCX_{}={}: {}", key, value,
                        ucs_status_string(status));
    return {};
  };
  if (!transports.empty()) RETURN_IF_ERROR(set("TLS", transports));
  if (!net_devices.empty()) RETURN_IF_ERROR(set("NET_DEVICES", net_devices));
  // A host that does not answer must not hold up this thread while the others connect.
  RETURN_IF_ERROR(set("CONN_NB", "y"));
  return config;
}

}  // namespace

Result<std::unique_ptr<UcxWorker>> UcxWorker::create(const std::string& transports, const std::string& net_devices) {
  quiet_ucx();
  ASSIGN_OR_RETURN(const Config config, make_config(transports, net_devices));
  std::unique_ptr<UcxWorker> made(new UcxWorker);
  const ucp_params_t params{.field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_TAG | UCP_FEATURE_WAKEUP};
  if (const ucs_status_t status = ucp_init(&params, config.get(), &made->context_); status != UCS_OK)
    return ucx_error(ErrorCode::kUnavailable,
                     fmt::format("no transport over '{}' on the devices '{}'", transports, net_devices), status);
  const ucp_worker_params_t worker_params{.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                          .thread_mode = UCS_THREAD_MODE_SERIALIZED};
  if (const ucs_status_t status = ucp_worker_create(made->context_, &worker_params, &made->worker_); status != UCS_OK)
    return ucx_error(ErrorCode::kUnavailable, "cannot make a worker", status);
  if (const ucs_status_t status = ucp_worker_get_efd(made->worker_, &made->event_fd_); status != UCS_OK)
    return ucx_error(ErrorCode::kUnsupported, "its transports cannot wake a sleeper", status);
  return made;
}

UcxWorker::~UcxWorker() {
  if (worker_ != nullptr) ucp_worker_destroy(worker_);
  if (context_ != nullptr) ucp_cleanup(context_);
}

Result<std::string> UcxWorker::address() const {
  ucp_address_t* bytes = nullptr;
  size_t size = 0;
  if (const ucs_status_t status = ucp_worker_get_address(worker_, &bytes, &size); status != UCS_OK)
    return ucx_error(ErrorCode::kUnavailable, "a worker has no address", status);
  std::string address(reinterpret_cast<const char*>(bytes), size);
  ucp_worker_release_address(worker_, bytes);
  return address;
}

}  // namespace cachalot
