#include <algorithm>

#include "engine/base/half.h"
#include "engine/cpu/kernels.h"

namespace qk::cpu {
namespace {

template <typename T>
T Store(float x) {
  if constexpr (sizeof(T) == 2) {
    return RoundToBF16(x);
  } else {
    return x;
  }
}

template <typename T>
void Append(const HeadRows& k, const HeadRows& v, const KvPage* pages) {
  const int dim = k.head_dim;
  for (int row = 0; row < k.rows; ++row) {
    const int position = k.first_position + row;
    const KvPage& page = pages[position / kPageSize];
    const int slot = position % kPageSize;
    for (int h = 0; h < k.heads; ++h) {
      const int64_t source = (static_cast<int64_t>(row) * k.heads + h) * dim;
      const int64_t target = static_cast<int64_t>(h) * dim * kPageSize;
      T* to_k = static_cast<T*>(page.k) + target + slot;
      T* to_v = static_cast<T*>(page.v) + target + slot * dim;
      for (int i = 0; i < dim; ++i) {
        to_k[i * kPageSize] = Store<T>(k.data[source + i]);
        to_v[i] = Store<T>(v.data[source + i]);
      }
    }
  }
}

template <typename T>
void CopyPage(const KvPage& from, const KvPage& to, int positions, int dim) {
  const int group = to.heads / from.heads;
  for (int h = 0; h < to.heads; ++h) {
    const int64_t source = static_cast<int64_t>(h / group) * dim * kPageSize;
    const int64_t target = static_cast<int64_t>(h) * dim * kPageSize;
    for (int i = 0; i < dim; ++i) {
      std::copy_n(static_cast<const T*>(from.k) + source + i * kPageSize,
                  positions, static_cast<T*>(to.k) + target + i * kPageSize);
    }
    std::copy_n(static_cast<const T*>(from.v) + source, positions * dim,
                static_cast<T*>(to.v) + target);
  }
}

}  // namespace

void AppendKv(const HeadRows& k, const HeadRows& v, ComputeType type,
              const KvPage* pages) {
  if (type == ComputeType::kF32) {
    Append<float>(k, v, pages);
  } else {
    Append<uint16_t>(k, v, pages);
  }
}

void CopyKvPage(const KvPage& from, const KvPage& to, int positions,
                int head_dim, ComputeType type) {
  if (type == ComputeType::kF32) {
    CopyPage<float>(from, to, positions, head_dim);
  } else {
    CopyPage<uint16_t>(from, to, positions, head_dim);
  }
}

}  // namespace qk::cpu
