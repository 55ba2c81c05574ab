#pragma once

#include <boost/json/value.hpp>
#include <string>
#include <string_view>

// JSON for whoever reads it: numbers as a person writes them (1.5, not 1.5E0), and valid UTF-8 whatever bytes the
// strings hold, since what a client sent may stand in them.
namespace cachalot {

std::string json_text(const boost::json::value& value);
void append_json(const boost::json::value& value, std::string& text);

// A string with its quotes; a number, or null if it is none.
void append_json_string(std::string_view bytes, std::string& text);
void append_json_number(double number, std::string& text);

}  // namespace cachalot
