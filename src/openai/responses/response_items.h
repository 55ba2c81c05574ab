#pragma once

#include <boost/json/array.hpp>
#include <string>
#include <string_view>

#include "config/json.h"
#include "openai/request/transcript.h"
#include "openai/responses/response_store.h"
#include "openai/responses/responses_request.h"

// The items that Responses are made of: as they come, as messages of a conversation, and as they are shown again.
namespace cachalot::openai {

// The input, with what it refers to in place of references.
ApiResult<boost::json::array> read_input(JsonKeys& keys, const RequestLimits& limits, ResponseStore& store,
                                         const std::string& owner);
// What the request builds upon, and its own items.
ApiResult<void> read_items(const ResponsesRequest& request, const RequestLimits& limits, ResponseStore& store,
                           const std::string& owner, JsonKeys& keys, Transcript& transcript);
// As /v1/responses/{id}/input_items shows them: with ids, types, and contents as lists.
std::string shown_input_items(const boost::json::array& items, std::string_view response_id);

}  // namespace cachalot::openai
