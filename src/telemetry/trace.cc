#include "telemetry/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <random>

#include "base/text.h"
#include "config/version.h"

namespace cachalot::telemetry {

namespace json = boost::json;

namespace {

constexpr size_t kTraceDigits = 32, kSpanDigits = 16;

// None of them is all zeros.
std::string random_digits(size_t count) {
  thread_local std::mt19937_64 generator{std::random_device{}()};
  std::string digits;
  while (digits.size() < count) digits += fmt::format("{:016x}", std::max<uint64_t>(generator(), 1));
  return digits;
}

bool is_id(std::string_view text) {
  return text.find_first_not_of("0123456789abcdef") == text.npos && text.find_first_not_of('0') != text.npos;
}

json::array attributes_of(const std::vector<std::pair<std::string, Span::Value>>& attributes) {
  json::array list;
  for (const auto& [name, value] : attributes) {
    json::object written;
    if (const auto* number = std::get_if<int64_t>(&value))
      written["intValue"] = std::to_string(*number);  // 64 bits are a string in protobuf's JSON
    else if (const auto* real = std::get_if<double>(&value))
      written["doubleValue"] = *real;
    else
      written["stringValue"] = to_valid_utf8(std::get<std::string>(value));
    list.push_back({{"key", name}, {"value", std::move(written)}});
  }
  return list;
}

}  // namespace

std::optional<TraceContext> parse_traceparent(std::string_view text) {
  // Later versions may add something behind, after a hyphen.
  constexpr size_t kSize = 2 + 1 + kTraceDigits + 1 + kSpanDigits + 1 + 2;
  text = trimmed(text);
  if (text.size() < kSize || text.starts_with("ff")) return std::nullopt;
  const bool is_known = text.starts_with("00");
  if (text.size() > kSize && (is_known || text[kSize] != '-')) return std::nullopt;
  const std::string_view version = text.substr(0, 2), trace = text.substr(3, kTraceDigits),
                         span = text.substr(4 + kTraceDigits, kSpanDigits),
                         flags = text.substr(5 + kTraceDigits + kSpanDigits, 2);
  const bool has_hyphens =
      text[2] == '-' && text[3 + kTraceDigits] == '-' && text[4 + kTraceDigits + kSpanDigits] == '-';
  if (!has_hyphens || !is_id(trace) || !is_id(span) || !is_id("1" + std::string(version) + std::string(flags)))
    return std::nullopt;
  return TraceContext{std::string(trace), std::string(span), std::string_view("13579bdf").contains(flags.back())};
}

std::string to_traceparent(const TraceContext& context) {
  return fmt::format("00-{}-{}-{}", context.trace_id, context.span_id, context.is_recorded ? "01" : "00");
}

Span begin_span(std::string name, Span::Kind kind, const TraceContext& parent) {
  Span span{.name = std::move(name), .kind = kind, .parent = parent.span_id, .begin = std::chrono::steady_clock::now()};
  span.context.trace_id = parent.trace_id.empty() ? random_digits(kTraceDigits) : parent.trace_id;
  span.context.span_id = random_digits(kSpanDigits);
  return span;
}

std::optional<Span> begin_request(std::string name, const http::Headers& headers) {
  const auto parent = parse_traceparent(headers.find(kTraceparent).value_or("")).value_or(TraceContext{});
  if (!parent.is_recorded) return std::nullopt;
  return begin_span(std::move(name), Span::Kind::kServer, parent);
}

std::string to_otlp(const std::vector<Span>& spans, const std::vector<std::pair<std::string, Span::Value>>& resource) {
  // Spans have times of the steady clock, as all that is measured here.
  const auto since_1970 =
      std::chrono::system_clock::now().time_since_epoch() - std::chrono::steady_clock::now().time_since_epoch();
  const auto nanoseconds = [&](Span::Time time) {
    return std::to_string(
        std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch() + since_1970).count());
  };
  json::array list;
  for (const Span& span : spans) {
    json::object written{{"traceId", span.context.trace_id},
                         {"spanId", span.context.span_id},
                         {"name", to_valid_utf8(span.name)},
                         {"kind", static_cast<int>(span.kind)},
                         {"startTimeUnixNano", nanoseconds(span.begin)},
                         {"endTimeUnixNano", nanoseconds(span.end)},
                         {"attributes", attributes_of(span.attributes)}};
    if (!span.parent.empty()) written["parentSpanId"] = span.parent;
    constexpr int kStatusError = 2;
    if (span.failure) written["status"] = {{"code", kStatusError}, {"message", to_valid_utf8(*span.failure)}};
    list.push_back(std::move(written));
  }
  const json::object scope_spans{{"scope", {{"name", "cachalot"}, {"version", kVersion}}}, {"spans", std::move(list)}};
  return json::serialize(
      json::object{{"resourceSpans", json::array{json::object{{"resource", {{"attributes", attributes_of(resource)}}},
                                                              {"scopeSpans", json::array{scope_spans}}}}}});
}

}  // namespace cachalot::telemetry
