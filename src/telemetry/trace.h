#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "http/message.h"

// What OpenTelemetry calls a trace: the spans of one request, each of which knows the one that it is a part of, over
// all processes that it passes.
namespace cachalot::telemetry {

// Which span of which trace, as a request's field `traceparent` tells it (W3C Trace Context):
//
//   00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
//      trace                            span             1: it is recorded
struct TraceContext {
  std::string trace_id, span_id;  // hexadecimal, 32 and 16 digits
  bool is_recorded = true;
};
std::optional<TraceContext> parse_traceparent(std::string_view text);
std::string to_traceparent(const TraceContext& context);
inline constexpr std::string_view kTraceparent = "traceparent";

struct Span {
  using Time = std::chrono::steady_clock::time_point;
  using Value = std::variant<int64_t, double, std::string>;
  enum class Kind : uint8_t { kInternal = 1, kServer = 2, kClient = 3 };  // their numbers in OTLP

  std::string name;
  Kind kind = Kind::kInternal;
  TraceContext context;  // its own
  std::string parent;    // the span's id that it is a part of; empty: of none
  Time begin, end;
  std::vector<std::pair<std::string, Value>> attributes;
  std::optional<std::string> failure{};  // why

  void fail(std::string why) { failure = std::move(why); }
};

// Begins now.
Span begin_span(std::string name, Span::Kind kind, const TraceContext& parent);
// Of a request's first span here: a part of what its client traces, else of a new trace. None where the client says
// that nothing is recorded.
std::optional<Span> begin_request(std::string name, const http::Headers& headers);

// Spans as a request to an OTLP receiver (ExportTraceServiceRequest) in JSON. `resource`: attributes of the process.
std::string to_otlp(const std::vector<Span>& spans, const std::vector<std::pair<std::string, Span::Value>>& resource);

}  // namespace cachalot::telemetry
