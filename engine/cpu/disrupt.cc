// Chooses a disruption rule's dims and writes their new values.
// proto/qkscope/v1/spec.proto defines the exact meaning.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "engine/base/philox.h"
#include "engine/cpu/kernels.h"

namespace qk::cpu {
namespace {

using Rule = DisruptionRule;

// Ranks the dims of one head or one token by their squared norms.
class Ranker {
 public:
  explicit Ranker(int dims) : order_(dims), allowed_(dims) {}

  // Sets mask (dims) to the rule's choice among `squares` (dims). Ties go to
  // the lowest dim; entries that are not finite rank last and are not chosen.
  // `number` tells random choices apart: the head's id, or the token's
  // position.
  void Choose(const TensorRule& rule, int step, int number,
              const double* squares, uint8_t* mask) {
    const int dims = static_cast<int>(order_.size());
    std::fill_n(mask, dims, 0);
    switch (rule.select) {
      case Rule::Select::kTopK:
      case Rule::Select::kBottomK:
        Sort(squares, rule.k, rule.select == Rule::Select::kTopK);
        for (int i = 0; i < rule.k; ++i) mask[order_[i]] = 1;
        break;
      case Rule::Select::kRandomK:
        ChooseRandom(rule, step, number, squares, mask);
        break;
      case Rule::Select::kThreshold:
        ChooseMassive(rule.lambda, squares, mask);
        break;
      case Rule::Select::kExplicit:
        for (int i = 0; i < rule.num_entries; ++i) {
          const HeadDim& entry = rule.entries[i];
          if (entry.head == number) mask[entry.dim] = 1;
        }
        break;
    }
    for (int d = 0; d < dims; ++d) {
      if (!std::isfinite(squares[d])) mask[d] = 0;
    }
  }

 private:
  // Puts the first n of the ranking into order_.
  void Sort(const double* squares, int n, bool largest_first) {
    std::iota(order_.begin(), order_.end(), 0);
    std::partial_sort(order_.begin(), order_.begin() + n, order_.end(),
                      [&](int a, int b) {
                        const bool finite_a = std::isfinite(squares[a]);
                        const bool finite_b = std::isfinite(squares[b]);
                        if (finite_a != finite_b) return finite_a;
                        if (!finite_a || squares[a] == squares[b]) return a < b;
                        return (squares[a] > squares[b]) == largest_first;
                      });
  }

  void ChooseRandom(const TensorRule& rule, int step, int number,
                    const double* squares, uint8_t* mask) {
    const int dims = static_cast<int>(order_.size());
    Sort(squares, rule.exclude_top, true);
    std::fill(allowed_.begin(), allowed_.end(), 1);
    for (int i = 0; i < rule.exclude_top; ++i) allowed_[order_[i]] = 0;
    int n = 0;
    for (int d = 0; d < dims; ++d) {
      if (allowed_[d]) order_[n++] = d;
    }
    PhiloxStream random(rule.seed, RandomPurpose::kRandomK, rule.layer,
                        static_cast<uint32_t>(rule.tensor), number, step);
    for (int i = 0; i < rule.k; ++i) {
      std::swap(order_[i], order_[i + random.Below(n - i)]);
      mask[order_[i]] = 1;
    }
  }

  void ChooseMassive(double lambda, const double* squares, uint8_t* mask) {
    const int dims = static_cast<int>(order_.size());
    double sum = 0;
    int finite = 0;
    for (int d = 0; d < dims; ++d) {
      if (!std::isfinite(squares[d])) continue;
      sum += std::sqrt(squares[d]);
      ++finite;
    }
    if (finite == 0) return;
    const double threshold = lambda * (sum / finite);
    for (int d = 0; d < dims; ++d) mask[d] = std::sqrt(squares[d]) > threshold;
  }

  std::vector<int> order_;
  std::vector<uint8_t> allowed_;
};

// The value written into each chosen dim of one head.
void SetValues(Rule::Replace replace, const double* sums, int64_t count,
               int dims, const uint8_t* mask, float* values) {
  double pooled = 0;
  int chosen = 0;
  for (int d = 0; d < dims; ++d) {
    if (!mask[d]) continue;
    pooled += sums[d] / static_cast<double>(count);
    ++chosen;
  }
  for (int d = 0; d < dims; ++d) {
    double value = 0;
    if (mask[d] && replace == Rule::Replace::kPooledMean) {
      value = pooled / chosen;
    } else if (mask[d] && replace == Rule::Replace::kPerDimMean) {
      value = sums[d] / static_cast<double>(count);
    }
    values[d] = static_cast<float>(value);
  }
}

// Chooses in heads [begin, end).
void Select(const SelectJob& job, int64_t begin, int64_t end) {
  Ranker ranker(job.head_dim);
  for (int64_t h = begin; h < end; ++h) {
    const int64_t at = h * job.head_dim;
    uint8_t* mask = job.to.mask + at;
    float* values = job.to.values + at;
    const HeadRole& role = job.rule.heads[h];
    if (!role.active) {
      std::fill_n(mask, job.head_dim, 0);
      std::fill_n(values, job.head_dim, 0.0f);
      continue;
    }
    ranker.Choose(job.rule, job.step, role.id, job.from.squares + at, mask);
    SetValues(job.rule.replace, job.from.sums + at, job.count, job.head_dim,
              mask, values);
  }
}

// Writes into rows [begin, end) of the set.
void Write(const ReplaceJob& job, int64_t begin, int64_t end) {
  const int n = job.x.heads * job.x.head_dim;
  const bool scale = job.replace == Rule::Replace::kScale;
  for (int64_t i = begin; i < end; ++i) {
    float* v = job.x.data + RowAt(job.rows, static_cast<int>(i)) * n;
    for (int d = 0; d < n; ++d) {
      if (!job.choice.mask[d]) continue;
      v[d] =
          scale ? static_cast<float>(v[d] * job.factor) : job.choice.values[d];
    }
  }
}

// Sets one token's mask (heads, head_dim). The norm over the rule's heads
// chooses dims, which are set in all of these heads; an explicit list sets its
// own entries only.
void ChooseForToken(const TensorRule& rule, int step, Ranker& ranker,
                    int position, const float* x, int dims,
                    std::vector<double>& squares, uint8_t* mask) {
  std::fill(squares.begin(), squares.end(), 0.0);
  for (int h = 0; h < rule.num_heads; ++h) {
    if (!rule.heads[h].active) continue;
    for (int d = 0; d < dims; ++d) {
      const double v = x[h * dims + d];
      squares[d] += v * v;
    }
  }
  const bool listed = rule.select == Rule::Select::kExplicit;
  std::vector<uint8_t> chosen(dims);
  if (!listed) {
    ranker.Choose(rule, step, position, squares.data(), chosen.data());
  }
  for (int h = 0; h < rule.num_heads; ++h) {
    uint8_t* row = mask + h * dims;
    std::fill_n(row, dims, 0);
    if (!rule.heads[h].active) continue;
    if (!listed) {
      std::copy_n(chosen.data(), dims, row);
      continue;
    }
    for (int i = 0; i < rule.num_entries; ++i) {
      const HeadDim& entry = rule.entries[i];
      if (entry.head == rule.heads[h].id && std::isfinite(squares[entry.dim])) {
        row[entry.dim] = 1;
      }
    }
  }
}

void WriteToken(const TensorRule& rule, int n, const uint8_t* mask, float* x,
                float* value) {
  double sum = 0;
  int chosen = 0;
  for (int i = 0; i < n; ++i) {
    if (!mask[i]) continue;
    sum += x[i];
    ++chosen;
  }
  const bool mean = rule.replace == Rule::Replace::kPooledMean && chosen > 0;
  *value = mean ? static_cast<float>(sum / chosen) : 0.0f;
  for (int i = 0; i < n; ++i) {
    if (!mask[i]) continue;
    x[i] = rule.replace == Rule::Replace::kScale
               ? static_cast<float>(x[i] * rule.factor)
               : *value;
  }
}

// Applies the rule to rows [begin, end) of the set.
void DisruptTokens(const TokenRuleJob& job, int64_t begin, int64_t end) {
  const HeadRows& x = job.x;
  const int64_t n = static_cast<int64_t>(x.heads) * x.head_dim;
  Ranker ranker(x.head_dim);
  std::vector<double> squares(x.head_dim);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t row = RowAt(job.rows, static_cast<int>(i));
    float* v = x.data + row * n;
    uint8_t* mask = job.to.mask + i * n;
    ChooseForToken(job.rule, job.step, ranker,
                   x.first_position + static_cast<int>(row), v, x.head_dim,
                   squares, mask);
    WriteToken(job.rule, static_cast<int>(n), mask, v, job.to.values + i);
  }
}

}  // namespace

void SelectDims(absl::Span<const SelectJob> jobs, ThreadPool& pool) {
  constexpr int kHeads = 4;
  ForItems(
      jobs, pool, kHeads,
      [](const SelectJob& job) { return job.rule.num_heads; }, Select);
}

void ReplaceDims(absl::Span<const ReplaceJob> jobs, ThreadPool& pool) {
  constexpr int kRows = 32;
  ForItems(
      jobs, pool, kRows, [](const ReplaceJob& job) { return job.rows.count; },
      Write);
}

void DisruptPerToken(absl::Span<const TokenRuleJob> jobs, ThreadPool& pool) {
  constexpr int kRows = 16;
  ForItems(
      jobs, pool, kRows, [](const TokenRuleJob& job) { return job.rows.count; },
      DisruptTokens);
}

}  // namespace qk::cpu
