#pragma once

#include <optional>
#include <string>

#include "config/json.h"
#include "text/grammar.h"

namespace cachalot::openai {

// What a request wants its answer to be: OpenAI's response_format, vLLM's structured_outputs, and its older guided_*.
// None: any text. Two wishes at once are refused.
std::optional<GrammarText> read_structured_outputs(JsonKeys& keys);

// The same in one object, as Responses have it in text.format and Anthropic's Messages in output_config.format: of type
// text, json_object or json_schema, with a schema beside it, which is `told`, too, to templates that show it.
std::optional<GrammarText> read_text_format(const boost::json::value& format, const std::string& key, JsonKeys& keys,
                                            boost::json::object& told);

// A grammar in the form of llama.cpp and XGrammar ("root ::= ..."), written as llguidance reads it; none: it is not in
// that form.
std::optional<std::string> lark_of_gbnf(std::string_view grammar);

}  // namespace cachalot::openai
