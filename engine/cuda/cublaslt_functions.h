// The part of cuBLASLt that is called, in our words after NVIDIA's reference
// (the library's own header is not needed to compile). Numbers and layouts are
// the same in CUDA 12 and 13. cuda_library_headers_test compares this with that
// header where there is one.
#ifndef QKSCOPE_ENGINE_CUDA_CUBLASLT_FUNCTIONS_H_
#define QKSCOPE_ENGINE_CUDA_CUBLASLT_FUNCTIONS_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "engine/cuda/stream.h"

namespace qk::cuda::lt {

using Handle = struct HandleStruct*;          // cublasLtHandle_t
using Operation = struct OperationStruct*;    // cublasLtMatmulDesc_t
using Layout = struct LayoutStruct*;          // cublasLtMatrixLayout_t
using Preference = struct PreferenceStruct*;  // cublasLtMatmulPreference_t

// cublasStatus_t
inline constexpr int kSuccess = 0, kAllocFailed = 3, kInvalidValue = 7,
                     kArchMismatch = 8, kNotSupported = 15;
// cudaDataType_t: CUDA_R_32F, CUDA_R_16BF
inline constexpr int kFloat32 = 0, kBFloat16 = 14;
// cublasComputeType_t: CUBLAS_COMPUTE_32F
inline constexpr int kCompute32F = 68;
// cublasLtMatmulDescAttributes_t: CUBLASLT_MATMUL_DESC_TRANSA (int32)
inline constexpr int kTransposeA = 3;
// cublasOperation_t: CUBLAS_OP_T
inline constexpr int32_t kTranspose = 1;
// cublasLtMatmulPreferenceAttributes_t: CUBLASLT_MATMUL_PREF_...
inline constexpr int kMaxWorkspaceBytes = 1;    // uint64
inline constexpr int kReductionSchemeMask = 3;  // uint32
inline constexpr int kMinAlignmentA = 5;        // uint32, as B, C, D: 6, 7, 8
inline constexpr int kMinAlignmentD = 8;
// cublasLtReductionScheme_t: CUBLASLT_REDUCTION_SCHEME_NONE
inline constexpr uint32_t kNoReduction = 0;
// cublasLtMatmulAlgoConfigAttributes_t: CUBLASLT_ALGO_CONFIG_..., 32 bits each
inline constexpr int kConfigId = 0, kConfigTile = 1, kConfigSplitK = 2,
                     kConfigReduction = 3, kConfigStages = 6;
// cublasLtMatmulAlgoCapAttributes_t: CUBLASLT_ALGO_CAP_NUMERICAL_IMPL_FLAGS
inline constexpr int kNumericalFlags = 15;  // uint64
// CUBLASLT_NUMERICAL_IMPL_FLAGS_...: TENSOR_OP_MASK, ACCUMULATOR_32F
inline constexpr uint64_t kTensorCores = 0xfe, kFloat32Sums = 0x200;

using Algorithm = std::array<uint64_t, 8>;  // cublasLtMatmulAlgo_t

struct Heuristic {  // cublasLtMatmulHeuristicResult_t
  Algorithm algorithm;
  size_t workspace_bytes;
  int status;
  float waves;
  int reserved[4];
};
static_assert(sizeof(Heuristic) == 96);

// The functions, each with its name less "cublasLt". They return a
// cublasStatus_t unless they say otherwise. Rows and columns of a layout are of
// a matrix that lies column by column; `stride` is from a column to the next.
struct Functions {
  size_t (*GetVersion)();
  const char* (*GetStatusName)(int status);
  int (*Create)(Handle*);
  int (*Destroy)(Handle);
  int (*MatmulDescCreate)(Operation*, int compute_type, int scale_type);
  int (*MatmulDescDestroy)(Operation);
  int (*MatmulDescSetAttribute)(Operation, int attribute, const void* value,
                                size_t bytes);
  int (*MatrixLayoutCreate)(Layout*, int type, uint64_t rows, uint64_t columns,
                            int64_t stride);
  int (*MatrixLayoutDestroy)(Layout);
  int (*MatmulPreferenceCreate)(Preference*);
  int (*MatmulPreferenceDestroy)(Preference);
  int (*MatmulPreferenceSetAttribute)(Preference, int attribute,
                                      const void* value, size_t bytes);
  int (*MatmulAlgoGetHeuristic)(Handle, Operation, Layout a, Layout b, Layout c,
                                Layout d, Preference, int most, Heuristic* list,
                                int* count);
  int (*MatmulAlgoCheck)(Handle, Operation, Layout a, Layout b, Layout c,
                         Layout d, const Algorithm*, Heuristic* result);
  int (*MatmulAlgoConfigGetAttribute)(const Algorithm*, int attribute,
                                      void* value, size_t bytes,
                                      size_t* written);
  int (*MatmulAlgoCapGetAttribute)(const Algorithm*, int attribute, void* value,
                                   size_t bytes, size_t* written);
  // d = alpha * op(a) * op(b) + beta * c; alpha and beta lie on the host.
  int (*Matmul)(Handle, Operation, const void* alpha, const void* a, Layout,
                const void* b, Layout, const void* beta, const void* c, Layout,
                void* d, Layout, const Algorithm*, void* workspace,
                size_t workspace_bytes, Stream);
};

}  // namespace qk::cuda::lt

#endif  // QKSCOPE_ENGINE_CUDA_CUBLASLT_FUNCTIONS_H_
