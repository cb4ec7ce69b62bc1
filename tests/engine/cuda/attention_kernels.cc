#include "tests/engine/cuda/attention_kernels.h"

#include <algorithm>

namespace qk::testing {

std::vector<AttentionCase> AttentionCases() {
  const std::vector<Span> mix = {{0, 70}, {130, 1}, {64, 1}, {63, 3}};
  std::vector<AttentionCase> cases = {
      {"one_key", 1, 1, 8, 0, {{0, 1}}},
      {"gqa2_dim16", 4, 2, 16, 0, mix},
      {"gqa3_dim10", 3, 1, 10, 0, {{0, 5}, {60, 6}}},  // no 16-byte rows
      {"window5", 4, 2, 24, 5, {{0, 70}, {130, 1}}},
      {"softcap", 2, 1, 24, 0, {{0, 20}, {63, 3}}, 1.5f},
      {"full", 2, 1, 16, 0, {{0, 1}, {0, 24}, {0, 70}}, 0, false},
      {"fresh", 4, 2, 16, 0, {{0, 10}, {60, 75}}, 0, true, true},
      {"segments", 2, 1, 16, 0, {{530, 2}, {255, 2}, {256, 1}}},
      {"segments_window", 2, 1, 16, 300, {{530, 2}, {600, 1}}},
  };
  if (kSanitized) return cases;
  const std::vector<AttentionCase> more = {
      {"gqa3_dim64", 9, 3, 64, 0, mix},
      {"gqa8_dim24", 8, 1, 24, 0, mix},
      {"gqa2_dim80", 2, 1, 80, 0, {{0, 25}, {100, 2}}},
      {"gqa3_dim128", 3, 1, 128, 0, {{5, 60}, {191, 2}}},
      {"gqa71", 71, 1, 8, 0, {{0, 3}, {70, 1}}},  // more heads than a tile
      {"window1", 2, 1, 16, 1, mix},
      {"window64", 3, 1, 16, 64, {{0, 200}, {128, 1}, {127, 2}}},
      {"window65", 2, 2, 8, 65, {{10, 200}}},
      {"window_of_all", 2, 2, 8, 1000, {{0, 130}}},
      {"full_later", 3, 1, 24, 0, {{63, 3}, {0, 2}}, 0, false},
      {"full_long", 1, 1, 80, 0, {{0, 300}}, 0, false},
      {"softcap_dim256", 2, 1, 256, 70, {{0, 60}, {200, 1}}, 0.3f},
      {"fresh_window", 6, 2, 24, 70, {{200, 20}, {120, 75}}, 0, true, true},
      {"long_prompt", 2, 1, 64, 0, {{200, 330}}},
  };
  cases.insert(cases.end(), more.begin(), more.end());
  return cases;
}

AttentionData::AttentionData(const AttentionCase& the_case, ComputeType t,
                             Random& random)
    : c(the_case), type(t) {
  scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  int rows = 0;
  for (const Span& s : c.sequences) {
    rows += s.rows;
    const size_t n = static_cast<size_t>(s.end()) * c.kv_heads * c.head_dim;
    for (auto& tensor : kv) tensor.push_back(Rounded(random.Normal(n), type));
  }
  q = random.Normal(static_cast<size_t>(rows) * c.heads * c.head_dim);
  if (!c.fresh) return;
  const size_t n =
      static_cast<size_t>(c.sequences.back().end()) * c.heads * c.head_dim;
  for (auto& tensor : fresh) tensor = Rounded(random.Normal(n), type);
}

int AttentionData::first_fresh_position(int sequence) const {
  const Span& span = c.sequences[sequence];
  const bool last = sequence + 1 == static_cast<int>(c.sequences.size());
  if (!c.fresh || !last) return span.end();
  return span.end() / 2 / kPageSize * kPageSize;
}

const float* AttentionData::Read(int i, int sequence, int position,
                                 int head) const {
  if (position >= first_fresh_position(sequence)) {
    return &fresh[i][(static_cast<size_t>(position) * c.heads + head) *
                     c.head_dim];
  }
  const int kv_head = head / (c.heads / c.kv_heads);
  return &kv[i][sequence]
            [(static_cast<size_t>(position) * c.kv_heads + kv_head) *
             c.head_dim];
}

float* AttentionData::at(int i, int sequence, int position, int head) {
  return const_cast<float*>(Read(i, sequence, position, head));
}

std::vector<double> AttentionData::Probabilities(int sequence, int row,
                                                 int head) const {
  int first = 0;
  for (int s = 0; s < sequence; ++s) first += c.sequences[s].rows;
  const Span& span = c.sequences[sequence];
  const int position = span.first_position + row;
  const int begin = c.window > 0 ? std::max(0, position + 1 - c.window) : 0;
  const int end = c.causal ? position + 1 : span.end();
  const float* query =
      &q[(static_cast<size_t>(first + row) * c.heads + head) * c.head_dim];
  std::vector<double> p(span.end(), 0.0);
  double max = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int key = begin; key < end; ++key) {
    const float* k = Read(0, sequence, key, head);
    for (int d = 0; d < c.head_dim; ++d) p[key] += double{query[d]} * k[d];
    p[key] *= scale;
    if (c.softcap > 0) p[key] = c.softcap * std::tanh(p[key] / c.softcap);
    max = std::max(max, p[key]);
  }
  for (int key = begin; key < end; ++key) {
    p[key] = std::exp(p[key] - max);
    sum += p[key];
  }
  for (double& x : p) x /= sum;
  return p;
}

std::vector<double> AttentionData::Oracle() const {
  std::vector<double> out;
  for (int s = 0; s < static_cast<int>(c.sequences.size()); ++s) {
    for (int row = 0; row < c.sequences[s].rows; ++row) {
      for (int head = 0; head < c.heads; ++head) {
        const std::vector<double> p = Probabilities(s, row, head);
        std::vector<double> o(c.head_dim, 0.0);
        for (int key = 0; key < c.sequences[s].end(); ++key) {
          if (p[key] == 0) continue;
          const float* v = Read(1, s, key, head);
          for (int d = 0; d < c.head_dim; ++d) o[d] += p[key] * v[d];
        }
        out.insert(out.end(), o.begin(), o.end());
      }
    }
  }
  return out;
}

DevicePass::DevicePass(const AttentionData& data) : data_(data) {
  const AttentionCase& c = data.c;
  const int64_t bytes = BytesOf(data.type);
  const int64_t tensor = bytes * c.kv_heads * c.head_dim * kPageSize;
  // Another layer's K and V come first.
  layout_ = {2 * tensor, 3 * tensor, c.kv_heads};
  for (size_t s = 0; s < c.sequences.size(); ++s) {
    const Span& span = c.sequences[s];
    first_page_.push_back(static_cast<int>(pages_.size()));
    for (int p = 0; p * kPageSize < span.end(); ++p) {
      pages_.emplace_back(4 * tensor);
      page_list_.push_back(pages_.back().data());
    }
  }
  for (size_t s = 0; s < c.sequences.size(); ++s) {
    const Span& span = c.sequences[s];
    for (const Span& part : {Span{0, span.first_position}, span}) {
      Append(data.kv[0][s], data.kv[1][s], layout_, part, first_page_[s],
             page_list_.data());
    }
  }
  if (!c.fresh) return;
  const int last = static_cast<int>(c.sequences.size()) - 1;
  const int64_t own = bytes * c.heads * c.head_dim * kPageSize;
  const int first = data.first_fresh_position(last) / kPageSize;
  const int end = (c.sequences[last].end() + kPageSize - 1) / kPageSize;
  fresh_layout_ = {0, own, c.heads};
  fresh_pages_.emplace_back((end - first) * 2 * own);
  fresh_ = {first, end - first, fresh_layout_, fresh_pages_[0].data(), 2 * own};
  std::vector<void*> list(end, nullptr);
  for (int p = first; p < end; ++p) {
    list[p] = fresh_pages_[0].data() + (p - first) * 2 * own;
  }
  const int begin = first * kPageSize;
  Append(data.fresh[0], data.fresh[1], fresh_layout_,
         {begin, c.sequences[last].end() - begin}, 0, list.data());
}

void DevicePass::Append(const std::vector<float>& k,
                        const std::vector<float>& v, const KvPart& layout,
                        const Span& span, int first_page, void* const* pages) {
  std::vector<cuda::PageRows> tiles;
  for (int row = 0; row < span.rows;) {
    const int position = span.first_position + row;
    const int slot = position % kPageSize;
    const int rows = std::min(kPageSize - slot, span.rows - row);
    tiles.push_back({row, rows, slot, first_page + position / kPageSize});
    row += rows;
  }
  const Array<cuda::PageRows> device_tiles(tiles);
  const size_t skip = static_cast<size_t>(span.first_position) * layout.heads *
                      data_.c.head_dim;
  const Array<float> from_k(std::vector<float>(k.begin() + skip, k.end())),
      from_v(std::vector<float>(v.begin() + skip, v.end()));
  cuda::AppendKv(from_k.data(), from_v.data(), layout, data_.type,
                 data_.c.head_dim, device_tiles.data(),
                 static_cast<int>(tiles.size()), pages, kStream);
}

cuda::AttentionShape DevicePass::Shape(int group) const {
  const AttentionCase& c = data_.c;
  cuda::AttentionShape shape;
  shape.heads = c.heads;
  shape.heads_per_tile = cuda::HeadsPerTile(group, c.head_dim);
  shape.head_dim = c.head_dim;
  shape.scale = data_.scale;
  shape.softcap = c.softcap;
  shape.window = c.window;
  shape.causal = c.causal;
  return shape;
}

std::vector<float> DevicePass::Run(int blocks) {
  const AttentionCase& c = data_.c;
  const Array<float> q(data_.q), out(data_.q.size());
  // Sequences with keys for each query head go in a launch of their own.
  for (bool of_fresh : {false, true}) {
    std::vector<cuda::AttentionSequence> sequences;
    int row = 0;
    for (size_t s = 0; s < c.sequences.size(); ++s) {
      const bool fresh = c.fresh && s + 1 == c.sequences.size();
      if (fresh == of_fresh) {
        sequences.push_back(
            {row, c.sequences[s].rows, c.sequences[s].first_position,
             c.sequences[s].first_position + c.sequences[s].rows,
             first_page_[s], fresh ? 0 : -1});
      }
      row += c.sequences[s].rows;
    }
    const cuda::AttentionShape shape =
        Shape(of_fresh ? 1 : c.heads / c.kv_heads);
    const cuda::AttentionPlan plan =
        cuda::PlanAttention(sequences, shape, blocks, int64_t{1} << 30);
    const Array<cuda::AttentionTile> tiles(plan.tiles);
    const Array<cuda::AttentionMerge> merges(plan.merges);
    const Array<float> scratch(plan.scratch_floats(shape));
    cuda::Attention(
        q.data(), {page_list_.data(), layout_, &fresh_}, shape, data_.type,
        {tiles.data(), static_cast<int>(plan.tiles.size()), merges.data(),
         static_cast<int>(plan.merges.size()), plan.partials, scratch.data()},
        {out.data()}, kStream);
    scratch.Read();
  }
  return out.Read();
}

std::vector<float> DevicePass::Pattern(int sequence,
                                       const std::vector<int>& rows,
                                       const std::vector<int>& heads,
                                       int keys) {
  const AttentionCase& c = data_.c;
  int row = 0;
  for (int s = 0; s < sequence; ++s) row += c.sequences[s].rows;
  const Span& span = c.sequences[sequence];
  const bool fresh = data_.first_fresh_position(sequence) < span.end();
  const cuda::AttentionTile tile = {row,
                                    span.rows,
                                    span.first_position,
                                    span.end(),
                                    first_page_[sequence],
                                    fresh ? 0 : -1};
  const Array<float> q(data_.q);
  const Array<int32_t> row_list(rows), head_list(heads);
  const Array<float> out(rows.size() * heads.size() * keys);
  const cuda::SequencePattern job = {
      tile,
      {0, static_cast<int>(rows.size()), row_list.data()},
      {static_cast<int>(heads.size()), head_list.data()},
      keys,
      out.data()};
  cuda::AttentionPattern(q.data(), {page_list_.data(), layout_, &fresh_},
                         Shape(1), data_.type, &job, 1, kStream);
  return out.Read();
}

}  // namespace qk::testing
