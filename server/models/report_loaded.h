// Tells the metrics and the log of a model that has been loaded: what it costs,
// how the metrics can look at its KV cache, and what a user should know of it.
#ifndef QKSCOPE_SERVER_MODELS_REPORT_LOADED_H_
#define QKSCOPE_SERVER_MODELS_REPORT_LOADED_H_

#include <memory>
#include <string>

#include "engine/model/model.h"
#include "server/common/log.h"
#include "server/observe/activation_metrics.h"
#include "server/observe/metrics.h"

namespace qk {

// Metrics::AddModel must have been called.
void ReportLoaded(const std::string& name,
                  const std::shared_ptr<const Model>& model, Metrics* metrics,
                  ActivationMetrics* activations, Log* log);

}  // namespace qk

#endif  // QKSCOPE_SERVER_MODELS_REPORT_LOADED_H_
