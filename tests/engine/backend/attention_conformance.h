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

// Pages of one sequence; unwritten slots are NaN.
class Pages {
 public:
  Pages(Backend& backend, int count, int heads, int head_dim,
        ComputeType type) {
    const size_t bytes =
        static_cast<size_t>(heads) * head_dim * kPageSize * BytesOf(type);
    for (int i = 0; i < count; ++i) {
      k_.push_back(std::make_unique<DeviceVector<uint8_t>>(backend, bytes));
      v_.push_back(std::make_unique<DeviceVector<uint8_t>>(backend, bytes));
      pages_.push_back({k_[i]->data(), v_[i]->data(), heads});
    }
  }

  const KvPage* get() const { return pages_.data(); }

  // K of page p is (heads, head_dim, kPageSize), V is (heads, kPageSize,
  // head_dim).
  std::vector<float> K(int p, ComputeType type) { return Read(*k_[p], type); }
  std::vector<float> V(int p, ComputeType type) { return Read(*v_[p], type); }

 private:
  static std::vector<float> Read(DeviceVector<uint8_t>& from,
                                 ComputeType type) {
    const std::vector<uint8_t> bytes = from.Read();
    std::vector<float> values(bytes.size() / BytesOf(type));
    for (size_t i = 0; i < values.size(); ++i) {
      if (type == ComputeType::kF32) {
        std::memcpy(&values[i], &bytes[4 * i], 4);
      } else {
        uint16_t half;
        std::memcpy(&half, &bytes[2 * i], 2);
        values[i] = FromBF16(half);
      }
    }
    return values;
  }

  std::vector<std::unique_ptr<DeviceVector<uint8_t>>> k_, v_;
  std::vector<KvPage> pages_;
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
    int row_begin = 0;
    for (size_t s = 0; s < c.sequences.size(); ++s) {
      const Span& sequence = c.sequences[s];
      pages_.push_back(std::make_unique<Pages>(
          backend, (sequence.end() + kPageSize - 1) / kPageSize,
          data.page_heads, c.head_dim, type));
      const DeviceVector<float> k(backend, data.k[s]);
      const DeviceVector<float> v(backend, data.v[s]);
      const size_t width = data.page_heads * c.head_dim;
      for (const Span& part : {Span{0, sequence.first_position}, sequence}) {
        const size_t offset = part.first_position * width;
        backend.AppendKv({k.data() + offset, part.rows, data.page_heads,
                          c.head_dim, part.first_position},
                         {v.data() + offset, part.rows, data.page_heads,
                          c.head_dim, part.first_position},
                         type, pages_[s]->get());
      }
      sequences_.push_back({row_begin, sequence.rows, sequence.first_position,
                            pages_[s]->get()});
      row_begin += sequence.rows;
    }
  }

  std::vector<float> Run(size_t n) {
    DeviceVector<float> out(backend_, n);
    backend_.Attention(q_.data(), config_, sequences_, type_, out.data());
    return out.Read();
  }
  std::vector<float> Pattern(size_t sequence, const std::vector<int>& rows,
                             const std::vector<int>& heads, int keys) {
    const DeviceVector<int32_t> row_list(backend_, rows);
    const DeviceVector<int32_t> head_list(backend_, heads);
    DeviceVector<float> out(backend_, rows.size() * heads.size() * keys);
    backend_.AttentionPattern(
        q_.data(), config_, sequences_[sequence],
        {0, static_cast<int>(rows.size()), row_list.data()},
        {static_cast<int>(heads.size()), head_list.data()}, keys, type_,
        out.data());
    return out.Read();
  }
  Pages& pages(size_t s) { return *pages_[s]; }

 private:
  Backend& backend_;
  AttentionConfig config_;
  ComputeType type_;
  DeviceVector<float> q_;
  std::vector<std::unique_ptr<Pages>> pages_;
  std::vector<AttentionRows> sequences_;
};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_BACKEND_ATTENTION_CONFORMANCE_H_
