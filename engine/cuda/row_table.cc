#include "engine/cuda/row_table.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"
#include "engine/cuda/arguments.h"

namespace qk::cuda {
namespace {

absl::StatusOr<DeviceBuffer> OnDevice(const Arguments& lists,
                                      Backend* backend) {
  QK_ASSIGN_OR_RETURN(DeviceBuffer buffer, backend->Allocate(lists.size()));
  backend->Upload(buffer.as<void>(), lists.data(), lists.size());
  return buffer;
}

template <typename T>
T* At(const DeviceBuffer& buffer, int64_t offset) {
  return reinterpret_cast<T*>(buffer.as<uint8_t>() + offset);
}

AttentionShape ShapeOf(const AttentionConfig& config, const KvView& kv) {
  // Heads that read the same keys in all of the pages share a tile.
  int group = config.num_heads / kv.part.heads;
  for (const qk::FreshPages& fresh : kv.fresh) {
    group = std::min(group, config.num_heads / fresh.part.heads);
  }
  AttentionShape shape;
  shape.heads = config.num_heads;
  shape.heads_per_tile = HeadsPerTile(group, config.head_dim);
  shape.head_dim = config.head_dim;
  shape.scale = config.scale;
  shape.softcap = config.softcap;
  shape.window = config.sliding_window.value_or(0);
  shape.causal = config.causal;
  return shape;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RowTable>> CudaRowTable::Make(
    absl::Span<const SequenceRows> sequences, Backend* backend) {
  std::unique_ptr<CudaRowTable> table(new CudaRowTable(backend));
  for (const SequenceRows& rows : sequences) {
    table->sequences_.push_back({rows.row_begin, rows.rows, rows.first_position,
                                 static_cast<int>(table->page_list_.size()),
                                 static_cast<int>(rows.pages.size()),
                                 rows.state});
    table->page_list_.insert(table->page_list_.end(), rows.pages.begin(),
                             rows.pages.end());
  }
  QK_RETURN_IF_ERROR(table->Upload());
  return table;
}

absl::Status CudaRowTable::Upload() {
  std::vector<PageRows> rows;
  for (const Sequence& s : sequences_) {
    for (int row = 0; s.pages > 0 && row < s.rows;) {
      const int position = s.first_position + row;
      const int slot = position % kPageSize;
      const int n = std::min(s.rows - row, kPageSize - slot);
      rows.push_back(
          {s.row_begin + row, n, slot, s.page_begin + position / kPageSize});
      row += n;
    }
  }
  Arguments lists;
  const int64_t of_rows = lists.Add(rows), of_pages = lists.Add(page_list_);
  QK_ASSIGN_OR_RETURN(memory_, OnDevice(lists, backend_));
  num_page_rows_ = static_cast<int>(rows.size());
  page_rows_ = At<PageRows>(memory_, of_rows);
  pages_ = At<void*>(memory_, of_pages);
  return absl::OkStatus();
}

int CudaRowTable::end() const {
  int end = 0;
  for (const Sequence& s : sequences_)
    end = std::max(end, s.row_begin + s.rows);
  return end;
}

std::vector<int> CudaRowTable::FreshOf(const KvView& kv) const {
  std::vector<int> of(sequences_.size(), -1);
  for (size_t i = 0; i < kv.fresh.size(); ++i) {
    of[kv.fresh[i].sequence] = static_cast<int>(i);
  }
  return of;
}

FreshPages CudaRowTable::DeviceForm(const qk::FreshPages& fresh) const {
  const Sequence& s = sequences_[fresh.sequence];
  return {s.first_page(), (s.keys() - 1) / kPageSize - s.first_page() + 1,
          fresh.part, fresh.base, fresh.stride};
}

std::vector<FillJob> CudaRowTable::FillJobs(const KvView& kv) const {
  std::vector<FillJob> jobs;
  for (const qk::FreshPages& fresh : kv.fresh) {
    const Sequence& s = sequences_[fresh.sequence];
    jobs.push_back({fresh.k, fresh.v, s.rows, s.first_position % kPageSize,
                    DeviceForm(fresh),
                    page_list_[s.page_begin + s.first_page()]});
  }
  return jobs;
}

std::vector<MambaRows> CudaRowTable::StatesAt(int64_t offset) const {
  std::vector<MambaRows> jobs;
  for (const Sequence& s : sequences_) {
    jobs.push_back({s.row_begin, s.rows, s.state + offset});
  }
  return jobs;
}

absl::StatusOr<KvPages> CudaRowTable::PagesOf(const KvView& kv) const {
  std::vector<FreshPages> list;
  for (const qk::FreshPages& fresh : kv.fresh) {
    list.push_back(DeviceForm(fresh));
  }
  if (list != fresh_list_) {
    Arguments lists;
    lists.Add(list);
    QK_ASSIGN_OR_RETURN(fresh_, OnDevice(lists, backend_));
    fresh_list_ = std::move(list);
  }
  return KvPages{pages(), kv.part, fresh_.as<FreshPages>()};
}

absl::StatusOr<CudaRowTable::Planned> CudaRowTable::MakePlan(
    const AttentionShape& shape, Range of, std::vector<int> fresh, int blocks,
    int64_t most_scratch) const {
  std::vector<AttentionSequence> all;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const Sequence& s = sequences_[i];
    const int begin = std::max<int>(s.row_begin, of.begin);
    const int end = std::min<int>(s.row_begin + s.rows, of.end);
    if (begin >= end) continue;
    all.push_back({begin, end - begin, s.first_position + begin - s.row_begin,
                   s.keys(), s.page_begin, fresh[i]});
  }
  const AttentionPlan plan = PlanAttention(all, shape, blocks, most_scratch);
  Planned made;
  made.shape = shape;
  made.of = of;
  made.fresh = std::move(fresh);
  made.scratch_floats = plan.scratch_floats(shape);
  Arguments lists;
  const int64_t of_tiles = lists.Add(plan.tiles);
  const int64_t of_merges = lists.Add(plan.merges);
  QK_ASSIGN_OR_RETURN(made.memory, OnDevice(lists, backend_));
  made.work = {At<AttentionTile>(made.memory, of_tiles),
               static_cast<int>(plan.tiles.size()),
               At<AttentionMerge>(made.memory, of_merges),
               static_cast<int>(plan.merges.size()),
               plan.partials,
               nullptr};
  return made;
}

absl::StatusOr<AttentionTask> CudaRowTable::Plan(const AttentionConfig& config,
                                                 const KvView& kv, Range of,
                                                 int blocks,
                                                 int64_t most_scratch) const {
  QK_ASSIGN_OR_RETURN(AttentionTask task, PlanPattern(config, kv));
  std::vector<int> fresh = FreshOf(kv);
  auto plan = std::find_if(plans_.begin(), plans_.end(), [&](const Planned& p) {
    return p.shape == task.shape && p.of.begin == of.begin &&
           p.of.end == of.end && p.fresh == fresh;
  });
  if (plan == plans_.end()) {
    QK_ASSIGN_OR_RETURN(Planned made, MakePlan(task.shape, of, std::move(fresh),
                                               blocks, most_scratch));
    plan = plans_.insert(plans_.end(), std::move(made));
  }
  task.work = plan->work;
  task.scratch_floats = plan->scratch_floats;
  return task;
}

absl::StatusOr<AttentionTask> CudaRowTable::PlanPattern(
    const AttentionConfig& config, const KvView& kv) const {
  AttentionTask task;
  QK_ASSIGN_OR_RETURN(task.kv, PagesOf(kv));
  task.shape = ShapeOf(config, kv);
  return task;
}

std::vector<SequencePattern> CudaRowTable::PatternsOf(
    const KvView& kv, absl::Span<const PatternJob> jobs) const {
  const std::vector<int> fresh = FreshOf(kv);
  std::vector<SequencePattern> patterns;
  for (const PatternJob& job : jobs) {
    const Sequence& s = sequences_[job.sequence];
    patterns.push_back({{s.row_begin, s.rows, s.first_position, s.keys(),
                         s.page_begin, fresh[job.sequence]},
                        job.rows,
                        job.heads,
                        job.keys,
                        job.to});
  }
  return patterns;
}

}  // namespace qk::cuda
