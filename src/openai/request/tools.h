#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <string>

#include "config/json.h"
#include "openai/request/generation_params.h"

namespace cachalot::openai {

// The tools of a chat request, and which of them its answer may or must call.
struct ToolUse {
  enum class Choice { kNone, kAuto, kRequired, kNamed };
  boost::json::array tools;  // {"type": "function", "function": {"name", "description", "parameters"}}, as they came
  Choice choice = Choice::kNone;
  std::string named;
  bool parallel = true;  // several calls in one answer

  // Whether calls are looked for in the answer.
  bool may_call() const { return choice != Choice::kNone; }
};

// Of tools, tool_choice and parallel_tool_calls, or of OpenAI's older functions and function_call.
void read_tools(JsonKeys& keys, const RequestLimits& limits, ToolUse& use);

// The calls of an assistant's message, and the older function_call, as templates read them: with arguments as a string.
// `where`: of the message.
void read_tool_calls(const boost::json::object& message, const std::string& where, JsonKeys& keys,
                     boost::json::object& read);

// For protocols that tell tools otherwise.

// Whether the value may be a function's name, which stands in prompts and grammars, and comes back in calls.
bool is_tool_name(const boost::json::value* value);
// Notes what is wrong with a function's name, its description, or its schema, which stands under `parameters`. False:
// something is.
bool check_function(const boost::json::value& function, const std::string& where, JsonKeys& keys,
                    std::string_view parameters = "parameters");
// A tool whose function stands in it flat, its schema under `parameters`, as chats have it.
boost::json::object flat_tool(const boost::json::object& tool, std::string_view name, std::string_view parameters);
// Of a type that does not exist here: it is left out, and named once in the log.
void leave_out_tool(std::string_view type);
// The one tool of that name is to be called. `key`: of the choice.
void choose_tool(std::string_view name, std::string_view key, JsonKeys& keys, ToolUse& use);

}  // namespace cachalot::openai
