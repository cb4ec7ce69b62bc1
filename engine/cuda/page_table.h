// Where the keys and values of a pass lie. KV pages have keys and values of all
// layers at kPageSize positions; within a layer, K is (heads, head_dim,
// kPageSize) and V (heads, kPageSize, head_dim), in the compute type.
#ifndef QKSCOPE_ENGINE_CUDA_PAGE_TABLE_H_
#define QKSCOPE_ENGINE_CUDA_PAGE_TABLE_H_

#include <cstdint>

#include "engine/backend/jobs.h"

namespace qk::cuda {

// Pages that stand for some of a sequence's own in one layer.
struct FreshPages {
  int first_page = 0, pages = 0;
  KvPart layout;
  void* base = nullptr;
  int64_t stride = 0;  // bytes, from page to page

  bool operator==(const FreshPages&) const = default;
};

// What attention reads in one layer.
struct KvPages {
  void* const* pages = nullptr;  // of all sequences, one after another
  KvPart layout;
  const FreshPages* fresh = nullptr;
};

// Rows of one sequence that lie in one page.
struct PageRows {
  int32_t row = 0;  // the first, in K and V
  int32_t rows = 0;
  int32_t slot = 0;  // of the first row
  int32_t page = 0;  // in KvPages::pages
};

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_PAGE_TABLE_H_
