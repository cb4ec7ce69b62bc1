#include "engine/cuda/attention.h"
#include "engine/cuda/attention_tile.h"
#include "engine/cuda/job_list.h"
#include "engine/cuda/reduce.h"

namespace qk::cuda {
namespace {

constexpr int kThreads = 128;

// A block for each row and head of a merge: adds the segments in ascending
// order, as a block that has them all does.
__global__ void __launch_bounds__(kThreads)
    MergeKernel(AttentionShape shape, AttentionWork work, Outputs out) {
  const AttentionMerge merge = work.merges[blockIdx.x];
  const int r = blockIdx.z, all = shape.heads_per_tile * merge.rows;
  if (r >= all) return;
  const BlockRows block({merge.row, merge.rows}, shape, blockIdx.y);
  const int64_t offset = block.Offset(r, shape);
  const float* first =
      PartialAt(work, shape, blockIdx.y, int64_t{merge.partial} + r);
  const int64_t stride = int64_t{all} * (shape.head_dim + 2);
  for (int d = threadIdx.x; d < shape.head_dim; d += kThreads) {
    RowSum row;
    float total = 0;
    for (int s = 0; s < merge.segments; ++s) {
      const float* segment = first + s * stride;
      const MergeFactors f = MergeSums(
          row, {segment[shape.head_dim], segment[shape.head_dim + 1]});
      total = total * f.old + segment[d] * f.added;
    }
    Write(out, offset + d, Normalised(total, row.sum));
  }
}

struct PatternShared {
  double warps[kThreads / 32];
};

// A block for each row and head of each job, a thread for each key. Scores are
// kept in the job's place until the largest is known.
template <typename T, typename List>
__global__ void __launch_bounds__(kThreads)
    PatternKernel(QK_ARGUMENTS(List) list, const float* q, KvPages kv,
                  AttentionShape shape) {
  auto& shared = Shared<PatternShared>();
  const SequencePattern& job = list.jobs[blockIdx.z];
  const int row_index = blockIdx.x, head_index = blockIdx.y;
  if (row_index >= job.rows.count || head_index >= job.heads.count) return;
  const int dim = shape.head_dim;
  const int row = static_cast<int>(RowAt(job.rows, row_index));
  const int head = HeadAt(job.heads, head_index);
  const KeyRange seen =
      SeenBy(job.sequence.position + row, job.sequence.keys, shape);
  const float* query =
      q + (int64_t{job.sequence.row + row} * shape.heads + head) * dim;
  float* out =
      job.to + (int64_t{row_index} * job.heads.count + head_index) * job.keys;
  float top = -INFINITY;
  for (int key = threadIdx.x; key < job.keys; key += kThreads) {
    out[key] = 0;
    if (key < seen.begin || key >= seen.end) continue;
    const T* k = KvTileAt<T>(kv, job.sequence, shape, key / kPageSize, head).k;
    double sum = 0;
    for (int d = 0; d < dim; ++d) {
      sum +=
          double{query[d]} * Load(k, int64_t{d} * kPageSize + key % kPageSize);
    }
    auto score = static_cast<float>(sum * shape.scale);
    if (shape.softcap > 0) {
      score = shape.softcap * tanhf(score / shape.softcap);
    }
    out[key] = score;
    top = fmaxf(top, score);
  }
  const double max =
      BlockReduce<kThreads>(static_cast<double>(top), shared.warps,
                            [](double x, double y) { return fmax(x, y); });
  double sum = 0;
  const int end = min(seen.end, job.keys);
  // Each thread reads the scores that it has written.
  for (int key = threadIdx.x; key < end; key += kThreads) {
    if (key >= seen.begin) sum += exp(out[key] - max);
  }
  sum = BlockSum<kThreads>(sum, shared.warps);
  for (int key = threadIdx.x; key < end; key += kThreads) {
    if (key >= seen.begin) {
      out[key] = static_cast<float>(exp(out[key] - max) / sum);
    }
  }
}

}  // namespace

void Attention(const float* q, const KvPages& kv, const AttentionShape& shape,
               ComputeType type, const AttentionWork& work, Outputs out,
               Stream stream) {
  if (type == ComputeType::kF32) {
    AttentionF32(q, kv, shape, work, out, stream);
  } else {
    AttentionBf16(q, kv, shape, work, out, stream);
  }
  Launch(MergeKernel,
         dim3(work.num_merges, shape.heads / shape.heads_per_tile,
              AttentionRows(shape.head_dim)),
         dim3(kThreads), 0, stream, shape, work, out);
}

void AttentionPattern(const float* q, const KvPages& kv,
                      const AttentionShape& shape, ComputeType type,
                      const SequencePattern* jobs, int count, Stream stream) {
  ForJobs(jobs, count, [&](const auto& list, int n) {
    using List = std::decay_t<decltype(list)>;
    const dim3 grid(Largest(list, n, [](auto& job) { return job.rows.count; }),
                    Largest(list, n, [](auto& job) { return job.heads.count; }),
                    n);
    Launch(type == ComputeType::kF32 ? PatternKernel<float, List>
                                     : PatternKernel<uint16_t, List>,
           grid, dim3(kThreads), sizeof(PatternShared), stream, list, q, kv,
           shape);
  });
}

}  // namespace qk::cuda
