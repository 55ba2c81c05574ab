#include "bench/chrome_trace.h"

#include <fmt/format.h>

#include <iterator>

namespace cachalot {
namespace {

const char* category(TraceSpan::Kind kind) {
  switch (kind) {
    case TraceSpan::Kind::kCompute:
      return "compute";
    case TraceSpan::Kind::kExchange:
      return "exchange";
    case TraceSpan::Kind::kWaiting:
      return "waiting";
  }
  return "";
}

double microseconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

void append_number(std::string& text, const char* key, int value) {
  if (value >= 0) fmt::format_to(std::back_inserter(text), "{}\"{}\":{}", text.back() == '{' ? "" : ",", key, value);
}

}  // namespace

// Names are words of this program, which need no escapes.
std::string chrome_events(int rank, const std::string& name, std::span<const TraceSpan> spans) {
  std::string text =
      fmt::format(R"({{"ph":"M","name":"thread_name","pid":0,"tid":{},"args":{{"name":"{}"}}}})", rank, name);
  for (const TraceSpan& span : spans) {
    fmt::format_to(std::back_inserter(text),
                   ",\n"
                   R"({{"ph":"X","name":"{}","cat":"{}","pid":0,"tid":{},"ts":{:.3f},"dur":{:.3f},"args":{{)",
                   span.name, category(span.kind), rank, microseconds(span.begin.time_since_epoch()),
                   microseconds(span.end - span.begin));
    append_number(text, "layer", span.layer);
    append_number(text, "rows", span.rows);
    append_number(text, "experts", span.experts);
    text += "}}";
  }
  return text;
}

std::string chrome_trace(std::span<const std::string> events_of_ranks) {
  std::string text = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  text += R"({"ph":"M","name":"process_name","pid":0,"args":{"name":"ranks"}})";
  for (const std::string& events : events_of_ranks) text += ",\n" + events;
  return text + "\n]}\n";
}

}  // namespace cachalot
