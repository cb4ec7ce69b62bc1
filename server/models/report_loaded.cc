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
                  const std::shared_ptr<const Model>& model, Metrics* metrics) {
  metrics->ModelLoaded(
      name, model,
      {model->load_seconds(), model->host_bytes(), model->device_bytes()},
      ReadKv);
}

}  // namespace qk
