#pragma once

#include <boost/json/value.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "config/json.h"

namespace cachalot::openai {

// What a protocol calls the parts of a message's content, by words.
struct PartTypes {
  std::string_view texts;
  std::string_view unseen = {};  // pictures, sound, files: what these models do not see; what of them is text is read
  bool skips_empty = false;
};

// The text of a part, or a line in place of what is not seen, which tells the model so. None: it is no such part, which
// is noted.
std::optional<std::string> text_of_part(const boost::json::value& part, const std::string& where,
                                        const PartTypes& types, JsonKeys& keys);

// A string, or parts, which stand on lines of their own. False: it is neither, which is noted.
bool read_content(const boost::json::value* content, const std::string& where, const PartTypes& types, JsonKeys& keys,
                  std::string& text);

}  // namespace cachalot::openai
