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

struct PatternArguments {
  const float* q;
  KvPages kv;
  AttentionShape shape;
  AttentionTile sequence;
  RowSet rows;
  HeadSet heads;
  int keys;
  float* out;
};

// A block for each row and head, a thread for each key. Scores are kept in out
// until the largest is known.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    PatternKernel(QK_ARGUMENTS(PatternArguments) a) {
  auto& shared = Shared<PatternShared>();
  const int dim = a.shape.head_dim;
  const int row = static_cast<int>(RowAt(a.rows, blockIdx.x));
  const int head = HeadAt(a.heads, blockIdx.y);
  const KeyRange seen =
      SeenBy(a.sequence.position + row, a.sequence.keys, a.shape);
  const float* query =
      a.q + (int64_t{a.sequence.row + row} * a.shape.heads + head) * dim;
  float* out =
      a.out + (int64_t{blockIdx.x} * a.heads.count + blockIdx.y) * a.keys;
  float top = -INFINITY;
  for (int key = threadIdx.x; key < a.keys; key += kThreads) {
    out[key] = 0;
    if (key < seen.begin || key >= seen.end) continue;
    const T* k =
        KvTileAt<T>(a.kv, a.sequence, a.shape, key / kPageSize, head).k;
    double sum = 0;
    for (int d = 0; d < dim; ++d) {
      sum +=
          double{query[d]} * Load(k, int64_t{d} * kPageSize + key % kPageSize);
    }
    auto score = static_cast<float>(sum * a.shape.scale);
    if (a.shape.softcap > 0) {
      score = a.shape.softcap * tanhf(score / a.shape.softcap);
    }
    out[key] = score;
    top = fmaxf(top, score);
  }
  const double max =
      BlockReduce<kThreads>(static_cast<double>(top), shared.warps,
                            [](double x, double y) { return fmax(x, y); });
  double sum = 0;
  const int end = min(seen.end, a.keys);
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
                      const AttentionTile& sequence, const RowSet& rows,
                      const HeadSet& heads, int keys, float* out,
                      Stream stream) {
  const PatternArguments a = {q, kv, shape, sequence, rows, heads, keys, out};
  Launch(type == ComputeType::kF32 ? PatternKernel<float>
                                   : PatternKernel<uint16_t>,
         dim3(rows.count, heads.count), dim3(kThreads), sizeof(PatternShared),
         stream, a);
}

}  // namespace qk::cuda
