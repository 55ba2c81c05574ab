#pragma once

#include <boost/json/object.hpp>
#include <string_view>

#include "config/json_keys.h"

namespace cachalot::openai {

enum class Endpoint { kCompletions, kChats };

// Every field that vLLM's and OpenAI's requests have is understood here, is of no consequence, or is refused by name
// unless its value asks for nothing (null, false, [], {"type": "text"}). Only fields that nobody knows are ignored, and
// each of them is named once in the log.
void check_field_names(const boost::json::object& object, JsonKeys& keys, Endpoint endpoint);

}  // namespace cachalot::openai
