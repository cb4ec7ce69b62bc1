#include "server/models/report_loaded.h"

#include "engine/model/kv_cache.h"

namespace qk {
namespace {

KvUse ReadKv(const Model& model) {
  const PagePool& pages = model.pages();
  return {pages.used_pages() * pages.page_bytes(),
          pages.budget_pages() * pages.page_bytes()};
}

}  // namespace

void ReportLoaded(const std::string& name,
                  const std::shared_ptr<const Model>& model, Metrics* metrics,
                  ActivationMetrics* activations, Log* log) {
  metrics->ModelLoaded(
      name, model,
      {model->load_seconds(), model->host_bytes(), model->device_bytes()},
      ReadKv);
  activations->ModelLoaded(name, model.get(), model->config(),
                           model->weights_sha256());
  log->Info("model_ready", {{"model", name},
                            {"seconds", model->load_seconds()},
                            {"host_bytes", model->host_bytes()},
                            {"sha256", model->weights_sha256()}});
  const ModelDescription& description = model->description();
  if (model->tokenizer() == nullptr) {
    log->Warn("model_takes_no_text",
              {{"model", name}, {"reason", description.text_problem}});
  }
  for (const std::string& warning : description.warnings) {
    log->Warn("model_warning", {{"model", name}, {"reason", warning}});
  }
}

}  // namespace qk
