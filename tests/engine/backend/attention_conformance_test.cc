// Compares KV pages and attention with naive loops in float64.
#include "tests/engine/backend/attention_conformance.h"

#include <algorithm>

namespace qk::testing {
namespace {

class AttentionTest : public ConformanceTest {
 protected:
  static bool Rounds(ComputeType type) {
    return type == ComputeType::kBF16 && GetParam().rounds_attention;
  }
};

INSTANTIATE_TEST_SUITE_P(Backends, AttentionTest,
                         ::testing::ValuesIn(AllBackends()), BackendName);

const char* NameOf(ComputeType type) {
  return type == ComputeType::kF32 ? " f32" : " bf16";
}

// Scores, weights and sums each round; exp propagates the score's error.
double Bound(const AttentionCase& c, bool rounds) {
  // A query and a weight have an error of 2^-9 at most.
  if (rounds) return 2e-5;
  int keys = 0;
  for (const Span& s : c.sequences) keys = std::max(keys, s.end());
  return 16 * kEpsilon * kEpsilon * (c.head_dim + keys + 16);
}

// Returns rows [begin, end) of (rows, width), sorted.
std::vector<float> SortedRows(const std::vector<float>& x, int begin, int end,
                              int width) {
  std::vector<float> rows(x.begin() + begin * width, x.begin() + end * width);
  std::sort(rows.begin(), rows.end());
  return rows;
}

TEST_P(AttentionTest, AppendKvWritesItsPositionsOnly) {
  Random random(1);
  const AttentionCase c = {"append", 4, 2, 24, {}, {{60, 75}, {0, 3}, {64, 1}}};
  for (ComputeType type : {ComputeType::kF32, ComputeType::kBF16}) {
    const AttentionData data = MakeData(c, type, random);
    FilledPages filled(backend(), c, data, type);
    for (size_t s = 0; s < c.sequences.size(); ++s) {
      const int end = c.sequences[s].end();
      for (int p = 0; p * kPageSize < end; ++p) {
        const int last = std::min(end, (p + 1) * kPageSize);
        for (bool keys : {true, false}) {
          ExpectSame(filled.pages(s).Sorted(p, keys),
                     SortedRows(keys ? data.k[s] : data.v[s], p * kPageSize,
                                last, 2 * 24),
                     absl::StrCat("sequence ", s, ", page ", p));
        }
      }
    }
  }
}

// Fresh pages stand for the cache's in the rows' positions: attention reads
// their keys there, and in the first page the cache's before them, each head
// for its group. The cache keeps the others.
TEST_P(AttentionTest, FreshPagesStandForTheCaches) {
  Random random(2);
  for (const Span& rows : {Span{0, 70}, Span{40, 1}, Span{100, 90}}) {
    for (int group : {1, 3}) {
      // The second sequence has fresh pages.
      const AttentionCase c = {"fresh", 6, 2, 16, {}, {{5, 66}, rows, {70, 2}}};
      AttentionCase expanded = c;
      expanded.keys_per_query_head = group > 1;
      for (ComputeType type : {ComputeType::kF32, ComputeType::kBF16}) {
        const AttentionData data = MakeData(c, type, random);
        const int heads = 2 * group;
        // What attention must see: the cache's keys, each for its group, up to
        // the rows, then the fresh ones.
        AttentionData seen = MakeData(expanded, type, random);
        seen.q = data.q;
        for (const auto& [to, from] :
             {std::pair{&seen.k, &data.k}, {&seen.v, &data.v}}) {
          for (size_t s = 0; s < c.sequences.size(); ++s) {
            const int end = s == 1 ? rows.first_position : c.sequences[s].end();
            for (int i = 0; i < end * heads * 16; ++i) {
              const int head = i / 16 % heads / group;
              (*to)[s][i] =
                  (*from)[s][(i / (heads * 16) * 2 + head) * 16 + i % 16];
            }
          }
        }
        FilledPages filled(backend(), c, data, type);
        Pages pages(backend(), (rows.end() - 1) / kPageSize + 1, heads, 16,
                    type);
        const size_t split = rows.first_position * heads * 16;
        const DeviceVector<float> k(
            backend(),
            std::vector<float>(seen.k[1].begin() + split, seen.k[1].end())),
            v(backend(),
              std::vector<float>(seen.v[1].begin() + split, seen.v[1].end()));
        const FreshPages fresh = {1,
                                  k.data(),
                                  v.data(),
                                  pages.part(),
                                  pages.get()[0],
                                  pages.stride()};
        KvView kv = filled.kv();
        kv.fresh = absl::MakeConstSpan(&fresh, 1);
        filled.Append(c, data, kv);
        const DeviceVector<float> q(backend(), data.q);
        DeviceVector<float> out(backend(), data.q.size());
        backend().Attention(q.data(), data.config, kv, {0, 66 + rows.rows + 2},
                            out.data());
        ExpectNmse(
            out.Read(), AttentionOracle(expanded, seen), Bound(c, Rounds(type)),
            absl::StrCat("rows from ", rows.first_position, ", group ", group));
        ExpectNmse(filled.Run(data.q.size()), AttentionOracle(c, data),
                   Bound(c, Rounds(type)), "the cache");
      }
    }
  }
}

TEST_P(AttentionTest, Attention) {
  Random random(3);
  for (const AttentionCase& c : AttentionCases()) {
    for (ComputeType type : {ComputeType::kF32, ComputeType::kBF16}) {
      const AttentionData data = MakeData(c, type, random);
      FilledPages filled(backend(), c, data, type);
      const std::vector<float> got = filled.Run(data.q.size());
      ExpectNmse(got, AttentionOracle(c, data), Bound(c, Rounds(type)),
                 c.name + NameOf(type));
      ExpectSame(filled.RunInParts(got.size(), 7), got, c.name + " in parts");
    }
  }
}

TEST_P(AttentionTest, AttentionTakesLargeScores) {
  Random random(4);
  const AttentionCase c = {"large", 3, 1, 64, {}, {{0, 130}}};
  AttentionData data = MakeData(c, ComputeType::kF32, random);
  for (float& x : data.q) x *= 1000.0f;  // softmax picks one key
  FilledPages filled(backend(), c, data, ComputeType::kF32);
  ExpectNmse(filled.Run(data.q.size()), AttentionOracle(c, data), 1e-6, c.name);
}

TEST_P(AttentionTest, AttentionPattern) {
  Random random(5);
  for (const AttentionCase& c : AttentionCases()) {
    for (ComputeType type : {ComputeType::kF32, ComputeType::kBF16}) {
      const AttentionData data = MakeData(c, type, random);
      FilledPages filled(backend(), c, data, type);
      // Each sequence has another number of rows, heads and keys.
      std::vector<FilledPages::Pattern> patterns;
      std::vector<std::vector<double>> want;
      size_t q_row = 0;
      for (size_t s = 0; s < c.sequences.size(); ++s) {
        const Span& sequence = c.sequences[s];
        FilledPages::Pattern p = {static_cast<int>(s),
                                  {sequence.rows - 1},
                                  {0},
                                  sequence.end() + 3};  // beyond the last: 0
        if (s % 2 == 0) {
          p.rows = {sequence.rows / 2, sequence.rows - 1};
          p.heads = {c.heads - 1, 0};
        }
        want.emplace_back();
        for (int row : p.rows) {
          for (int head : p.heads) {
            std::vector<double> chances = Probabilities(
                data, &data.q[((q_row + row) * c.heads + head) * c.head_dim],
                head, sequence.first_position + row, data.k[s]);
            chances.resize(p.keys, 0.0);
            want[s].insert(want[s].end(), chances.begin(), chances.end());
          }
        }
        patterns.push_back(std::move(p));
        q_row += sequence.rows;
      }
      const std::vector<std::vector<float>> got = filled.Run(patterns);
      for (size_t s = 0; s < got.size(); ++s) {
        ExpectNmse(got[s], want[s], Bound(c, false), c.name + NameOf(type));
        for (size_t i = 0; i < got[s].size(); ++i) {
          if (want[s][i] == 0) {
            EXPECT_EQ(got[s][i], 0.0f) << c.name;
          }
        }
      }
    }
  }
}

// Puts a NaN into a key or value at `bad`: only rows that see it change.
TEST_P(AttentionTest, ANanReachesTheRowsThatSeeItOnly) {
  Random random(6);
  for (const AttentionCase& c :
       {AttentionCase{"nan", 3, 1, 24, {}, {{0, 150}, {0, 70}}},
        AttentionCase{"nan_window", 4, 2, 16, 40, {{0, 150}, {0, 70}}},
        AttentionCase{
            "nan_own_keys", 4, 2, 16, {}, {{0, 150}, {0, 70}}, true}}) {
    for (ComputeType type : {ComputeType::kF32, ComputeType::kBF16}) {
      for (int bad : {0, 1, 63, 64, 100, 149}) {
        const AttentionData clean = MakeData(c, type, random);
        for (bool in_key : {true, false}) {
          AttentionData data = clean;
          std::vector<float>& tensor = in_key ? data.k[0] : data.v[0];
          // In a key, all heads of the position get NaNs; in a value, one dim
          // of each head.
          const int width = data.page_heads * c.head_dim;
          for (int d = 0; d < width; d += in_key ? 5 : c.head_dim) {
            tensor[bad * width + d] = kNaN;
          }
          FilledPages with(backend(), c, data, type),
              without(backend(), c, clean, type);
          const std::vector<float> got = with.Run(data.q.size());
          const std::vector<float> want = without.Run(data.q.size());
          const int out_width = c.heads * c.head_dim;
          for (size_t i = 0; i < got.size(); ++i) {
            const int row = static_cast<int>(i) / out_width;
            const bool sees =
                row < 150 && row >= bad && row - bad < c.window.value_or(1000);
            const bool hit = in_key || i % c.head_dim == 0;
            ASSERT_TRUE(sees && hit ? std::isnan(got[i]) : got[i] == want[i])
                << c.name << NameOf(type) << " NaN at " << bad << " of "
                << (in_key ? "keys" : "values") << ", row " << row << ": "
                << got[i] << " for " << want[i];
          }
        }
      }
    }
  }
}

TEST_P(AttentionTest, ARowsAttentionIsTheSameInAnySplit) {
  Random random(7);
  const AttentionCase whole = {"whole", 3, 1, 24, {}, {{0, 150}}};
  for (ComputeType type : {ComputeType::kF32, ComputeType::kBF16}) {
    const AttentionData data = MakeData(whole, type, random);
    FilledPages all(backend(), whole, data, type);
    const std::vector<float> want = all.Run(data.q.size());
    const size_t width = 3 * 24;
    for (const Span& part : {Span{149, 1}, Span{64, 30}, Span{7, 90}}) {
      AttentionCase split = whole;
      split.sequences = {part};
      AttentionData some = data;
      some.q.assign(data.q.begin() + part.first_position * width,
                    data.q.begin() + part.end() * width);
      FilledPages filled(backend(), split, some, type);
      ExpectSame(filled.Run(some.q.size()),
                 {want.begin() + part.first_position * width,
                  want.begin() + part.end() * width},
                 absl::StrCat("from ", part.first_position));
    }
  }
}

}  // namespace
}  // namespace qk::testing
