#include "tests/engine/cuda/fake_cublaslt.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "engine/base/half.h"

namespace {

constexpr int kSuccess = 0, kInvalidValue = 7, kNotSupported = 15;

struct Operation {
  int compute_type, scale_type;
  int32_t transpose_a = 0;
};
struct Layout {
  int type;
  uint64_t rows, columns;
  int64_t stride;
};
struct Preference {
  uint64_t workspace_bytes = 0;
  uint32_t reduction_schemes = 7;
  uint32_t alignment[4] = {256, 256, 256, 256};
};
struct Algorithm {
  uint64_t data[8];  // the kind, its place in the list
};
struct Heuristic {
  Algorithm algorithm;
  size_t workspace_bytes;
  int status;
  float waves;
  int reserved[4];
};

int64_t live = 0;
int64_t products = 0;
std::vector<FakeAlgorithm> offered = {kFakeChangesWithRows, kFakeRight};
std::string failing;
int failing_status = 0;

int Fails(const char* function) {
  return failing == function ? failing_status : kSuccess;
}

template <typename T>
int Make(const char* function, T** object, const T& value) {
  if (const int status = Fails(function)) return status;
  *object = new T(value);
  ++live;
  return kSuccess;
}

template <typename T>
int Delete(T* object) {
  delete object;
  --live;
  return kSuccess;
}

FakeAlgorithm KindOf(const Algorithm* algorithm) {
  return static_cast<FakeAlgorithm>(algorithm->data[0]);
}

bool IsBFloat16(const Layout* l) {
  return l->type == 14 && l->stride == static_cast<int64_t>(l->rows);
}

// Whether it is out (m, n) = w^T (k, m) x (k, n), all column by column.
bool IsRight(const Operation* op, const Layout* w, const Layout* x,
             const Layout* c, const Layout* d) {
  return op->compute_type == 68 && op->scale_type == 0 &&
         op->transpose_a == 1 && IsBFloat16(w) && IsBFloat16(x) && c == d &&
         d->type == 0 && d->stride == static_cast<int64_t>(d->rows) &&
         w->rows == x->rows && d->rows == w->columns &&
         d->columns == x->columns;
}

float Dot(const uint16_t* w, const uint16_t* x, uint64_t n, bool backwards) {
  float sum = 0;
  for (uint64_t i = 0; i < n; ++i) {
    const uint64_t k = backwards ? n - 1 - i : i;
    sum += qk::FromBF16(w[k]) * qk::FromBF16(x[k]);
  }
  return sum;
}

void Multiply(FakeAlgorithm kind, const uint16_t* w, const uint16_t* x,
              bool add, float* out, const Layout& a, const Layout& d) {
  const uint64_t k = kind == kFakeLosesTail ? a.rows - 1 : a.rows;
  for (uint64_t r = 0; r < d.columns; ++r) {
    const bool last = d.columns > 1 && r + 1 == d.columns;
    const bool backwards = (kind == kFakeChangesWithRows && d.columns <= 16) ||
                           (kind == kFakeChangesWithPosition && last) ||
                           (kind == kFakeChangesWithPlace &&
                            reinterpret_cast<uintptr_t>(x) % 256 != 0);
    for (uint64_t o = 0; o < d.rows; ++o) {
      float& value = out[r * d.rows + o];
      const float product = Dot(w + o * a.rows, x + r * a.rows, k, backwards);
      value = add && kind != kFakeIgnoresAdd ? value + product : product;
    }
  }
  if (kind == kFakeGivesNaN) out[0] = std::numeric_limits<float>::quiet_NaN();
}

}  // namespace

extern "C" {

void FakeCublasLtOffer(const FakeAlgorithm* list, int count) {
  offered.assign(list, list + count);
}

void FakeCublasLtFail(const char* function, int status) {
  failing = function == nullptr ? "" : function;
  failing_status = status;
}

int64_t FakeCublasLtLive() { return live; }
int64_t FakeCublasLtProducts() { return products; }

size_t cublasLtGetVersion() { return 130205; }

const char* cublasLtGetStatusName(int status) {
  return status == kInvalidValue ? "CUBLAS_STATUS_INVALID_VALUE" : "STATUS";
}

int cublasLtCreate(int** handle) { return Make("cublasLtCreate", handle, 1); }
int cublasLtDestroy(int* handle) { return Delete(handle); }

int cublasLtMatmulDescCreate(Operation** op, int compute_type, int scale_type) {
  return Make("cublasLtMatmulDescCreate", op, {compute_type, scale_type});
}
int cublasLtMatmulDescDestroy(Operation* op) { return Delete(op); }
int cublasLtMatmulDescSetAttribute(Operation* op, int attribute,
                                   const void* value, size_t bytes) {
  if (const int s = Fails("cublasLtMatmulDescSetAttribute")) return s;
  if (attribute != 3 || bytes != 4) return kInvalidValue;
  std::memcpy(&op->transpose_a, value, bytes);
  return kSuccess;
}

int cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows,
                               uint64_t columns, int64_t stride) {
  return Make("cublasLtMatrixLayoutCreate", layout,
              {type, rows, columns, stride});
}
int cublasLtMatrixLayoutDestroy(Layout* layout) { return Delete(layout); }

int cublasLtMatmulPreferenceCreate(Preference** preference) {
  return Make("cublasLtMatmulPreferenceCreate", preference, {});
}
int cublasLtMatmulPreferenceDestroy(Preference* preference) {
  return Delete(preference);
}
int cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute,
                                         const void* value, size_t bytes) {
  if (const int s = Fails("cublasLtMatmulPreferenceSetAttribute")) return s;
  void* to = nullptr;
  if (attribute == 1 && bytes == 8) to = &preference->workspace_bytes;
  if (attribute == 3 && bytes == 4) to = &preference->reduction_schemes;
  if (attribute >= 5 && attribute <= 8 && bytes == 4) {
    to = &preference->alignment[attribute - 5];
  }
  if (to == nullptr) return kInvalidValue;
  std::memcpy(to, value, bytes);
  return kSuccess;
}

int cublasLtMatmulAlgoGetHeuristic(int*, Operation* op, Layout* a, Layout* b,
                                   Layout* c, Layout* d, Preference* preference,
                                   int most, Heuristic* list, int* count) {
  if (const int s = Fails("cublasLtMatmulAlgoGetHeuristic")) return s;
  if (!IsRight(op, a, b, c, d) || d->columns != 2048 ||
      preference->reduction_schemes != 0 || preference->workspace_bytes == 0 ||
      std::count(preference->alignment, preference->alignment + 4, 16u) != 4) {
    return kInvalidValue;
  }
  *count = std::min<int>(most, static_cast<int>(offered.size()));
  for (int i = 0; i < *count; ++i) {
    list[i] = {};
    list[i].algorithm.data[0] = offered[i];
    list[i].algorithm.data[1] = i;
    list[i].status = offered[i] == kFakeNoResult ? kNotSupported : kSuccess;
  }
  return kSuccess;
}

#ifndef FAKE_WITHOUT_ALGO_CHECK
int cublasLtMatmulAlgoCheck(int*, Operation* op, Layout* a, Layout* b,
                            Layout* c, Layout* d, const Algorithm* algorithm,
                            Heuristic* result) {
  if (const int s = Fails("cublasLtMatmulAlgoCheck")) return s;
  if (!IsRight(op, a, b, c, d)) return kInvalidValue;
  const FakeAlgorithm kind = KindOf(algorithm);
  if (kind == kFakeFailsCheck && d->columns == 7) return kNotSupported;
  result->workspace_bytes = d->columns;
  if (kind == kFakeWantsMemory && d->columns == 512) {
    result->workspace_bytes = size_t{1} << 30;
  }
  return kSuccess;
}
#endif

int cublasLtMatmulAlgoConfigGetAttribute(const Algorithm* algorithm,
                                         int attribute, void* value,
                                         size_t bytes, size_t* written) {
  if (const int s = Fails("cublasLtMatmulAlgoConfigGetAttribute")) return s;
  const FakeAlgorithm kind = KindOf(algorithm);
  if (bytes != 4 || kind == kFakeTellsNothing) return kInvalidValue;
  uint32_t number = 0;
  switch (attribute) {
    case 0:  // the id
      number = static_cast<uint32_t>(algorithm->data[1]);
      break;
    case 1:  // the tile
      number = 20;
      break;
    case 2:  // in how many parts K is split
      number = kind == kFakeSplitsK ? 2 : 1;
      break;
    case 3:  // how they are added
      number = kind == kFakeReduces ? 2 : 0;
      break;
    case 6:  // stages
      number = 8;
      break;
    default:
      return kInvalidValue;
  }
  std::memcpy(value, &number, bytes);
  *written = bytes;
  return kSuccess;
}

int cublasLtMatmulAlgoCapGetAttribute(const Algorithm* algorithm, int attribute,
                                      void* value, size_t bytes,
                                      size_t* written) {
  if (const int s = Fails("cublasLtMatmulAlgoCapGetAttribute")) return s;
  if (attribute != 15 || bytes != 8) return kInvalidValue;
  const FakeAlgorithm kind = KindOf(algorithm);
  uint64_t flags = kind == kFakeNoTensorCores ? 0x01 : 0x02;  // FMA or HMMA
  flags |= kind == kFakeHalfSums ? 0x100 : 0x200;  // float16 or float32 sums
  flags |= 0x02 << 16;                             // bf16 operands
  std::memcpy(value, &flags, bytes);
  *written = bytes;
  return kSuccess;
}

int cublasLtMatmul(int*, Operation* op, const float* alpha, const uint16_t* a,
                   Layout* a_layout, const uint16_t* b, Layout* b_layout,
                   const float* beta, const float* c, Layout* c_layout,
                   float* d, Layout* d_layout, const Algorithm* algorithm,
                   void* workspace, size_t workspace_bytes, void*) {
  if (const int s = Fails("cublasLtMatmul")) return s;
  ++products;
  const FakeAlgorithm kind = KindOf(algorithm);
  if (!IsRight(op, a_layout, b_layout, c_layout, d_layout) || c != d ||
      *alpha != 1.0f || (*beta != 0.0f && *beta != 1.0f) ||
      reinterpret_cast<uintptr_t>(a) % 16 != 0 ||
      reinterpret_cast<uintptr_t>(b) % 16 != 0 ||
      reinterpret_cast<uintptr_t>(d) % 16 != 0 || workspace == nullptr ||
      workspace_bytes < d_layout->columns ||
      (kind == kFakeFailsRun && d_layout->columns == 33)) {
    return kInvalidValue;
  }
  std::memset(workspace, 0xFF, d_layout->columns);
  Multiply(kind, a, b, *beta == 1.0f, d, *a_layout, *d_layout);
  return kSuccess;
}

}  // extern "C"
