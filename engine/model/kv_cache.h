// The KV cache: pages of kPageSize positions, each with the keys and values of
// all layers, taken from a pool with a budget.
#ifndef QKSCOPE_ENGINE_MODEL_KV_CACHE_H_
#define QKSCOPE_ENGINE_MODEL_KV_CACHE_H_

#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/base/mutex.h"
#include "engine/types/model_config.h"

namespace qk {

// The pages of one sequence; they return to the pool with the object.
class PagePool;
class PageList {
 public:
  PageList() = default;
  PageList(PageList&& other) noexcept { *this = std::move(other); }
  PageList& operator=(PageList&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(pages_, other.pages_);
    return *this;
  }
  ~PageList();

  int size() const { return static_cast<int>(pages_.size()); }
  // The pages in device memory.
  std::vector<void*> pages() const;

 private:
  friend class PagePool;
  PagePool* pool_ = nullptr;
  std::vector<DeviceBuffer> pages_;
};

class PagePool {
 public:
  // `backend` must outlive the pool, and the pool must outlive its lists.
  PagePool(const ModelConfig& config, ComputeType type, int64_t budget_bytes,
           Backend* backend);

  // FAILED_PRECONDITION: the request exceeds the whole budget.
  // RESOURCE_EXHAUSTED: there is no room now. Any thread may call this.
  absl::StatusOr<PageList> Take(int64_t pages);

  // One layer's part of each page.
  const KvPart& part(int layer) const { return layers_[layer]; }
  int64_t page_bytes() const { return page_bytes_; }
  int64_t budget_pages() const { return budget_pages_; }
  int64_t used_pages() const;
  // The bytes of a page of a model's pool.
  static int64_t PageBytes(const ModelConfig& config, ComputeType type);
  static int64_t PagesFor(int64_t positions) {
    return (positions + kPageSize - 1) / kPageSize;
  }

 private:
  friend class PageList;
  void GiveBack(std::vector<DeviceBuffer> pages);

  Backend* backend_;
  std::vector<KvPart> layers_;
  int64_t page_bytes_ = 0;
  int64_t budget_pages_ = 0;
  mutable Mutex mutex_;
  int64_t used_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<DeviceBuffer> free_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_MODEL_KV_CACHE_H_
