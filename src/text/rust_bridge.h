#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "base/text.h"
#include "text/rust/cachalot_text.h"

// Strings and errors over the C ABI of the Rust crate; included by the .cc files that call it only.
namespace cachalot {

inline cachalot_text_view as_view(std::string_view text) {
  return {text.data(), text.size()};
}

inline std::string_view to_view(cachalot_text_view view) {
  return {view.data, view.size};
}

// Everything that is written goes into `text`, which outlives the call.
inline cachalot_text_sink sink_into(std::string& text) {
  return {&text, [](void* context, cachalot_text_view piece) {
            static_cast<std::string*>(context)->append(piece.data, piece.size);
          }};
}

// The status of a call and what it wrote to its error sink; `what` says what could not be done.
inline Status to_status(cachalot_text_status status, std::string_view what, const std::string& error) {
  if (status == CACHALOT_TEXT_OK) return {};
  const ErrorCode code = status == CACHALOT_TEXT_INVALID ? ErrorCode::kInvalidArgument : ErrorCode::kInternal;
  return make_error(code, "{}: {}", what, escaped(error));
}

}  // namespace cachalot
