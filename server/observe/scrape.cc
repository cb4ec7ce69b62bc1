#include "server/observe/scrape.h"

#include <algorithm>

#include "prometheus/text_serializer.h"

namespace qk {

std::string RenderMetrics(
    std::vector<prometheus::MetricFamily> families,
    const std::function<bool(const std::string& model)>& may_see) {
  const auto hidden = [&may_see](const prometheus::ClientMetric& metric) {
    return std::any_of(metric.label.begin(), metric.label.end(),
                       [&may_see](const auto& label) {
                         return label.name == "model" && !may_see(label.value);
                       });
  };
  std::erase_if(families, [&hidden](prometheus::MetricFamily& family) {
    return std::erase_if(family.metric, hidden) > 0 && family.metric.empty();
  });
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace qk
