#pragma once

#include <boost/json/array.hpp>
#include <string>
#include <string_view>

#include "openai/request/tools.h"
#include "openai/responses/responses_request.h"

namespace cachalot::openai {

// Under which the model knows a tool of a namespace.
std::string full_name(std::string_view space, std::string_view name);

// The tools of Responses, which stand flat or in namespaces. `shown`: those that are used, as they came.
void read_response_tools(JsonKeys& keys, const RequestLimits& limits, ToolUse& use, NamespacedTools& namespaced,
                         boost::json::array& shown);
void read_response_tool_choice(JsonKeys& keys, ToolUse& use);

}  // namespace cachalot::openai
