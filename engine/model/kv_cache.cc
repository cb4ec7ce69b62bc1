#include "engine/model/kv_cache.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

namespace qk {

PageList::~PageList() {
  if (pool_ != nullptr) pool_->GiveBack(std::move(pages_));
}

std::vector<void*> PageList::pages() const {
  std::vector<void*> pages;
  for (const DeviceBuffer& page : pages_) pages.push_back(page.as<void>());
  return pages;
}

int64_t PagePool::PageBytes(const ModelConfig& config, ComputeType type) {
  int64_t bytes = 0;
  for (const LayerConfig& layer : config.layers) {
    bytes += 2 * int64_t{layer.attention.kv_size()} * kPageSize * BytesOf(type);
  }
  return bytes;
}

PagePool::PagePool(const ModelConfig& config, ComputeType type,
                   int64_t budget_bytes, Backend* backend)
    : backend_(backend) {
  for (const LayerConfig& layer : config.layers) {
    const int64_t bytes =
        int64_t{layer.attention.kv_size()} * kPageSize * BytesOf(type);
    layers_.push_back(
        {page_bytes_, page_bytes_ + bytes, layer.attention.num_kv_heads});
    page_bytes_ += 2 * bytes;
  }
  budget_pages_ = budget_bytes / page_bytes_;
}

absl::StatusOr<PageList> PagePool::Take(int64_t pages) {
  if (pages > budget_pages_) {
    return absl::FailedPreconditionError(
        absl::StrCat("needs ", pages * kPageSize,
                     " cached positions over all arms, the "
                     "KV cache holds ",
                     budget_pages_ * kPageSize,
                     "; reduce the prompt, max_new_tokens or the arms"));
  }
  PageList list;
  MutexLock lock(&mutex_);
  if (used_ + pages > budget_pages_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "needs ", pages, " KV pages, ", budget_pages_ - used_, " are free"));
  }
  // Reserves the final size now, because returning pages must not need memory.
  free_.reserve(used_ + std::max<size_t>(free_.size(), pages));
  list.pages_.reserve(pages);
  for (int64_t i = 0; i < pages; ++i) {
    if (!free_.empty()) {
      list.pages_.push_back(std::move(free_.back()));
      free_.pop_back();
      continue;
    }
    absl::StatusOr<DeviceBuffer> page = backend_->Allocate(page_bytes_);
    if (!page.ok()) {
      for (DeviceBuffer& taken : list.pages_) free_.push_back(std::move(taken));
      return page.status();
    }
    // Attention may read whole pages, also slots that have no key yet.
    backend_->Zero(page->as<void>(), page_bytes_);
    list.pages_.push_back(*std::move(page));
  }
  used_ += pages;
  list.pool_ = this;
  return list;
}

void PagePool::GiveBack(std::vector<DeviceBuffer> pages) {
  MutexLock lock(&mutex_);
  used_ -= static_cast<int64_t>(pages.size());
  for (DeviceBuffer& page : pages) free_.push_back(std::move(page));
}

int64_t PagePool::used_pages() const {
  MutexLock lock(&mutex_);
  return used_;
}

}  // namespace qk
