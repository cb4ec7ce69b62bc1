// Compares KV pages and attention with loops in float64.
#include "tests/engine/cuda/attention_kernels.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace qk::testing {
namespace {

class AttentionKernelTest : public ::testing::TestWithParam<ComputeType> {
 protected:
  bool f32() const { return GetParam() == ComputeType::kF32; }
};
INSTANTIATE_TEST_SUITE_P(Types, AttentionKernelTest,
                         ::testing::Values(ComputeType::kF32,
                                           ComputeType::kBF16),
                         [](const auto& info) {
                           return info.param == ComputeType::kF32 ? "F32"
                                                                  : "BF16";
                         });

// Under float32 scores, weights and sums each round. Under bf16, q and the
// weights are rounded to 8 bits.
double Bound(const AttentionCase& c, ComputeType type) {
  if (type == ComputeType::kBF16) return 2e-5;
  int keys = 0;
  for (const Span& s : c.sequences) keys = std::max(keys, s.end());
  return 16 * kEpsilon * kEpsilon * (c.head_dim + keys + 16);
}

TEST_P(AttentionKernelTest, IsThatOfTheOracleInEveryPlan) {
  Random random(1);
  for (const AttentionCase& c : AttentionCases()) {
    const AttentionData data(c, GetParam(), random);
    DevicePass pass(data);
    const std::vector<float> whole =
        InEveryOrder(c.name, [&] { return pass.Run(1); });
    ExpectNmse(whole, data.Oracle(), Bound(c, GetParam()), c.name);
    const std::vector<float> split =
        InEveryOrder(c.name + " split", [&] { return pass.Run(1 << 20); });
    ExpectSame(split, whole, c.name + ", split against whole");
  }
}

TEST_P(AttentionKernelTest, ARowsBytesAreTheSameInAnySplitOfAPrompt) {
  Random random(2);
  const AttentionCase whole = {"whole", 3, 1, 24, 0, {{0, 300}}};
  const AttentionData data(whole, GetParam(), random);
  const std::vector<float> want = DevicePass(data).Run(1);
  const size_t width = 3 * 24;
  for (const Span& part :
       {Span{299, 1}, Span{64, 30}, Span{7, 90}, Span{250, 50}}) {
    AttentionCase split = whole;
    split.sequences = {part};
    AttentionData some(split, GetParam(), random);
    some.q.assign(data.q.begin() + part.first_position * width,
                  data.q.begin() + part.end() * width);
    for (int i : {0, 1}) {
      some.kv[i][0].assign(data.kv[i][0].begin(),
                           data.kv[i][0].begin() + part.end() * 24);
    }
    for (int blocks : {1, 1 << 20}) {
      ExpectSame(DevicePass(some).Run(blocks),
                 {want.begin() + part.first_position * width,
                  want.begin() + part.end() * width},
                 absl::StrCat("from ", part.first_position));
    }
  }
}

// A NaN or infinity in a key or value reaches the rows that see it and no
// others, whose bytes stay.
TEST_P(AttentionKernelTest, ANanReachesTheRowsThatSeeItOnly) {
  Random random(3);
  for (const AttentionCase& c :
       {AttentionCase{"nan", 3, 1, 24, 0, {{0, 150}, {0, 20}}},
        AttentionCase{"nan_window", 2, 1, 16, 40, {{0, 150}, {0, 20}}}}) {
    if (kSanitized && c.window > 0) continue;
    const AttentionData clean(c, GetParam(), random);
    const std::vector<float> want = DevicePass(clean).Run(1);
    for (int bad : {63, 0, 64, 100, 149}) {
      if (kSanitized && bad != 63) break;
      for (bool in_key : {true, false}) {
        for (float value : {kNaN, kInf}) {
          if (in_key && value == kInf) continue;
          AttentionData data = clean;
          data.at(in_key ? 0 : 1, 0, bad, 0)[5] = value;
          for (int blocks : {1, 1 << 20}) {
            const std::vector<float> got = DevicePass(data).Run(blocks);
            for (size_t i = 0; i < got.size(); ++i) {
              const int row = static_cast<int>(i) / (c.heads * c.head_dim);
              const bool sees = row < 150 && row >= bad &&
                                (c.window == 0 || row - bad < c.window);
              const bool hit = in_key || i % c.head_dim == 5;
              ASSERT_TRUE(sees && hit
                              ? !std::isfinite(got[i]) &&
                                    std::isnan(value) == std::isnan(got[i])
                              : got[i] == want[i])
                  << c.name << ", " << value << " at " << bad << " of "
                  << (in_key ? "keys" : "values") << ", row " << row << ": "
                  << got[i] << " for " << want[i];
            }
          }
        }
      }
    }
  }
}

TEST_P(AttentionKernelTest, TakesLargeScores) {
  Random random(4);
  const AttentionCase c = {"large", 2, 1, 16, 0, {{0, 130}}};
  AttentionData data(c, GetParam(), random);
  for (float& x : data.q) x *= 1000.0f;  // softmax picks one key
  data.q = Rounded(data.q, GetParam());
  ExpectNmse(DevicePass(data).Run(1), data.Oracle(), f32() ? 1e-6 : 2e-5,
             c.name);
}

TEST_P(AttentionKernelTest, Pattern) {
  Random random(5);
  for (const AttentionCase& c : AttentionCases()) {
    const AttentionData data(c, GetParam(), random);
    DevicePass pass(data);
    for (int s = 0; s < static_cast<int>(c.sequences.size()); ++s) {
      const Span& span = c.sequences[s];
      const std::vector<int> rows = {span.rows / 2, span.rows - 1};
      const std::vector<int> heads = {c.heads - 1, 0};
      const int keys = span.end() + 3;  // beyond the last: 0
      std::vector<double> want;
      for (int row : rows) {
        for (int head : heads) {
          std::vector<double> p = data.Probabilities(s, row, head);
          p.resize(keys, 0.0);
          want.insert(want.end(), p.begin(), p.end());
        }
      }
      const std::vector<float> got = InEveryOrder(
          c.name, [&] { return pass.Pattern(s, rows, heads, keys); });
      ExpectNmse(got, want, Bound(c, ComputeType::kF32), c.name);
      for (size_t i = 0; i < got.size(); ++i) {
        if (want[i] == 0) {
          EXPECT_EQ(got[i], 0.0f) << c.name;
        }
      }
    }
  }
}

// Reads a value of a page in the compute type.
float ValueAt(const std::vector<uint8_t>& page, int64_t offset, int64_t i,
              ComputeType type) {
  if (type == ComputeType::kF32) {
    float value;
    std::memcpy(&value, &page[offset + 4 * i], 4);
    return value;
  }
  uint16_t half;
  std::memcpy(&half, &page[offset + 2 * i], 2);
  return FromBF16(half);
}

TEST_P(AttentionKernelTest, AppendKvWritesItsSlotsOnly) {
  Random random(6);
  const AttentionCase c = {"append", 4, 2, 40, 0, {{60, 75}}};
  const AttentionData data(c, GetParam(), random);
  const DevicePass pass(data);
  for (int p = 0; p < 3; ++p) {
    const std::vector<uint8_t> page = pass.Page(0, p);
    const cuda::KvLayout& at = pass.layout();
    for (int64_t i = 0; i < at.k_offset; ++i) ASSERT_EQ(page[i], 0xFF);
    for (int i = 0; i < 2 * 40 * kPageSize; ++i) {
      const int head = i / (40 * kPageSize), d = i / kPageSize % 40;
      const int slot = i % kPageSize, position = p * kPageSize + slot;
      const float k = ValueAt(page, at.k_offset, i, GetParam());
      const float v = ValueAt(page, at.v_offset,
                              (head * kPageSize + slot) * 40 + d, GetParam());
      if (position >= 135) {
        ASSERT_TRUE(std::isnan(k) && std::isnan(v));
        continue;
      }
      ASSERT_EQ(k, data.kv[0][0][(position * 2 + head) * 40 + d]);
      ASSERT_EQ(v, data.kv[1][0][(position * 2 + head) * 40 + d]);
    }
  }
}

TEST_P(AttentionKernelTest, CopyKvPagesCopiesToEachHeadOfItsGroup) {
  Random random(7);
  const int dim = 16, heads = 2, n = heads * dim * kPageSize;
  const int64_t bytes = BytesOf(GetParam());
  std::vector<uint8_t> k, v;  // values of no meaning
  for (int64_t i = 0; i < n * bytes; ++i) {
    k.push_back(static_cast<uint8_t>(random.Below(255)));
    v.push_back(static_cast<uint8_t>(random.Below(255)));
  }
  const Array<uint8_t> from_k(k), from_v(v);
  for (int group : {1, 3}) {
    std::vector<Array<uint8_t>> to;
    std::vector<cuda::CopyPageJob> jobs;
    const std::vector<int> positions = {0, 1, 33, 64};
    for (int count : positions) {
      to.emplace_back(group * n * bytes);
      to.emplace_back(group * n * bytes);
      jobs.push_back(
          {{from_k.data(), from_v.data(), heads},
           {to[to.size() - 2].data(), to.back().data(), heads * group},
           count});
    }
    cuda::CopyKvPages(jobs.data(), static_cast<int>(jobs.size()), dim,
                      GetParam(), kStream);
    for (size_t j = 0; j < jobs.size(); ++j) {
      const std::vector<uint8_t> got_k = to[2 * j].Read(),
                                 got_v = to[2 * j + 1].Read();
      for (int64_t i = 0; i < group * n * bytes; ++i) {
        const int64_t element = i / bytes;
        const int64_t head = element / (dim * kPageSize);
        const int64_t from =
            i - (head - head / group) * dim * kPageSize * bytes;
        const int slot_k = static_cast<int>(element % kPageSize);
        const int slot_v = static_cast<int>(element / dim % kPageSize);
        ASSERT_EQ(got_k[i], slot_k < positions[j] ? k[from] : 0xFF);
        ASSERT_EQ(got_v[i], slot_v < positions[j] ? v[from] : 0xFF);
      }
    }
  }
}

TEST(AttentionPlanTest, SplitsFewTilesIntoSegments) {
  cuda::AttentionShape shape;
  shape.heads = 8;
  shape.heads_per_tile = cuda::HeadsPerTile(4, 128);
  shape.head_dim = 128;
  ASSERT_EQ(shape.heads_per_tile, 4);
  // 16 positions of 4 heads are a tile: 7 tiles and 1, 2 blocks each.
  const std::vector<cuda::AttentionSequence> sequences = {{0, 100, 0, 0},
                                                          {100, 1, 1023, 2}};
  const cuda::AttentionPlan whole = cuda::PlanAttention(sequences, shape, 16);
  EXPECT_EQ(whole.tiles.size(), 8u);
  EXPECT_TRUE(whole.merges.empty());
  EXPECT_EQ(whole.tiles[0].position, 1023);  // the longest first
  EXPECT_EQ(whole.scratch_floats(shape), 0);
  const cuda::AttentionPlan split = cuda::PlanAttention(sequences, shape, 17);
  EXPECT_EQ(split.tiles.size(), 11u);
  ASSERT_EQ(split.merges.size(), 1u);
  EXPECT_EQ(split.merges[0].segments, 4);
  EXPECT_EQ(split.partials, 16);
  EXPECT_EQ(split.scratch_floats(shape), 16 * 2 * 130);
  EXPECT_EQ(cuda::HeadsPerTile(71, 8), 1);
  EXPECT_EQ(cuda::HeadsPerTile(48, 256), 24);
}

}  // namespace
}  // namespace qk::testing
