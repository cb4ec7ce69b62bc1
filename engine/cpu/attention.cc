#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/cpu/attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/base/half.h"
#include "engine/cpu/aligned_array.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/tile-inl.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

// Online softmax over tiles of kPageSize keys that start at absolute position
// 0. Under bf16 compute only the cache is bf16. Queries and weights stay
// float32, which costs nothing here and rounds less. A row's own position fixes
// its chain of operations, so prefill, decode and any split of a prompt give it
// the same bits.

#ifndef QKSCOPE_ENGINE_CPU_ATTENTION_ONCE_
#define QKSCOPE_ENGINE_CPU_ATTENTION_ONCE_
namespace qk::cpu {

// Some query rows of the heads that share one KV head.
struct AttentionTask {
  const float* q = nullptr;  // the first row and head
  float* out = nullptr;      // like q
  int row_stride = 0;        // in q and out
  int heads = 0;             // query heads of the group
  int head_dim = 0;
  int rows = 0;
  int first_position = 0;
  int window = 0;  // how many keys a row sees; 0: all
  int keys = 0;    // the sequence's
  bool causal = true;
  float scale = 0;
  float softcap = 0;
  const KvPage* pages = nullptr;
  int kv_head_numerator = 0;  // page head = this * page.heads / num_heads
  int num_heads = 0;
  ComputeType type = ComputeType::kF32;
};

// Per-thread memory that grows to the largest head_dim so far.
struct AttentionScratch {
  AlignedArray<float> data;
  size_t size = 0;
  float* Get(size_t n) {
    if (n > size) {
      data = AllocateAligned<float>(n);
      size = n;
    }
    return data.get();
  }
};

// A task has this many positions: enough for the widest instruction set's tile.
inline constexpr int kAttentionRows = 24;

}  // namespace qk::cpu
#endif  // QKSCOPE_ENGINE_CPU_ATTENTION_ONCE_

HWY_BEFORE_NAMESPACE();
namespace qk::cpu::HWY_NAMESPACE {

// c (rows, n) = [c +] a (rows, k) x b (k, n); n a multiple of the panel width.
HWY_INLINE void Product(const float* a, size_t a_stride, size_t rows,
                        const float* b, size_t n, size_t k, bool add, float* c,
                        size_t c_stride) {
  const size_t width = PanelWidth();
  for (size_t j = 0; j < n; j += width) {
    for (size_t r = 0; r < rows; r += kTileRows) {
      TileOf<float>(std::min<size_t>(kTileRows, rows - r), a + r * a_stride,
                    a_stride, b + j, n, k, add, c + r * c_stride + j, c_stride);
    }
  }
}

HWY_INLINE V SoftCap(V x, float cap) {
  const D d;
  const V y = hn::Tanh(d, hn::Div(x, hn::Set(d, cap)));
  // Highway's Tanh turns a NaN into a number; here it must stay NaN.
  return hn::IfThenElse(hn::Eq(x, x), hn::Mul(hn::Set(d, cap), y), x);
}

// Turns the scores in columns [begin, end) of one row into weights, updates the
// row's maximum and sum, and returns the factor that rescales the sums so far.
HWY_INLINE float SoftmaxRow(float* s, int begin, int end,
                            const AttentionTask& t, float& max, float& sum) {
  const D d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const V lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  const V first = hn::Set(d, static_cast<float>(begin));
  const V last = hn::Set(d, static_cast<float>(end));
  V top = hn::Set(d, max);
  for (int j = 0; j < kPageSize; j += lanes) {
    const V column = hn::Iota(d, static_cast<float>(j));
    const auto seen = hn::And(hn::Ge(column, first), hn::Lt(column, last));
    V scaled = hn::Mul(hn::LoadU(d, s + j), hn::Set(d, t.scale));
    if (t.softcap > 0) scaled = SoftCap(scaled, t.softcap);
    const V score = hn::IfThenElse(seen, scaled, lowest);
    hn::StoreU(score, d, s + j);
    top = hn::Max(top, score);
  }
  const float new_max = hn::GetLane(hn::MaxOfLanes(d, top));
  const V shift = hn::Set(d, new_max);
  V total = hn::Zero(d);
  for (int j = 0; j < kPageSize; j += lanes) {
    const V score = hn::LoadU(d, s + j);
    const V x = hn::Sub(score, shift);
    // Highway's Exp turns a NaN into 0; here it must stay NaN.
    const V weight =
        hn::IfThenElse(hn::Eq(score, lowest), hn::Zero(d),
                       hn::IfThenElse(hn::Eq(x, x), hn::Exp(d, x), x));
    total = hn::Add(total, weight);
    hn::StoreU(weight, d, s + j);
  }
  const float factor = sum == 0.0f ? 0.0f : std::exp(max - new_max);
  max = new_max;
  sum = sum * factor + hn::GetLane(hn::SumOfLanes(d, total));
  return factor;
}

HWY_INLINE void ScaleRow(float* o, size_t n, float factor) {
  const D d;
  for (size_t i = 0; i < n; i += hn::Lanes(d)) {
    hn::StoreU(hn::Mul(hn::LoadU(d, o + i), hn::Set(d, factor)), d, o + i);
  }
}

struct TilePointers {
  const float* k;  // (head_dim, kPageSize)
  const float* v;  // (kPageSize, padded head_dim)
};

// The page's keys and values for the task's KV head, as float32, with v padded
// to whole panels. Copies them only if type or padding require it.
HWY_INLINE TilePointers PrepareTile(const AttentionTask& t, const KvPage& page,
                                    int padded, float* k_wide, float* v_wide) {
  const int head = t.kv_head_numerator * page.heads / t.num_heads;
  const int64_t offset = static_cast<int64_t>(head) * t.head_dim * kPageSize;
  if (t.type == ComputeType::kF32) {
    const float* k = static_cast<const float*>(page.k) + offset;
    const float* v = static_cast<const float*>(page.v) + offset;
    if (padded == t.head_dim) return {k, v};
    for (int j = 0; j < kPageSize; ++j) {
      std::copy_n(v + j * t.head_dim, t.head_dim, v_wide + j * padded);
    }
    return {k, v_wide};
  }
  const D d;
  const auto* k = static_cast<const hwy::bfloat16_t*>(page.k) + offset;
  const auto* v = static_cast<const uint16_t*>(page.v) + offset;
  for (size_t i = 0; i < static_cast<size_t>(t.head_dim) * kPageSize;
       i += hn::Lanes(d)) {
    hn::StoreU(Load(k + i), d, k_wide + i);
  }
  for (int j = 0; j < kPageSize; ++j) {
    for (int i = 0; i < t.head_dim; ++i) {
      v_wide[j * padded + i] = FromBF16(v[j * t.head_dim + i]);
    }
  }
  return {k_wide, v_wide};
}

HWY_ATTR void RunAttentionTask(const AttentionTask& t,
                               AttentionScratch& scratch) {
  const int width = static_cast<int>(PanelWidth());
  const int padded = (t.head_dim + width - 1) / width * width;
  const int all = t.heads * t.rows;
  float* q = scratch.Get(
      static_cast<size_t>(all) * (t.head_dim + padded + kPageSize + 2) +
      static_cast<size_t>(kPageSize) * (t.head_dim + padded));
  float* o = q + all * t.head_dim;
  float* s = o + all * padded;
  float* max = s + all * kPageSize;
  float* sum = max + all;
  float* k_wide = sum + all;
  float* v_wide = k_wide + kPageSize * t.head_dim;
  std::fill_n(v_wide, kPageSize * padded, 0.0f);
  std::fill_n(o, all * padded, 0.0f);
  std::fill_n(max, all, -std::numeric_limits<float>::infinity());
  std::fill_n(sum, all, 0.0f);
  for (int r = 0; r < all; ++r) {  // row r: head r / rows, position r % rows
    const float* from = t.q + (r / t.rows) * t.head_dim +
                        static_cast<int64_t>(r % t.rows) * t.row_stride;
    std::copy_n(from, t.head_dim, q + r * t.head_dim);
  }

  const int last_position =
      t.causal ? t.first_position + t.rows - 1 : t.keys - 1;
  const int first_key =
      t.window == 0 ? 0 : std::max(0, t.first_position - t.window + 1);
  for (int tile = first_key / kPageSize; tile <= last_position / kPageSize;
       ++tile) {
    const TilePointers kv =
        PrepareTile(t, t.pages[tile], padded, k_wide, v_wide);
    Product(q, t.head_dim, all, kv.k, kPageSize, t.head_dim, false, s,
            kPageSize);
    const int base = tile * kPageSize;
    // Rows that see the whole tile go together. Each other row goes alone, over
    // the keys that it sees: a key that it does not see takes no part, so a NaN
    // there cannot spread.
    int full_from = -1;
    auto flush = [&](int r) {
      if (full_from >= 0) {
        Product(s + full_from * kPageSize, kPageSize, r - full_from, kv.v,
                padded, kPageSize, true, o + full_from * padded, padded);
      }
      full_from = -1;
    };
    for (int r = 0; r < all; ++r) {
      const int position = t.first_position + r % t.rows;
      const int seen = t.causal ? position + 1 : t.keys;
      const int end = std::min(kPageSize, seen - base);
      const int begin =
          t.window == 0 ? 0 : std::max(0, position - t.window + 1 - base);
      if (begin >= end) {
        flush(r);
        continue;
      }
      float* row = s + r * kPageSize;
      const float factor = SoftmaxRow(row, begin, end, t, max[r], sum[r]);
      if (factor != 1.0f) ScaleRow(o + r * padded, padded, factor);
      if (begin == 0 && end == kPageSize) {
        if (full_from < 0) full_from = r;
        continue;
      }
      flush(r);
      Product(row + begin, kPageSize, 1, kv.v + begin * padded, padded,
              end - begin, true, o + r * padded, padded);
    }
    flush(all);
  }
  for (int r = 0; r < all; ++r) {
    float* to = t.out + (r / t.rows) * t.head_dim +
                static_cast<int64_t>(r % t.rows) * t.row_stride;
    const float inverse = 1.0f / sum[r];
    for (int i = 0; i < t.head_dim; ++i) to[i] = o[r * padded + i] * inverse;
  }
}

}  // namespace qk::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qk::cpu {
HWY_EXPORT(RunAttentionTask);

void Attention(const float* q, const AttentionConfig& config, const KvView& kv,
               Range of, float* out, ThreadPool& pool) {
  const int group = config.group_size();
  const int row_stride = config.q_size();
  const std::vector<std::vector<KvPage>> pages = PagesOf(kv);
  const std::vector<CpuRowTable::Sequence>& sequences =
      CpuRowTable::Of(*kv.rows);
  std::vector<AttentionTask> tasks;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const CpuRowTable::Sequence& sequence = sequences[i];
    const int first = std::max(of.begin, sequence.row_begin);
    const int rows =
        std::min(of.end, sequence.row_begin + sequence.rows) - first;
    if (rows <= 0) continue;
    const int first_position =
        sequence.first_position + first - sequence.row_begin;
    // Later rows see more keys. Starting with the longest tasks balances the
    // threads.
    const int last_block = (rows - 1) / kAttentionRows;
    for (int block = last_block; block >= 0; --block) {
      const int row = block * kAttentionRows;
      for (int head = 0; head < config.num_heads; head += group) {
        const int64_t offset = static_cast<int64_t>(first + row) * row_stride +
                               head * config.head_dim;
        AttentionTask task;
        task.q = q + offset;
        task.out = out + offset;
        task.row_stride = row_stride;
        task.heads = group;
        task.head_dim = config.head_dim;
        task.rows = std::min(kAttentionRows, rows - row);
        task.first_position = first_position + row;
        task.window = config.sliding_window.value_or(0);
        task.keys = sequence.end();
        task.causal = config.causal;
        task.scale = config.scale;
        task.softcap = config.softcap;
        task.pages = pages[i].data();
        task.kv_head_numerator = head;
        task.num_heads = config.num_heads;
        task.type = kv.type;
        tasks.push_back(task);
      }
    }
  }
  pool.For(static_cast<int64_t>(tasks.size()), [&](int64_t i, int) {
    thread_local AttentionScratch scratch;
    AttentionTask& task = tasks[i];
    const KvPage& page = task.pages[task.first_position / kPageSize];
    if (page.heads == config.num_kv_heads) {
      HWY_DYNAMIC_DISPATCH(RunAttentionTask)(task, scratch);
      return;
    }
    // Query heads that have keys of their own go one at a time.
    AttentionTask single = task;
    single.heads = 1;
    for (int g = 0; g < task.heads; ++g) {
      single.q = task.q + g * config.head_dim;
      single.out = task.out + g * config.head_dim;
      single.kv_head_numerator = task.kv_head_numerator + g;
      HWY_DYNAMIC_DISPATCH(RunAttentionTask)(single, scratch);
    }
  });
}

namespace {

float ReadKv(const void* data, int64_t index, ComputeType type) {
  return type == ComputeType::kF32
             ? static_cast<const float*>(data)[index]
             : FromBF16(static_cast<const uint16_t*>(data)[index]);
}

// The probabilities (keys) of one row and head.
void PatternRow(const float* query, int head, int position, int end,
                const AttentionConfig& config, absl::Span<const KvPage> pages,
                ComputeType type, int keys, float* out) {
  const int dim = config.head_dim;
  const int begin =
      std::max(0, position + 1 - config.sliding_window.value_or(position + 1));
  if (config.causal) end = position + 1;
  std::fill_n(out, keys, 0.0f);
  double max = -std::numeric_limits<double>::infinity();
  std::vector<double> scores(end);
  for (int key = begin; key < end; ++key) {
    const KvPage& page = pages[key / kPageSize];
    const int64_t base =
        static_cast<int64_t>(head * page.heads / config.num_heads) * dim *
        kPageSize;
    double score = 0;
    for (int i = 0; i < dim; ++i) {
      score += double{query[i]} *
               ReadKv(page.k, base + i * kPageSize + key % kPageSize, type);
    }
    scores[key] = score * config.scale;
    if (config.softcap > 0) {
      scores[key] = config.softcap * std::tanh(scores[key] / config.softcap);
    }
    max = std::max(max, scores[key]);
  }
  double sum = 0;
  for (int key = begin; key < end; ++key) {
    scores[key] = std::exp(scores[key] - max);
    sum += scores[key];
  }
  for (int key = begin; key < end; ++key) {
    out[key] = static_cast<float>(scores[key] / sum);
  }
}

}  // namespace

void AttentionPattern(const float* q, const AttentionConfig& config,
                      const KvView& kv, absl::Span<const PatternJob> jobs,
                      ThreadPool& pool) {
  const std::vector<std::vector<KvPage>> pages = PagesOf(kv);
  constexpr int kRows = 4;
  ForItems(
      jobs, pool, kRows, [](const PatternJob& job) { return job.rows.count; },
      [&](const PatternJob& job, int64_t begin, int64_t end) {
        const CpuRowTable::Sequence& s =
            CpuRowTable::Of(*kv.rows)[job.sequence];
        float* out = job.to + begin * job.heads.count * job.keys;
        for (int64_t i = begin; i < end; ++i) {
          const int row =
              static_cast<int>(RowAt(job.rows, static_cast<int>(i)));
          for (int h = 0; h < job.heads.count; ++h, out += job.keys) {
            const int head = HeadAt(job.heads, h);
            PatternRow(q + (int64_t{s.row_begin} + row) * config.q_size() +
                           head * config.head_dim,
                       head, s.first_position + row, s.end(), config,
                       pages[job.sequence], kv.type, job.keys, out);
          }
        }
      });
}

}  // namespace qk::cpu
#endif  // HWY_ONCE
