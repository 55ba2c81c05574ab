#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace cachalot {

// What a server answers at /metrics, in Prometheus' text format.
class MetricsText {
 public:
  using Labels = std::map<std::string, std::string>;
  struct Sample {
    Labels labels;
    double value = 0;

    const std::string& label(const std::string& name) const;  // empty where there is none
  };

  // Lines that are none of the format are passed over.
  static MetricsText parse(std::string_view text);

  const std::vector<Sample>& samples(const std::string& name) const;
  // Of the first sample that has all these labels; 0 where there is none.
  double value(const std::string& name, const Labels& labels = {}) const;

 private:
  std::map<std::string, std::vector<Sample>> samples_;
};

}  // namespace cachalot
