// Which dims a disruption rule chooses (design of the rules: spec.proto).
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "engine/base/philox.h"
#include "engine/cpu/kernels.h"

namespace qk::cpu {
namespace {

using Rule = DisruptionRule;

// The dims of one head or one token, by their squared norms.
class Ranker {
 public:
  explicit Ranker(int dims) : order_(dims), allowed_(dims) {}

  // Sets mask (dims) to the rule's choice among `squares` (dims). Ties go to
  // the lowest dim; entries that are not finite rank last and are not chosen.
  void Choose(const Selection& selection, int head_id, const double* squares,
              uint8_t* mask) {
    const Rule& rule = *selection.rule;
    const int dims = static_cast<int>(order_.size());
    std::fill_n(mask, dims, 0);
    switch (rule.select) {
      case Rule::Select::kTopK:
      case Rule::Select::kBottomK:
        Sort(squares, rule.select == Rule::Select::kTopK);
        for (int i = 0; i < rule.k; ++i) mask[order_[i]] = 1;
        break;
      case Rule::Select::kRandomK:
        ChooseRandom(selection, head_id, squares, mask);
        break;
      case Rule::Select::kThreshold:
        ChooseMassive(rule.lambda, squares, mask);
        break;
      case Rule::Select::kExplicit:
        for (const HeadDim& entry : rule.entries) {
          if (entry.head == head_id) mask[entry.dim] = 1;
        }
        break;
    }
    for (int d = 0; d < dims; ++d) {
      if (!std::isfinite(squares[d])) mask[d] = 0;
    }
  }

 private:
  void Sort(const double* squares, bool largest_first) {
    std::iota(order_.begin(), order_.end(), 0);
    std::stable_sort(order_.begin(), order_.end(), [&](int a, int b) {
      const bool finite_a = std::isfinite(squares[a]);
      const bool finite_b = std::isfinite(squares[b]);
      if (finite_a != finite_b) return finite_a;
      if (!finite_a) return false;
      return largest_first ? squares[a] > squares[b] : squares[a] < squares[b];
    });
  }

  void ChooseRandom(const Selection& selection, int head_id,
                    const double* squares, uint8_t* mask) {
    const Rule& rule = *selection.rule;
    const int dims = static_cast<int>(order_.size());
    Sort(squares, true);
    std::fill(allowed_.begin(), allowed_.end(), 1);
    for (int i = 0; i < rule.exclude_top; ++i) allowed_[order_[i]] = 0;
    int n = 0;
    for (int d = 0; d < dims; ++d) {
      if (allowed_[d]) order_[n++] = d;
    }
    PhiloxStream random(rule.seed, RandomPurpose::kRandomK, selection.layer,
                        static_cast<uint32_t>(selection.tensor), head_id,
                        selection.step);
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

}  // namespace

void SelectDims(const Selection& selection, const Moments& moments,
                int64_t count, int head_dim, const Choice& choice) {
  Ranker ranker(head_dim);
  for (size_t h = 0; h < selection.heads.size(); ++h) {
    uint8_t* mask = choice.mask + h * head_dim;
    float* values = choice.values + h * head_dim;
    const HeadRole& role = selection.heads[h];
    if (!role.active) {
      std::fill_n(mask, head_dim, 0);
      std::fill_n(values, head_dim, 0.0f);
      continue;
    }
    ranker.Choose(selection, role.id, moments.squares + h * head_dim, mask);
    SetValues(selection.rule->replace, moments.sums + h * head_dim, count,
              head_dim, mask, values);
  }
}

namespace {

// mask (heads, head_dim) of one token: the dims chosen by the norm over the
// rule's heads, in all of them; with an explicit list just its entries.
void ChooseForToken(const Selection& selection, Ranker& ranker, int position,
                    const float* x, int dims, std::vector<double>& squares,
                    uint8_t* mask) {
  const Rule& rule = *selection.rule;
  const int heads = static_cast<int>(selection.heads.size());
  std::fill(squares.begin(), squares.end(), 0.0);
  for (int h = 0; h < heads; ++h) {
    if (!selection.heads[h].active) continue;
    for (int d = 0; d < dims; ++d) {
      const double v = x[h * dims + d];
      squares[d] += v * v;
    }
  }
  const bool listed = rule.select == Rule::Select::kExplicit;
  std::vector<uint8_t> chosen(dims);
  if (!listed) {
    ranker.Choose(selection, position, squares.data(), chosen.data());
  }
  for (int h = 0; h < heads; ++h) {
    uint8_t* row = mask + h * dims;
    std::fill_n(row, dims, 0);
    if (!selection.heads[h].active) continue;
    if (!listed) {
      std::copy_n(chosen.data(), dims, row);
      continue;
    }
    for (const HeadDim& entry : rule.entries) {
      if (entry.head == selection.heads[h].id &&
          std::isfinite(squares[entry.dim])) {
        row[entry.dim] = 1;
      }
    }
  }
}

void WriteToken(const Rule& rule, int n, const uint8_t* mask, float* x,
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

}  // namespace

void DisruptPerToken(const Selection& selection, absl::Span<const int> rows,
                     const HeadRows& x, const Choice& choice,
                     ThreadPool& pool) {
  const int n = x.heads * x.head_dim;
  constexpr int64_t kChunk = 16;
  const int64_t count = static_cast<int64_t>(rows.size());
  pool.For((count + kChunk - 1) / kChunk, [&](int64_t chunk, int) {
    Ranker ranker(x.head_dim);
    std::vector<double> squares(x.head_dim);
    const int64_t end = std::min(count, (chunk + 1) * kChunk);
    for (int64_t i = chunk * kChunk; i < end; ++i) {
      float* row = x.data + static_cast<int64_t>(rows[i]) * n;
      uint8_t* mask = choice.mask + i * n;
      ChooseForToken(selection, ranker, x.first_position + rows[i], row,
                     x.head_dim, squares, mask);
      WriteToken(*selection.rule, n, mask, row, choice.values + i);
    }
  });
}

}  // namespace qk::cpu
