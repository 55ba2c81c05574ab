#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/step_trace.h"

namespace cachalot {

// Spans in Chrome's trace event format, which chrome://tracing and https://ui.perfetto.dev show: a track for each rank.

// The events of one rank's track, one a line; `name` is the track's.
std::string chrome_events(int rank, const std::string& name, std::span<const TraceSpan> spans);
// The file's text, of the ranks' events.
std::string chrome_trace(std::span<const std::string> events_of_ranks);

}  // namespace cachalot
