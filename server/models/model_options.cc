#include "server/models/model_options.h"

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "server/models/model_root.h"

namespace qk {

namespace {

absl::Status CheckModel(const ModelToLoad& model, int64_t kv_cache_bytes) {
  QK_ASSIGN_OR_RETURN(const ModelDescription description,
                      DescribeModel(model.path, model.compute, model.ignored));
  if (kv_cache_bytes < description.kv_page_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "limits.kv_cache_bytes is ", kv_cache_bytes, ", but a page has ",
        description.kv_page_bytes, " bytes, so that no prompt fits"));
  }
  if (model.sha256.empty()) return absl::OkStatus();
  QK_ASSIGN_OR_RETURN(const std::string sha256,
                      WeightsSha256(model.path, model.ignored));
  if (sha256 == model.sha256) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("sha256 is ", sha256, ", expected ", model.sha256));
}

}  // namespace

std::vector<absl::Status> CheckModelFiles(
    const std::vector<ModelToLoad>& models, const ModelAdminOptions& admin,
    int64_t kv_cache_bytes) {
  std::vector<absl::Status> problems;
  for (const ModelToLoad& model : models) {
    const absl::Status status = CheckModel(model, kv_cache_bytes);
    if (status.ok()) continue;
    problems.emplace_back(status.code(), absl::StrCat("model '", model.name,
                                                      "': ", status.message()));
  }
  if (admin.enabled) {
    const auto root = ModelRoot::Open(admin.root);
    if (!root.ok()) problems.push_back(root.status());
  }
  return problems;
}

}  // namespace qk
