#pragma once

#include <memory>

#include "base/error.h"
#include "http/server.h"

namespace cachalot {

// A server on loopback that answers every completion and chat at once, one event a token: what a client can load at
// most, whatever the model.
Result<std::unique_ptr<http::Server>> start_instant_server(const http::IoThreads& threads);

}  // namespace cachalot
