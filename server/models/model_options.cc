#include "server/models/model_options.h"

#include "absl/strings/str_cat.h"
#include "server/models/model_root.h"

namespace qk {

std::vector<std::string> CheckModelFiles(const std::vector<ModelToLoad>& models,
                                         const ModelAdminOptions& admin) {
  std::vector<std::string> problems;
  for (const ModelToLoad& model : models) {
    const auto description =
        DescribeModel(model.path, model.compute, model.ignored);
    if (description.ok()) continue;
    problems.push_back(absl::StrCat("model '", model.name,
                                    "': ", description.status().message()));
  }
  if (admin.enabled) {
    const auto root = ModelRoot::Open(admin.root);
    if (!root.ok()) problems.emplace_back(root.status().message());
  }
  return problems;
}

}  // namespace qk
