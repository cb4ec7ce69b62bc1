#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/base/half.h"
#include "engine/cpu/attention_task.h"
#include "engine/cpu/kernels.h"

namespace qk::cpu {
namespace {

// A task has this many positions: enough for the widest instruction set's tile.
constexpr int kAttentionRows = 24;

}  // namespace

void Attention(const float* q, const AttentionConfig& config, const KvView& kv,
               Range of, const PairKernel& pairs, float* out,
               ThreadPool& pool) {
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
    for (int row = 0; row < rows; row += kAttentionRows) {
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
        task.pairs = kv.type == ComputeType::kF32 ? nullptr : &pairs;
        tasks.push_back(task);
      }
    }
  }
  // Later rows see more keys: a thread begins with the longest tasks of its
  // part, so that short ones are left at the end, which balances the threads.
  const auto n = static_cast<int64_t>(tasks.size());
  for (int t = 0; t < pool.size(); ++t) {
    std::reverse(tasks.begin() + pool.PartBegin(n, t),
                 tasks.begin() + pool.PartBegin(n, t + 1));
  }
  pool.For(n, [&](int64_t i, int) {
    thread_local AttentionScratch scratch;
    AttentionTask& task = tasks[i];
    const KvPage& page = task.pages[task.first_position / kPageSize];
    if (page.heads == config.num_kv_heads) {
      RunAttentionTask(task, scratch);
      return;
    }
    // Query heads that have keys of their own go one at a time.
    AttentionTask single = task;
    single.heads = 1;
    for (int g = 0; g < task.heads; ++g) {
      single.q = task.q + g * config.head_dim;
      single.out = task.out + g * config.head_dim;
      single.kv_head_numerator = task.kv_head_numerator + g;
      RunAttentionTask(single, scratch);
    }
  });
}

namespace {

// Element i of a key.
float KeyAt(const KvPage& page, int head, int key, int i, int dim,
            ComputeType type) {
  const int64_t begin = static_cast<int64_t>(head) * dim * kPageSize;
  if (type == ComputeType::kF32) {
    return static_cast<const float*>(
        page.k)[begin + KeyPlace<float>(key, i, dim)];
  }
  return FromBF16(static_cast<const uint16_t*>(
      page.k)[begin + KeyPlace<uint16_t>(key, i, dim)]);
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
    const int kv_head = head * page.heads / config.num_heads;
    double score = 0;
    for (int i = 0; i < dim; ++i) {
      score += double{query[i]} *
               KeyAt(page, kv_head, key % kPageSize, i, dim, type);
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
