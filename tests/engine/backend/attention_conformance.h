// Cases of the attention ops, with their pages on a device, and the oracle.
#ifndef QKSCOPE_TESTS_ENGINE_BACKEND_ATTENTION_CONFORMANCE_H_
#define QKSCOPE_TESTS_ENGINE_BACKEND_ATTENTION_CONFORMANCE_H_

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/engine/backend/conformance.h"

namespace qk::testing {

// Pages of one sequence, with the keys and values of one layer; unwritten slots
// are NaN. How values lie in a page is the backend's own matter.
class Pages {
 public:
  Pages(Backend& backend, int count, int heads, int head_dim, ComputeType type)
      : type_(type),
        half_(int64_t{heads} * head_dim * kPageSize * BytesOf(type)),
        part_{0, half_, heads},
        memory_(backend, count * 2 * half_) {
    for (int i = 0; i < count; ++i)
      pages_.push_back(memory_.data() + i * stride());
  }

  absl::Span<void* const> get() const { return pages_; }
  const KvPart& part() const { return part_; }
  int64_t stride() const { return 2 * half_; }

  // What the keys or the values of page p have, sorted, without NaNs.
  std::vector<float> Sorted(int p, bool keys) {
    const std::vector<uint8_t> bytes = memory_.Read();
    const uint8_t* from = &bytes[p * stride() + (keys ? 0 : half_)];
    std::vector<float> values;
    for (int64_t i = 0; i < half_; i += BytesOf(type_)) {
      float value;
      if (type_ == ComputeType::kF32) {
        std::memcpy(&value, from + i, 4);
      } else {
        uint16_t half;
        std::memcpy(&half, from + i, 2);
        value = FromBF16(half);
      }
      if (!std::isnan(value)) values.push_back(value);
    }
    std::sort(values.begin(), values.end());
    return values;
  }

 private:
  ComputeType type_;
  int64_t half_;
  KvPart part_;
  DeviceVector<uint8_t> memory_;
  std::vector<void*> pages_;
};

struct Span {
  int first_position;
  int rows;
  int end() const { return first_position + rows; }
};

struct AttentionCase {
  std::string name;
  int heads, kv_heads, head_dim;
  std::optional<int> window;
  std::vector<Span> sequences;
  bool keys_per_query_head = false;
  float softcap = 0;
  bool causal = true;
};

inline std::vector<AttentionCase> AttentionCases() {
  const std::optional<int> all;
  const std::vector<Span> mix = {{0, 70}, {130, 1}, {64, 1}, {63, 3}};
  return {
      {"one_key", 1, 1, 8, all, {{0, 1}}},
      {"gqa1_dim8", 2, 2, 8, all, {{0, 65}}},
      {"gqa2_dim16", 4, 2, 16, all, mix},
      {"gqa3_dim64", 9, 3, 64, all, mix},
      {"gqa8_dim24", 8, 1, 24, all, mix},
      {"gqa2_dim7", 4, 2, 7, all, mix},
      {"gqa2_dim80", 2, 1, 80, all, {{0, 25}, {100, 2}}},
      {"gqa3_dim128", 3, 1, 128, all, {{5, 60}, {191, 2}}},
      {"long", 3, 1, 64, all, {{300, 50}, {500, 1}}},
      {"window1", 2, 1, 16, 1, mix},
      {"window5", 4, 2, 24, 5, mix},
      {"window63", 2, 1, 8, 63, {{0, 200}}},
      {"window64", 3, 1, 16, 64, {{0, 200}, {128, 1}, {127, 2}}},
      {"window65", 2, 2, 8, 65, {{10, 200}}},
      {"window_of_all", 2, 2, 8, 1000, {{0, 130}}},
      {"own_keys", 6, 2, 16, all, mix, true},
      {"own_keys_window", 3, 1, 64, 7, mix, true},
      {"softcap", 4, 2, 24, all, mix, false, 1.5f},
      {"full", 4, 2, 16, all, {{0, 1}, {0, 24}, {0, 130}}, false, 0, false},
      {"full_dim80", 2, 2, 80, all, {{0, 64}, {0, 65}}, false, 0, false},
      {"full_later", 3, 1, 24, all, {{63, 3}, {0, 2}}, false, 0, false},
      {"softcap_window", 2, 1, 256, 70, {{0, 130}, {200, 1}}, false, 0.3f},
  };
}

// A case's tensors in host memory, as the op sees them.
struct AttentionData {
  AttentionConfig config;
  int page_heads = 0;
  std::vector<float> q;                  // (rows of all, heads, head_dim)
  std::vector<std::vector<float>> k, v;  // (end, page heads, head_dim)
};

inline AttentionData MakeData(const AttentionCase& c, ComputeType type,
                              Random& random) {
  AttentionData data;
  data.config.num_heads = c.heads;
  data.config.num_kv_heads = c.kv_heads;
  data.config.head_dim = c.head_dim;
  data.config.scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  data.config.softcap = c.softcap;
  data.config.sliding_window = c.window;
  data.config.causal = c.causal;
  data.page_heads = c.keys_per_query_head ? c.heads : c.kv_heads;
  int rows = 0;
  for (const Span& s : c.sequences) {
    rows += s.rows;
    const size_t n =
        static_cast<size_t>(s.end()) * data.page_heads * c.head_dim;
    data.k.push_back(Rounded(random.Normal(n), type));
    data.v.push_back(Rounded(random.Normal(n), type));
  }
  data.q = random.Normal(static_cast<size_t>(rows) * c.heads * c.head_dim);
  return data;
}

// Returns the probabilities of one row and head over the keys of `k`; keys that
// the row does not see have 0.
inline std::vector<double> Probabilities(const AttentionData& data,
                                         const float* q, int head, int position,
                                         const std::vector<float>& k) {
  const AttentionConfig& a = data.config;
  const int kv = head * data.page_heads / a.num_heads;
  const int begin =
      a.sliding_window ? std::max(0, position + 1 - *a.sliding_window) : 0;
  const int keys = static_cast<int>(k.size()) / (data.page_heads * a.head_dim);
  const int end = a.causal ? position + 1 : keys;
  std::vector<double> p(keys, 0.0);
  double max = -std::numeric_limits<double>::infinity();
  for (int key = begin; key < end; ++key) {
    for (int d = 0; d < a.head_dim; ++d) {
      p[key] +=
          double{q[d]} *
          k[(static_cast<size_t>(key) * data.page_heads + kv) * a.head_dim + d];
    }
    p[key] *= a.scale;
    if (a.softcap > 0) p[key] = a.softcap * std::tanh(p[key] / a.softcap);
    max = std::max(max, p[key]);
  }
  double sum = 0;
  for (int key = begin; key < end; ++key) {
    p[key] = std::exp(p[key] - max);
    sum += p[key];
  }
  for (double& x : p) x /= sum;
  return p;
}

inline std::vector<double> AttentionOracle(const AttentionCase& c,
                                           const AttentionData& data) {
  const int dim = c.head_dim;
  std::vector<double> out(data.q.size(), 0.0);
  size_t at = 0;
  for (size_t s = 0; s < c.sequences.size(); ++s) {
    for (int row = 0; row < c.sequences[s].rows; ++row) {
      const int position = c.sequences[s].first_position + row;
      for (int head = 0; head < c.heads; ++head, at += dim) {
        const int kv = head * data.page_heads / c.heads;
        const std::vector<double> p =
            Probabilities(data, &data.q[at], head, position, data.k[s]);
        for (int key = 0; key < c.sequences[s].end(); ++key) {
          if (p[key] == 0) continue;
          for (int d = 0; d < dim; ++d) {
            out[at + d] +=
                p[key] *
                data.v[s]
                      [(static_cast<size_t>(key) * data.page_heads + kv) * dim +
                       d];
          }
        }
      }
    }
  }
  return out;
}

// The device side of a case: its pages, filled through AppendKv in two parts.
class FilledPages {
 public:
  FilledPages(Backend& backend, const AttentionCase& c,
              const AttentionData& data, ComputeType type)
      : backend_(backend),
        config_(data.config),
        type_(type),
        q_(backend, data.q) {
    const size_t width = data.page_heads * c.head_dim;
    std::vector<SequenceRows> earlier, now;
    std::vector<float> k[2], v[2];  // the rows of all sequences, in both parts
    int row_begin = 0, earlier_begin = 0;
    for (size_t s = 0; s < c.sequences.size(); ++s) {
      const Span& sequence = c.sequences[s];
      pages_.push_back(std::make_unique<Pages>(
          backend, (sequence.end() + kPageSize - 1) / kPageSize,
          data.page_heads, c.head_dim, type));
      const size_t split = sequence.first_position * width;
      for (const auto& [from, to] :
           {std::pair{&data.k[s], k}, {&data.v[s], v}}) {
        to[0].insert(to[0].end(), from->begin(), from->begin() + split);
        to[1].insert(to[1].end(), from->begin() + split, from->end());
      }
      const absl::Span<void* const> pages = pages_[s]->get();
      if (split > 0) {
        earlier.push_back({earlier_begin, sequence.first_position, 0, pages});
      }
      now.push_back({row_begin, sequence.rows, sequence.first_position, pages});
      earlier_begin += sequence.first_position;
      row_begin += sequence.rows;
    }
    rows_ = row_begin;
    for (const auto& [i, sequences] : {std::pair{0, &earlier}, {1, &now}}) {
      table_ = backend.MakeRowTable(*sequences).value();
      const DeviceVector<float> dev_k(backend, k[i]), dev_v(backend, v[i]);
      backend.AppendKv(dev_k.data(), dev_v.data(), c.head_dim, kv());
    }
  }

  // Stores the rows again, through another view.
  void Append(const AttentionCase& c, const AttentionData& data,
              const KvView& view) {
    std::vector<float> k, v;
    for (size_t s = 0; s < c.sequences.size(); ++s) {
      const size_t split =
          c.sequences[s].first_position * data.page_heads * c.head_dim;
      k.insert(k.end(), data.k[s].begin() + split, data.k[s].end());
      v.insert(v.end(), data.v[s].begin() + split, data.v[s].end());
    }
    const DeviceVector<float> dev_k(backend_, k), dev_v(backend_, v);
    backend_.AppendKv(dev_k.data(), dev_v.data(), c.head_dim, view);
  }

  std::vector<float> Run(size_t n) {
    DeviceVector<float> out(backend_, n);
    backend_.Attention(q_.data(), config_, kv(), {0, rows_}, out.data());
    return out.Read();
  }
  // The same in parts of `most` rows.
  std::vector<float> RunInParts(size_t n, int most) {
    DeviceVector<float> out(backend_, n);
    for (int row = 0; row < rows_; row += most) {
      backend_.Attention(q_.data(), config_, kv(),
                         {row, std::min(rows_, row + most)}, out.data());
    }
    return out.Read();
  }
  struct Pattern {
    int sequence;
    std::vector<int> rows, heads;
    int keys;
  };
  // The probabilities of each pattern, by one op.
  std::vector<std::vector<float>> Run(const std::vector<Pattern>& patterns) {
    std::vector<DeviceVector<int32_t>> lists;
    std::vector<DeviceVector<float>> out;
    std::vector<PatternJob> jobs;
    for (const Pattern& p : patterns) {
      lists.emplace_back(backend_, p.rows);
      lists.emplace_back(backend_, p.heads);
      out.emplace_back(backend_, p.rows.size() * p.heads.size() * p.keys);
      const auto& heads = lists.back();
      const auto& rows = lists[lists.size() - 2];
      jobs.push_back({p.sequence,
                      {0, static_cast<int>(p.rows.size()), rows.data()},
                      {static_cast<int>(p.heads.size()), heads.data()},
                      p.keys,
                      out.back().data()});
    }
    backend_.AttentionPattern(q_.data(), config_, kv(), jobs);
    std::vector<std::vector<float>> results;
    for (DeviceVector<float>& values : out) results.push_back(values.Read());
    return results;
  }
  Pages& pages(size_t s) { return *pages_[s]; }
  const RowTable& table() const { return *table_; }
  KvView kv() const { return {table_.get(), pages_[0]->part(), {}, type_}; }

 private:
  Backend& backend_;
  AttentionConfig config_;
  ComputeType type_;
  DeviceVector<float> q_;
  std::vector<std::unique_ptr<Pages>> pages_;
  std::unique_ptr<RowTable> table_;
  int rows_ = 0;
};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_BACKEND_ATTENTION_CONFORMANCE_H_
