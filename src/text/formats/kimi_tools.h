#pragma once

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>
#include <optional>
#include <string>

// What the code beside Kimi's tokenizers does with a request's tools before the chat template sees them.
namespace cachalot {

// With the keys of every object in order.
boost::json::value sorted_deeply(const boost::json::value& value);

// The declaration of sorted tools, as in OpenAI's API, that Kimi K2.5 and later know: a namespace of TypeScript. None
// if a schema holds what has no such form; then templates write the JSON.
std::optional<std::string> tools_in_typescript(const boost::json::array& tools);

}  // namespace cachalot
