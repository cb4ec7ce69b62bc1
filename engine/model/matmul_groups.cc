#include "engine/model/matmul_groups.h"

#include <map>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace qk {

void CountMatrix(const Matrix& matrix, std::vector<MatMulGroup>* groups) {
  const MatMulGroup group = {matrix.choice(), matrix.out_features(),
                             matrix.in_features()};
  const auto same = absl::c_find_if(*groups, [&](const MatMulGroup& g) {
    return g.choice == group.choice && g.out_features == group.out_features &&
           g.in_features == group.in_features;
  });
  ++(same == groups->end() ? groups->emplace_back(group) : *same).matrices;
}

std::vector<std::string> KernelIdsOf(const BackendInfo& backend,
                                     ComputeType type,
                                     const std::vector<MatMulGroup>& groups) {
  if (groups.empty()) return backend.kernel_ids;
  const absl::string_view product =
      type == ComputeType::kF32 ? "matmul.f32:" : "matmul.bf16:";
  std::map<std::string, std::string> shapes;  // by kernel
  for (const MatMulGroup& group : groups) {
    absl::StrAppend(&shapes[group.choice.kernel], " (", group.out_features,
                    ", ", group.in_features, ")");
  }
  std::vector<std::string> ids;
  for (const std::string& id : backend.kernel_ids) {
    if (!absl::StartsWith(id, product)) {
      ids.push_back(id);
      continue;
    }
    for (const auto& [kernel, list] : shapes) {
      ids.push_back(
          absl::StrCat(product, kernel, shapes.size() > 1 ? list : ""));
    }
  }
  return ids;
}

}  // namespace qk
