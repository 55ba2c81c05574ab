#pragma once

#include <string>
#include <string_view>

namespace cachalot::openai {

// What the server answers to, as OpenAPI 3.1: /openapi.json.
std::string api_document(std::string_view version);
// The same for people: /docs, and its style sheet.
std::string api_page(std::string_view version);
std::string_view api_page_style();

// Why an address of OpenAI's API, or of vLLM's, has nothing behind it here; empty: it is none of these.
std::string_view reason_for_absence(std::string_view path);

}  // namespace cachalot::openai
