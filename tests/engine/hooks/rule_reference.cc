#include "tests/engine/hooks/rule_reference.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "engine/base/philox.h"

namespace qk::testing {

using Rule = DisruptionRule;

Rows Rows::Expanded(int to_heads) const {
  Rows out(rows, to_heads, dims);
  for (int t = 0; t < rows; ++t) {
    for (int h = 0; h < to_heads; ++h) {
      for (int d = 0; d < dims; ++d) {
        out.at(t, h, d) = at(t, h / (to_heads / heads), d);
      }
    }
  }
  return out;
}

Rows Rows::FirstOfGroups(int to_heads) const {
  Rows out(rows, to_heads, dims);
  for (int t = 0; t < rows; ++t) {
    for (int h = 0; h < to_heads; ++h) {
      for (int d = 0; d < dims; ++d) {
        out.at(t, h, d) = at(t, h * (heads / to_heads), d);
      }
    }
  }
  return out;
}

void Rows::Append(const Rows& more) {
  if (rows == 0) {
    *this = more;
    return;
  }
  rows += more.rows;
  values.insert(values.end(), more.values.begin(), more.values.end());
}

Rows Rope(const Rows& x, int position, double theta) {
  Rows out = x;
  const int half = x.dims / 2;
  for (int t = 0; t < x.rows; ++t) {
    for (int i = 0; i < half; ++i) {
      const double angle = (position + t) * std::pow(theta, -double(i) / half);
      const double cos = std::cos(angle), sin = std::sin(angle);
      for (int h = 0; h < x.heads; ++h) {
        const double a = x.at(t, h, i), b = x.at(t, h, i + half);
        out.at(t, h, i) = a * cos - b * sin;
        out.at(t, h, i + half) = b * cos + a * sin;
      }
    }
  }
  return out;
}

Rows CausalAttention(const Rows& q, const Rows& k, const Rows& v,
                     double scale) {
  Rows z(q.rows, q.heads, q.dims);
  for (int t = 0; t < q.rows; ++t) {
    const int keys = k.rows - q.rows + t + 1;
    for (int h = 0; h < q.heads; ++h) {
      std::vector<double> weights(keys);
      double sum = 0;
      for (int s = 0; s < keys; ++s) {
        double score = 0;
        for (int d = 0; d < q.dims; ++d) score += q.at(t, h, d) * k.at(s, h, d);
        sum += weights[s] = std::exp(scale * score);
      }
      for (int s = 0; s < keys; ++s) {
        for (int d = 0; d < q.dims; ++d) {
          z.at(t, h, d) += weights[s] / sum * v.at(s, h, d);
        }
      }
    }
  }
  return z;
}

void RuleReference::Run(const Rows& clean, int start, int step, Rows* changed) {
  // Under kv_head, the rule sees and counts the model's KV heads.
  const Rows view = clean.FirstOfGroups(counted_heads_);
  Rows written(view.rows, view.heads, view.dims);
  std::fill(written.values.begin(), written.values.end(), std::nan(""));
  if (rule_.axis == Rule::Axis::kPerHead) {
    PerHead(view, step, &written);
  } else {
    PerToken(view, start, step, &written);
  }
  written = written.Expanded(num_heads_);
  for (size_t i = 0; i < written.values.size(); ++i) {
    if (!std::isnan(written.values[i])) changed->values[i] = written.values[i];
  }
}

std::vector<int> RuleReference::Heads() const {
  if (!rule_.heads.empty()) return rule_.heads;
  std::vector<int> all(counted_heads_);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

// `place`: the head, or a token's position.
std::vector<int> RuleReference::Choose(const std::vector<double>& norms,
                                       int place, int step) const {
  const int dims = static_cast<int>(norms.size());
  std::vector<int> ranking(dims), chosen;
  std::iota(ranking.begin(), ranking.end(), 0);
  const bool ascending = rule_.select == Rule::Select::kBottomK;
  std::sort(ranking.begin(), ranking.end(), [&](int a, int b) {
    if (norms[a] == norms[b]) return a < b;
    return ascending ? norms[a] < norms[b] : norms[a] > norms[b];
  });
  switch (rule_.select) {
    case Rule::Select::kTopK:
    case Rule::Select::kBottomK:
      chosen.assign(ranking.begin(), ranking.begin() + rule_.k);
      break;
    case Rule::Select::kRandomK: {
      // This is a partial Fisher-Yates shuffle of the allowed dims.
      std::vector<int> allowed(ranking.begin() + rule_.exclude_top,
                               ranking.end());
      std::sort(allowed.begin(), allowed.end());
      PhiloxStream random(rule_.seed, RandomPurpose::kRandomK, layer_,
                          static_cast<uint32_t>(tensor_), place, step + 1);
      while (static_cast<int>(chosen.size()) < rule_.k) {
        const size_t i = chosen.size();
        const uint32_t left = static_cast<uint32_t>(allowed.size() - i);
        std::swap(allowed[i], allowed[i + random.Below(left)]);
        chosen.push_back(allowed[i]);
      }
      break;
    }
    case Rule::Select::kThreshold: {
      const double mean =
          std::accumulate(norms.begin(), norms.end(), 0.0) / dims;
      for (int d = 0; d < dims; ++d) {
        if (norms[d] > rule_.lambda * mean) chosen.push_back(d);
      }
      break;
    }
    case Rule::Select::kExplicit:
      for (const HeadDim& entry : rule_.entries) {
        if (entry.head == place) chosen.push_back(entry.dim);
      }
      break;
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::map<int, RuleReference::Chosen> RuleReference::ChooseForHeads(
    const Rows& counted, int step) const {
  std::map<int, Chosen> all;
  for (int head : Heads()) {
    std::vector<double> norms(counted.dims), means(counted.dims);
    for (int d = 0; d < counted.dims; ++d) {
      for (int t = 0; t < counted.rows; ++t) {
        norms[d] += counted.at(t, head, d) * counted.at(t, head, d);
        means[d] += counted.at(t, head, d) / counted.rows;
      }
      norms[d] = std::sqrt(norms[d]);
    }
    Chosen& chosen = all[head];
    chosen.dims = Choose(norms, head, step);
    double pooled = 0;
    for (int d : chosen.dims) pooled += means[d] / chosen.dims.size();
    for (int d : chosen.dims) {
      if (rule_.replace == Rule::Replace::kScale) continue;
      chosen.values.push_back(rule_.replace == Rule::Replace::kZero ? 0
                              : rule_.replace == Rule::Replace::kPooledMean
                                  ? pooled
                                  : means[d]);
    }
  }
  return all;
}

void RuleReference::Write(const Chosen& chosen, const Rows& view, int row,
                          int head, Rows* written) const {
  for (size_t i = 0; i < chosen.dims.size(); ++i) {
    const int d = chosen.dims[i];
    written->at(row, head, d) = rule_.replace == Rule::Replace::kScale
                                    ? view.at(row, head, d) * rule_.factor
                                    : chosen.values[i];
  }
}

void RuleReference::PerHead(const Rows& view, int step, Rows* written) {
  const bool prompt = step < 0;
  const bool acts = Has(rule_.phase, prompt ? Phase::kPrefill : Phase::kDecode);
  std::map<int, Chosen> chosen = prompt_;
  if (prompt) {
    Rows s(rule_.stat_span.size(), view.heads, view.dims);
    std::copy_n(
        view.values.begin() + rule_.stat_span.begin * view.heads * view.dims,
        s.values.size(), s.values.begin());
    counted_ = std::move(s);
    chosen = prompt_ = ChooseForHeads(counted_, step);
  } else {
    counted_.Append(view);
    if (rule_.reselect) chosen = ChooseForHeads(counted_, step);
  }
  std::vector<int> rows(prompt ? rule_.positions.size() : 1);
  std::iota(rows.begin(), rows.end(), prompt ? rule_.positions.begin : 0);
  if (!acts) rows.clear();
  for (int row : rows) {
    for (const auto& [head, one] : chosen) {
      Write(one, view, row, head, written);
    }
  }
  if (prompt || (acts && rule_.reselect)) {
    Report(step, chosen, static_cast<int64_t>(rows.size()));
  } else if (acts) {
    for (const auto& [head, one] : chosen) {
      reused_ += static_cast<int64_t>(one.dims.size());
    }
  }
}

void RuleReference::Finish() {
  if (rule_.axis == Rule::Axis::kPerToken || rule_.reselect ||
      !Has(rule_.phase, Phase::kDecode)) {
    return;
  }
  Report(-1, {}, 0);
  reports_.back().phase = Phase::kDecode;
  reports_.back().replaced = reused_;
}

void RuleReference::PerToken(const Rows& view, int start, int step,
                             Rows* written) {
  const bool prompt = step < 0;
  if (!Has(rule_.phase, prompt ? Phase::kPrefill : Phase::kDecode)) return;
  const std::vector<int> heads = Heads();
  std::map<int, Chosen> by_position;
  for (int row = 0; row < view.rows; ++row) {
    if (prompt && !rule_.positions.Contains(row)) continue;
    std::vector<double> norms(view.dims);
    for (int d = 0; d < view.dims; ++d) {
      for (int head : heads) {
        norms[d] += view.at(row, head, d) * view.at(row, head, d);
      }
      norms[d] = std::sqrt(norms[d]);
    }
    Chosen& chosen = by_position[start + row];
    chosen.dims = Choose(norms, start + row, step);
    double pooled = 0;
    for (int d : chosen.dims) {
      for (int head : heads) {
        pooled += view.at(row, head, d) / (heads.size() * chosen.dims.size());
      }
    }
    if (rule_.replace != Rule::Replace::kScale) {
      const bool zero = rule_.replace == Rule::Replace::kZero;
      chosen.values.assign(chosen.dims.size(), zero ? 0 : pooled);
    }
    for (int head : heads) Write(chosen, view, row, head, written);
  }
  Report(step, by_position, static_cast<int64_t>(heads.size()));
}

// `times`: how often each chosen dim was written.
void RuleReference::Report(int step, const std::map<int, Chosen>& chosen,
                           int64_t times) {
  AppliedRule& report = reports_.emplace_back();
  report.rule = index_;
  report.layer = layer_;
  report.tensor = tensor_;
  report.phase = step < 0 ? Phase::kPrefill : Phase::kDecode;
  report.step = step;
  for (const auto& [place, one] : chosen) {
    AppliedDims& dims = report.chosen.emplace_back();
    dims.index = place;
    dims.dims = one.dims;
    dims.values.assign(one.values.begin(), one.values.end());
    if (rule_.replace == Rule::Replace::kPooledMean && !one.values.empty()) {
      dims.values.resize(1);
    }
    report.replaced += static_cast<int64_t>(one.dims.size()) * times;
  }
}

}  // namespace qk::testing
