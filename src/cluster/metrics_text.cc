#include "cluster/metrics_text.h"

#include <algorithm>
#include <cstdlib>

namespace cachalot {
namespace {

// The value of a label from behind its opening quote to behind its closing one, in which \\, \" and \n are escapes.
std::string take_quoted(std::string_view& text) {
  std::string value;
  while (!text.empty() && text.front() != '"') {
    if (text.front() == '\\' && text.size() > 1) text.remove_prefix(1);
    value += text.front();
    text.remove_prefix(1);
  }
  if (!text.empty()) text.remove_prefix(1);
  return value;
}

// name="value",name="value"} from behind the opening brace to behind the closing one.
MetricsText::Labels take_labels(std::string_view& text) {
  MetricsText::Labels labels;
  while (!text.empty() && text.front() != '}') {
    const size_t equals = text.find("=\"");
    if (equals == std::string_view::npos) break;
    const std::string name(text.substr(0, equals));
    text.remove_prefix(equals + 2);
    labels[name] = take_quoted(text);
    if (!text.empty() && text.front() == ',') text.remove_prefix(1);
  }
  if (!text.empty()) text.remove_prefix(1);
  return labels;
}

}  // namespace

MetricsText MetricsText::parse(std::string_view text) {
  MetricsText metrics;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.empty() || line.front() == '#') continue;
    const size_t end = line.find_first_of("{ ");
    if (end == std::string_view::npos) continue;
    const std::string name(line.substr(0, end));
    Sample sample;
    const bool has_labels = line[end] == '{';
    line.remove_prefix(end + 1);
    if (has_labels) sample.labels = take_labels(line);
    sample.value = std::strtod(std::string(line).c_str(), nullptr);
    metrics.samples_[name].push_back(std::move(sample));
  }
  return metrics;
}

const std::string& MetricsText::Sample::label(const std::string& name) const {
  static const std::string kNone;
  const auto found = labels.find(name);
  return found == labels.end() ? kNone : found->second;
}

const std::vector<MetricsText::Sample>& MetricsText::samples(const std::string& name) const {
  static const std::vector<Sample> kNone;
  const auto found = samples_.find(name);
  return found == samples_.end() ? kNone : found->second;
}

double MetricsText::value(const std::string& name, const Labels& labels) const {
  for (const Sample& sample : samples(name)) {
    const bool has_all =
        std::ranges::all_of(labels, [&](const auto& label) { return sample.label(label.first) == label.second; });
    if (has_all) return sample.value;
  }
  return 0;
}

}  // namespace cachalot
