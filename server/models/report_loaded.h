// Tells the metrics of a model that has been loaded: what it costs, and how
// they can look at its KV cache.
#ifndef QKSCOPE_SERVER_MODELS_REPORT_LOADED_H_
#define QKSCOPE_SERVER_MODELS_REPORT_LOADED_H_

#include <memory>
#include <string>

#include "engine/model/model.h"
#include "server/observe/metrics.h"

namespace qk {

// Metrics::AddModel must have been called.
void ReportLoaded(const std::string& name,
                  const std::shared_ptr<const Model>& model, Metrics* metrics);

}  // namespace qk

#endif  // QKSCOPE_SERVER_MODELS_REPORT_LOADED_H_
