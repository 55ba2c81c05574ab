#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <map>
#include <string>

#include "openai/request/chat_request.h"
#include "openai/responses/response_store.h"

namespace cachalot::openai {

// Tools that come grouped in namespaces (Codex's agents, and those of MCP servers) are told to the model under one name
// each: from that name to the namespace and the tool's own name.
using NamespacedTools = std::map<std::string, std::pair<std::string, std::string>, std::less<>>;

// A body of POST /v1/responses, as the chat that it is.
struct ResponsesRequest {
  ChatRequest chat;
  bool truncates = false;         // "truncation": "auto"
  bool returns_thoughts = false;  // "reasoning.encrypted_content": thoughts come with what brings them back
  bool store = true;
  std::string previous_id;
  NamespacedTools namespaced_tools;
  boost::json::array input_items;  // of its own, without ids
  boost::json::object echo;        // what its answer repeats of it
};

// `store`: where what it refers to is looked for, of this owner.
ApiResult<ResponsesRequest> parse_responses_request(const boost::json::object& object, const GenerationConfig& defaults,
                                                    const RequestLimits& limits, ResponseStore& store,
                                                    const std::string& owner);

// Stands before a thought in a reasoning item's encrypted_content, which clients that keep no thoughts send back.
inline constexpr std::string_view kThoughtMark = "cachalot:";

}  // namespace cachalot::openai
