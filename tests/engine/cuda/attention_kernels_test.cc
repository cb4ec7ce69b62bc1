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
    const KvPart& at = pass.layout();
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

TEST_P(AttentionKernelTest, FillFreshPages) {
  Random random(7);
  const int dim = 16, heads = 2;
  const bool f32 = GetParam() == ComputeType::kF32;
  const auto value = [&](const Array<uint8_t>& page, int64_t i) {
    return f32 ? reinterpret_cast<const float*>(page.data())[i]
               : FromBF16(reinterpret_cast<const uint16_t*>(page.data())[i]);
  };
  // The first position of a sequence's rows, and their number.
  const std::vector<std::pair<int, int>> sequences = {
      {0, 1}, {3, 61}, {60, 70}, {64, 64}};
  const int64_t of_cached = int64_t{heads} * dim * kPageSize;
  for (int group : {1, 3}) {
    const int to_heads = heads * group;
    const int64_t half = int64_t{to_heads} * dim * kPageSize;
    std::vector<float> cached = random.Normal(2 * of_cached);
    for (float& x : cached) x = FromBF16(RoundToBF16(x));
    const Array<float> cached_f32(cached);
    const Array<uint16_t> cached_bf16(ToBf16(cached));
    const int bytes = BytesOf(GetParam());
    std::vector<Array<float>> k, v;
    std::vector<Array<uint8_t>> pages;
    std::vector<cuda::FillJob> jobs;
    for (const auto& [first, rows] : sequences) {
      const int slot = first % kPageSize;
      const int count = (slot + rows - 1) / kPageSize + 1;
      k.emplace_back(random.Normal(rows * to_heads * dim));
      v.emplace_back(random.Normal(rows * to_heads * dim));
      pages.emplace_back(count * 2 * half * bytes);
      jobs.push_back({k.back().data(),
                      v.back().data(),
                      rows,
                      slot,
                      {first / kPageSize,
                       count,
                       {0, half * bytes, to_heads},
                       pages.back().data(),
                       2 * half * bytes},
                      f32 ? static_cast<const void*>(cached_f32.data())
                          : cached_bf16.data()});
    }
    cuda::FillFreshPages(jobs.data(), static_cast<int>(jobs.size()),
                         {0, of_cached * bytes, heads}, GetParam(), dim,
                         kStream);
    for (size_t j = 0; j < jobs.size(); ++j) {
      const auto& job = jobs[j];
      const std::vector<float> own_k = k[j].Read(), own_v = v[j].Read();
      pages[j].Read();  // checks its ends
      for (int h = 0; h < to_heads; ++h) {
        for (int at = 0; at < job.fresh.pages * kPageSize; ++at) {
          for (int d = 0; d < dim; ++d) {
            const int slot = at % kPageSize, row = at - job.slot;
            const int64_t in_k = (int64_t{h} * dim + d) * kPageSize + slot;
            const int64_t in_v = (int64_t{h} * kPageSize + slot) * dim + d;
            const int64_t page = at / kPageSize * 2 * half;
            const float got_k = value(pages[j], page + in_k);
            const float got_v = value(pages[j], page + half + in_v);
            if (row >= job.rows) {
              ASSERT_TRUE(std::isnan(got_k) && std::isnan(got_v));
            } else if (row >= 0) {
              const int64_t from = (int64_t{row} * to_heads + h) * dim + d;
              const auto stored = [&](float x) {
                return f32 ? x : FromBF16(RoundToBF16(x));
              };
              ASSERT_EQ(got_k, stored(own_k[from]));
              ASSERT_EQ(got_v, stored(own_v[from]));
            } else {
              const int64_t old = int64_t{h / group - h} * dim * kPageSize;
              ASSERT_EQ(got_k, cached[in_k + old]);
              ASSERT_EQ(got_v, cached[of_cached + in_v + old]);
            }
          }
        }
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
  const std::vector<cuda::AttentionSequence> sequences = {
      {0, 100, 0, 100, 0}, {100, 1, 1023, 1024, 2}};
  const int64_t most = 16 * 2 * 130;
  const cuda::AttentionPlan whole =
      cuda::PlanAttention(sequences, shape, 16, most);
  EXPECT_EQ(whole.tiles.size(), 8u);
  EXPECT_TRUE(whole.merges.empty());
  EXPECT_EQ(whole.tiles[0].position, 1023);  // the longest first
  EXPECT_EQ(whole.scratch_floats(shape), 0);
  const cuda::AttentionPlan split =
      cuda::PlanAttention(sequences, shape, 17, most);
  EXPECT_EQ(split.tiles.size(), 11u);
  ASSERT_EQ(split.merges.size(), 1u);
  EXPECT_EQ(split.merges[0].segments, 4);
  EXPECT_EQ(split.partials, 16);
  EXPECT_EQ(split.scratch_floats(shape), most);
  // With less memory for partial results, nothing is split.
  EXPECT_TRUE(
      cuda::PlanAttention(sequences, shape, 17, most - 1).merges.empty());
  EXPECT_EQ(cuda::HeadsPerTile(71, 8), 1);
  EXPECT_EQ(cuda::HeadsPerTile(48, 256), 24);
}

}  // namespace
}  // namespace qk::testing
