#pragma once

#include <boost/json/array.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "text/grammar.h"
#include "text/tool_call_parser.h"

namespace cachalot {

struct ToolCallRules {
  bool must_call = true;                 // nothing but calls; else text, and then perhaps calls
  bool may_repeat = true;                // several calls
  std::string_view only = {};            // the one tool that may be called; empty: any
  std::optional<GrammarText> form = {};  // of an answer that calls none; none: any text
};

// The grammar of answers that call these tools (as in OpenAI's API) in the format, with arguments as their schemas say.
GrammarText tool_call_grammar(const ToolCallSyntax& syntax, const Grammars& grammars, const boost::json::array& tools,
                              const ToolCallRules& rules);

}  // namespace cachalot
