// Compares our declarations of NVIDIA's libraries with NVIDIA's headers, where
// they are (cublasLt.h comes with CUDA, nvml.h with its driver API). Most of it
// fails when this file is compiled.
#include <type_traits>

#include "engine/cuda/cublaslt_functions.h"
#include "engine/cuda/nvml_functions.h"
#include "gtest/gtest.h"

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#define QK_HAS_CUBLASLT 1
#endif
#if __has_include(<nvml.h>)
#include <nvml.h>
#define QK_HAS_NVML 1
#endif

namespace qk::testing {
namespace {

// Whether a value goes the same way into a call: an enum as an int, a pointer
// as a pointer.
template <typename A, typename B>
constexpr bool kSameValue =
    sizeof(A) == sizeof(B) &&
    std::is_pointer_v<A> ==
        std::is_pointer_v<B>&& std::is_floating_point_v<A> ==
        std::is_floating_point_v<B>;

template <typename Ours, typename Theirs>
struct SameCall : std::false_type {};
template <typename A, typename... As, typename B, typename... Bs>
struct SameCall<A (*)(As...), B (*)(Bs...)> {
  static constexpr bool Value() {
    if constexpr (sizeof...(As) == sizeof...(Bs)) {
      return kSameValue<A, B> && (kSameValue<As, Bs> && ...);
    }
    return false;
  }
  static constexpr bool value = Value();
};
static_assert(!SameCall<int (*)(int), int (*)(int*)>::value);
static_assert(!SameCall<int (*)(int), int (*)(int, int)>::value);

#define QK_SAME_CALL(functions, name, theirs) \
  static_assert(SameCall<decltype(functions::name), decltype(&(theirs))>::value)

#ifdef QK_HAS_CUBLASLT
namespace lt = cuda::lt;

#define QK_SAME_LT_CALL(name) QK_SAME_CALL(lt::Functions, name, cublasLt##name)
QK_SAME_LT_CALL(GetVersion);
QK_SAME_LT_CALL(GetStatusName);
QK_SAME_LT_CALL(Create);
QK_SAME_LT_CALL(Destroy);
QK_SAME_LT_CALL(MatmulDescCreate);
QK_SAME_LT_CALL(MatmulDescDestroy);
QK_SAME_LT_CALL(MatmulDescSetAttribute);
QK_SAME_LT_CALL(MatrixLayoutCreate);
QK_SAME_LT_CALL(MatrixLayoutDestroy);
QK_SAME_LT_CALL(MatmulPreferenceCreate);
QK_SAME_LT_CALL(MatmulPreferenceDestroy);
QK_SAME_LT_CALL(MatmulPreferenceSetAttribute);
QK_SAME_LT_CALL(MatmulAlgoGetHeuristic);
QK_SAME_LT_CALL(MatmulAlgoCheck);
QK_SAME_LT_CALL(MatmulAlgoConfigGetAttribute);
QK_SAME_LT_CALL(MatmulAlgoCapGetAttribute);
QK_SAME_LT_CALL(Matmul);

static_assert(sizeof(lt::Algorithm) == sizeof(cublasLtMatmulAlgo_t));
using Theirs = cublasLtMatmulHeuristicResult_t;
static_assert(sizeof(lt::Heuristic) == sizeof(Theirs));
static_assert(offsetof(lt::Heuristic, algorithm) == offsetof(Theirs, algo));
static_assert(offsetof(lt::Heuristic, workspace_bytes) ==
              offsetof(Theirs, workspaceSize));
static_assert(offsetof(lt::Heuristic, status) == offsetof(Theirs, state));
static_assert(offsetof(lt::Heuristic, waves) == offsetof(Theirs, wavesCount));
#endif

TEST(CublasLtHeaderTest, NumbersAreNvidias) {
#ifdef QK_HAS_CUBLASLT
  EXPECT_EQ(lt::kSuccess, CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(lt::kAllocFailed, CUBLAS_STATUS_ALLOC_FAILED);
  EXPECT_EQ(lt::kInvalidValue, CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(lt::kArchMismatch, CUBLAS_STATUS_ARCH_MISMATCH);
  EXPECT_EQ(lt::kNotSupported, CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(lt::kFloat32, CUDA_R_32F);
  EXPECT_EQ(lt::kBFloat16, CUDA_R_16BF);
  EXPECT_EQ(lt::kCompute32F, CUBLAS_COMPUTE_32F);
  EXPECT_EQ(lt::kTransposeA, CUBLASLT_MATMUL_DESC_TRANSA);
  EXPECT_EQ(lt::kTranspose, CUBLAS_OP_T);
  EXPECT_EQ(lt::kMaxWorkspaceBytes, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
  EXPECT_EQ(lt::kReductionSchemeMask,
            CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
  EXPECT_EQ(lt::kMinAlignmentA, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
  EXPECT_EQ(lt::kMinAlignmentA + 1, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
  EXPECT_EQ(lt::kMinAlignmentA + 2, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
  EXPECT_EQ(lt::kMinAlignmentD, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
  EXPECT_EQ(lt::kNoReduction, CUBLASLT_REDUCTION_SCHEME_NONE);
  EXPECT_EQ(lt::kConfigId, CUBLASLT_ALGO_CONFIG_ID);
  EXPECT_EQ(lt::kConfigTile, CUBLASLT_ALGO_CONFIG_TILE_ID);
  EXPECT_EQ(lt::kConfigSplitK, CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
  EXPECT_EQ(lt::kConfigReduction, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
  EXPECT_EQ(lt::kConfigStages, CUBLASLT_ALGO_CONFIG_STAGES_ID);
  EXPECT_EQ(lt::kNumericalFlags, CUBLASLT_ALGO_CAP_NUMERICAL_IMPL_FLAGS);
  EXPECT_EQ(lt::kTensorCores, CUBLASLT_NUMERICAL_IMPL_FLAGS_TENSOR_OP_MASK);
  EXPECT_EQ(lt::kFloat32Sums, CUBLASLT_NUMERICAL_IMPL_FLAGS_ACCUMULATOR_32F);
#else
  GTEST_SKIP() << "there is no cublasLt.h";
#endif
}

#ifdef QK_HAS_NVML
namespace ml = cuda::ml;

#define QK_SAME_ML_CALL(name) QK_SAME_CALL(ml::Functions, name, nvml##name)
QK_SAME_ML_CALL(ErrorString);
QK_SAME_ML_CALL(Init_v2);
QK_SAME_ML_CALL(Shutdown);
QK_SAME_ML_CALL(SystemGetDriverVersion);
QK_SAME_ML_CALL(DeviceGetHandleByUUID);
QK_SAME_ML_CALL(DeviceGetMemoryInfo);
QK_SAME_ML_CALL(DeviceGetUtilizationRates);
QK_SAME_ML_CALL(DeviceGetTemperature);
QK_SAME_ML_CALL(DeviceGetPowerUsage);

static_assert(sizeof(ml::Memory) == sizeof(nvmlMemory_t));
static_assert(offsetof(ml::Memory, total) == offsetof(nvmlMemory_t, total));
static_assert(offsetof(ml::Memory, used) == offsetof(nvmlMemory_t, used));
static_assert(sizeof(ml::Utilization) == sizeof(nvmlUtilization_t));
static_assert(offsetof(ml::Utilization, gpu) ==
              offsetof(nvmlUtilization_t, gpu));
#endif

TEST(NvmlHeaderTest, NumbersAreNvidias) {
#ifdef QK_HAS_NVML
  EXPECT_EQ(ml::kSuccess, NVML_SUCCESS);
  EXPECT_EQ(ml::kInvalidArgument, NVML_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(ml::kNotSupported, NVML_ERROR_NOT_SUPPORTED);
  EXPECT_EQ(ml::kNoPermission, NVML_ERROR_NO_PERMISSION);
  EXPECT_EQ(ml::kNotFound, NVML_ERROR_NOT_FOUND);
  EXPECT_EQ(ml::kFunctionNotFound, NVML_ERROR_FUNCTION_NOT_FOUND);
  EXPECT_EQ(ml::kGpuIsLost, NVML_ERROR_GPU_IS_LOST);
  EXPECT_EQ(ml::kDeprecated, NVML_ERROR_DEPRECATED);
  EXPECT_EQ(ml::kGpuNotFound, NVML_ERROR_GPU_NOT_FOUND);
  EXPECT_EQ(ml::kGpuSensor, NVML_TEMPERATURE_GPU);
#else
  GTEST_SKIP() << "there is no nvml.h";
#endif
}

}  // namespace
}  // namespace qk::testing
