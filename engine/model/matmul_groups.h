// What multiplies a model's matrices.
#ifndef QKSCOPE_ENGINE_MODEL_MATMUL_GROUPS_H_
#define QKSCOPE_ENGINE_MODEL_MATMUL_GROUPS_H_

#include <string>
#include <vector>

#include "engine/backend/backend.h"

namespace qk {

// Matrices of one shape that are multiplied alike.
struct MatMulGroup {
  MatMulChoice choice;
  int out_features = 0, in_features = 0;
  int matrices = 0;
};

void CountMatrix(const Matrix& matrix, std::vector<MatMulGroup>* groups);

// The backend's kernel_ids for a model that computes in `type`: instead of what
// may multiply matrices of that type, what multiplies these. If there are two
// kernels, each names its shapes: "matmul.bf16:own-sm_90 (48, 64) (64, 48)".
std::vector<std::string> KernelIdsOf(const BackendInfo& backend,
                                     ComputeType type,
                                     const std::vector<MatMulGroup>& groups);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_MODEL_MATMUL_GROUPS_H_
