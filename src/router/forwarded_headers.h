#pragma once

#include <string>
#include <string_view>

#include "http/message.h"

namespace cachalot::router {

// The fields of a client's request as a replica gets them: without those that concern only the connection that they
// came over, with X-Forwarded-For and -Proto, and with the request's id. `server_api_key`, if any, replaces the
// client's.
http::Headers request_fields(const http::Request& request, const std::string& request_id,
                             const std::string& server_api_key);

// The fields of a replica's answer as the client gets them; Content-Length stays.
http::Headers response_fields(const http::Headers& answer, const std::string& request_id);

// "10.0.0.7" of "10.0.0.7:53412", "::1" of "[::1]:53412".
std::string_view address_of(std::string_view peer);

}  // namespace cachalot::router
