// What /metrics/activations shows of the models' activations.
#ifndef QKSCOPE_SERVER_OBSERVE_ACTIVATION_PAGE_H_
#define QKSCOPE_SERVER_OBSERVE_ACTIVATION_PAGE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "prometheus/metric_family.h"
#include "server/observe/activation_model.h"

namespace qk {

struct ActivationPageContent {
  std::vector<std::shared_ptr<ActivationTotals>> totals;  // of all labels
  // Models that are shown by layer, the one used last first.
  std::vector<std::shared_ptr<ActivationModel>> by_layer;
  std::vector<std::shared_ptr<ActivationModel>> loaded;
  int64_t dropped = 0;  // prompts that found no room to be measured
};

// At most `max_series` series. They are added in this order until the next ones
// do not fit; all that follow are left out, and counted:
// - counters and ages of all labels, and what concerns loaded models as a
// whole,
// - histograms of the models that are shown by layer,
// - their layers: model by model, the clean arm before the disrupted and the
//   control; in each arm q and k after RoPE, v, q and k before RoPE; in each
//   matrix the layers from 0 on, whole layers only,
// - histograms of the other labels.
std::vector<prometheus::MetricFamily> ActivationPage(
    const ActivationPageContent& content, int64_t max_series);

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_ACTIVATION_PAGE_H_
