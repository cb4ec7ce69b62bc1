// Parses what /metrics shows into numbers.
#ifndef QKSCOPE_TESTS_SERVER_OBSERVE_METRIC_SAMPLES_H_
#define QKSCOPE_TESTS_SERVER_OBSERVE_METRIC_SAMPLES_H_

#include <cstdlib>
#include <map>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "prometheus/text_serializer.h"
#include "server/server.h"

namespace qk::testing {

// Sample name with labels -> value.
using Samples = std::map<std::string, double>;

inline Samples ParseSamples(const std::string& text) {
  Samples out;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    if (absl::StartsWith(line, "#")) continue;
    const size_t space = line.rfind(' ');
    out[std::string(line.substr(0, space))] =
        std::atof(std::string(line.substr(space + 1)).c_str());
  }
  return out;
}

inline Samples SamplesOf(const Server& server) {
  return ParseSamples(
      prometheus::TextSerializer().Serialize(server.CollectMetrics()));
}

// Returns the sum over all label sets of a name.
inline double Total(const Samples& samples, const std::string& name) {
  double total = 0;
  for (const auto& [key, value] : samples) {
    if (key == name || absl::StartsWith(key, name + "{")) total += value;
  }
  return total;
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_SERVER_OBSERVE_METRIC_SAMPLES_H_
