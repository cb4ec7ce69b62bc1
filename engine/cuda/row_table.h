// Whose rows are where in a pass, on the device, and what the attention ops of
// its layers share.
#ifndef QKSCOPE_ENGINE_CUDA_ROW_TABLE_H_
#define QKSCOPE_ENGINE_CUDA_ROW_TABLE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/cuda/attention.h"
#include "engine/cuda/kernels.h"

namespace qk::cuda {

// The arguments of an Attention or AttentionPattern.
struct AttentionTask {
  KvPages kv;
  AttentionShape shape;
  AttentionWork work;  // without its scratch memory
  int64_t scratch_floats = 0;
};

// What ops of many layers need goes up once: with the table, or with the first
// op that asks for it. One thread at a time uses a table.
class CudaRowTable final : public RowTable {
 public:
  // `backend` must outlive the table.
  static absl::StatusOr<std::unique_ptr<RowTable>> Make(
      absl::Span<const SequenceRows> sequences, Backend* backend);
  static const CudaRowTable& Of(const RowTable& rows) {
    return static_cast<const CudaRowTable&>(rows);
  }

  // The end of the last sequence's rows.
  int end() const;
  // The rows of all sequences, page by page, and the pages (device memory).
  const PageRows* page_rows() const { return page_rows_; }
  int num_page_rows() const { return num_page_rows_; }
  void* const* pages() const { return pages_; }

  std::vector<FillJob> FillJobs(const KvView& kv) const;
  std::vector<MambaRows> StatesAt(int64_t offset) const;

  // Attention in rows [of.begin, of.end), in at least `blocks` blocks if that
  // takes no more than `most_scratch` floats.
  absl::StatusOr<AttentionTask> Plan(const AttentionConfig& config,
                                     const KvView& kv, Range of, int blocks,
                                     int64_t most_scratch) const;
  // For AttentionPattern: kv and shape alone are set.
  absl::StatusOr<AttentionTask> PlanPattern(const AttentionConfig& config,
                                            const KvView& kv) const;
  std::vector<SequencePattern> PatternsOf(
      const KvView& kv, absl::Span<const PatternJob> jobs) const;

 private:
  struct Sequence {
    int row_begin = 0;
    int rows = 0;
    int first_position = 0;
    int page_begin = 0;  // its first page's place in page_list_
    int pages = 0;
    float* state = nullptr;

    int first_page() const { return first_position / kPageSize; }
    int keys() const { return first_position + rows; }
  };
  struct Planned {
    AttentionShape shape;
    Range of;
    std::vector<int> fresh;  // of each sequence
    DeviceBuffer memory;
    AttentionWork work;
    int64_t scratch_floats = 0;
  };

  explicit CudaRowTable(Backend* backend) : backend_(backend) {}
  absl::Status Upload();
  // The fresh pages of each sequence, by their number in `kv.fresh`; -1: none.
  std::vector<int> FreshOf(const KvView& kv) const;
  FreshPages DeviceForm(const qk::FreshPages& fresh) const;
  absl::StatusOr<KvPages> PagesOf(const KvView& kv) const;
  absl::StatusOr<Planned> MakePlan(const AttentionShape& shape, Range of,
                                   std::vector<int> fresh, int blocks,
                                   int64_t most_scratch) const;

  Backend* const backend_;
  std::vector<Sequence> sequences_;
  std::vector<void*> page_list_;  // of all sequences
  DeviceBuffer memory_;           // of the next two
  const PageRows* page_rows_ = nullptr;
  void* const* pages_ = nullptr;
  int num_page_rows_ = 0;
  // What layers have asked for so far.
  mutable std::vector<FreshPages> fresh_list_;
  mutable DeviceBuffer fresh_;
  mutable std::vector<Planned> plans_;
};

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_ROW_TABLE_H_
