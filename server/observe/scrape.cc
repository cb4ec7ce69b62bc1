#include "server/observe/scrape.h"

#include <algorithm>

#include "prometheus/text_serializer.h"

namespace qk {

std::string RenderMetrics(std::vector<prometheus::MetricFamily> families,
                          const ScrapeView& view) {
  const auto hidden = [&view](const prometheus::ClientMetric& metric) {
    return std::any_of(metric.label.begin(), metric.label.end(),
                       [&view](const auto& label) {
                         if (label.name == "model") {
                           return !view.model(label.value);
                         }
                         return label.name == "user" && !view.user(label.value);
                       });
  };
  std::erase_if(families, [&hidden](prometheus::MetricFamily& family) {
    return std::erase_if(family.metric, hidden) > 0 && family.metric.empty();
  });
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace qk
