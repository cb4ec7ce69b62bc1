// Compares the kernels of hooks and disruption with loops in float64.
#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "engine/base/philox.h"
#include "engine/cuda/kernels.h"
#include "tests/engine/cuda/kernel_testing.h"

namespace qk::testing {
namespace {

using Rule = DisruptionRule;

struct Shape {
  int rows, heads, head_dim, first_position;
  int width() const { return heads * head_dim; }
};

// A job of every shape goes with one launch.
std::vector<Shape> Shapes() {
  std::vector<Shape> shapes = {
      {1, 1, 1, 0}, {5, 3, 7, 60}, {130, 2, 11, 3}, {33, 1, 13, 5}};
  if (!kSanitized) shapes.push_back({200, 9, 64, 64});
  if (!kSanitized) shapes.push_back({70, 3, 128, 1000});
  return shapes;
}

// Some rows: a range, or a list of positions that are the rows plus `shift`.
struct Rows {
  Rows(int begin, int count) : chosen(count), list(0), set{begin, count} {
    std::iota(chosen.begin(), chosen.end(), begin);
  }
  Rows(const std::vector<int>& rows, int shift)
      : chosen(rows),
        list(Shifted(rows, shift)),
        set{-shift, static_cast<int>(rows.size()), list.data()} {}

  static std::vector<int32_t> Shifted(std::vector<int32_t> rows, int shift) {
    for (int32_t& row : rows) row += shift;
    return rows;
  }

  std::vector<int> chosen;
  Array<int32_t> list;
  RowSet set;
};

// All rows, all but the first, every third, only the last, or none.
Rows RowChoice(int choice, int rows) {
  if (choice == 0) return Rows(0, rows);
  if (choice == 1) return Rows(1, rows - 1);
  std::vector<int> list;
  for (int i = 0; choice == 2 && i < rows; i += 3) list.push_back(i);
  if (choice == 3) list.push_back(rows - 1);
  return Rows(list, choice == 2 ? 0 : 70);
}
constexpr int kRowChoices = 5;

struct Heads {
  explicit Heads(int count) : chosen(count), list(0), set{count} {
    std::iota(chosen.begin(), chosen.end(), 0);
  }
  explicit Heads(const std::vector<int>& heads)
      : chosen(heads),
        list(heads),
        set{static_cast<int>(heads.size()), list.data()} {}
  std::vector<int> chosen;
  Array<int32_t> list;
  HeadSet set;
};

Heads HeadChoice(int choice, int heads) {
  if (choice % 2 == 0) return Heads(heads);
  return heads > 2 ? Heads(std::vector<int>{0, heads - 1})
                   : Heads(std::vector<int>{heads - 1});
}

// What the jobs of one launch read and write.
struct Input {
  Input(const Shape& s, int choice, Random& random)
      : shape(s),
        x(random.Normal(static_cast<size_t>(s.rows) * s.width(), 3.0f)),
        device(x),
        rows(RowChoice(choice, s.rows)),
        heads(HeadChoice(choice, s.heads)) {}
  HeadRows view() const {
    return {device.data(), shape.rows, shape.heads, shape.head_dim,
            shape.first_position};
  }
  const float* head(int row, int head) const {
    return &x[(static_cast<size_t>(row) * shape.heads + head) * shape.head_dim];
  }

  Shape shape;
  std::vector<float> x;
  Array<float> device;
  Rows rows;
  Heads heads;
};

std::vector<Input> Inputs(int choice, Random& random) {
  std::vector<Input> inputs;
  for (const Shape& s : Shapes()) inputs.emplace_back(s, choice++ % 5, random);
  return inputs;
}

// The sums of a column in blocks of 64 absolute positions.
double BlockedSum(const Input& in, int column, bool square, double start) {
  double total = start, block = 0;
  int64_t last = -1;
  for (int row : in.rows.chosen) {
    const int64_t at = (in.shape.first_position + row) / kPageSize;
    if (at != last) total += std::exchange(block, 0);
    last = at;
    const double v = in.x[row * in.shape.width() + column];
    block += square ? v * v : v;
  }
  return total + block;
}

TEST(MomentsKernelTest, AddMoments) {
  Random random(1);
  for (int choice = 0; choice < kRowChoices; ++choice) {
    const bool with_sums = choice % 2 == 0, from_zero = choice < 3;
    std::vector<Input> inputs = Inputs(choice, random);
    // More pages than a block sums at a time.
    inputs.emplace_back(Shape{600, 1, 5, 30}, choice, random);
    const std::vector<double> got = InEveryOrder("moments", [&] {
      std::vector<Array<double>> squares, sums;
      std::vector<MomentsJob> jobs;
      for (const Input& in : inputs) {
        const std::vector<double> before(in.shape.width(), 0.25);
        squares.emplace_back(before);
        sums.emplace_back(before);
        jobs.push_back(
            {in.view(),
             in.rows.set,
             {squares.back().data(), with_sums ? sums.back().data() : nullptr},
             from_zero});
      }
      cuda::AddMoments(jobs.data(), static_cast<int>(jobs.size()), kStream);
      std::vector<double> all;
      for (size_t i = 0; i < jobs.size(); ++i) {
        for (const auto* part : {&squares[i], &sums[i]}) {
          const std::vector<double> values = part->Read();
          all.insert(all.end(), values.begin(), values.end());
        }
      }
      return all;
    });
    // The CPU's order of additions, so its bytes.
    std::vector<double> want;
    const double start = from_zero ? 0 : 0.25;
    for (const Input& in : inputs) {
      for (int i = 0; i < in.shape.width(); ++i) {
        want.push_back(BlockedSum(in, i, true, start));
      }
      for (int i = 0; i < in.shape.width(); ++i) {
        want.push_back(with_sums ? BlockedSum(in, i, false, start) : 0.25);
      }
    }
    ExpectSame(got, want, absl::StrCat("rows ", choice));
  }
}

TEST(MomentsKernelTest, ASplitAtAPagesEdgeGivesTheSameBytes) {
  Random random(2);
  const Input all({200, 1, 24, 10}, 0, random);
  const auto moments = [&](const std::vector<std::pair<int, int>>& parts) {
    const Array<double> squares(std::vector<double>(24, 0.0));
    for (const auto& [begin, end] : parts) {
      const MomentsJob job = {
          {all.device.data() + begin * 24, end - begin, 1, 24, 10 + begin},
          {0, end - begin},
          {squares.data(), nullptr}};
      cuda::AddMoments(&job, 1, kStream);
    }
    return squares.Read();
  };
  ExpectSame(moments({{0, 54}, {54, 182}, {182, 200}}), moments({{0, 200}}),
             "split");
}

TEST(MomentsKernelTest, ANanStaysInItsColumn) {
  std::vector<float> x(15, 1.0f);
  x[7] = kNaN;
  x[8] = kInf;
  const Array<float> device(x);
  const Array<double> squares(5);
  const MomentsJob job = {
      {device.data(), 3, 1, 5, 0}, {0, 3}, {squares.data(), nullptr}, true};
  cuda::AddMoments(&job, 1, kStream);
  const std::vector<double> got = squares.Read();
  EXPECT_EQ(got[1], 3.0);
  EXPECT_TRUE(std::isnan(got[2]));
  EXPECT_EQ(got[3], std::numeric_limits<double>::infinity());
}

TEST(MomentsKernelTest, FinishNormsAndTokenNorms) {
  Random random(3);
  for (int choice = 0; choice < kRowChoices; ++choice) {
    const std::vector<Input> inputs = Inputs(choice, random);
    std::vector<double> norms, token_norms;
    std::vector<Array<double>> squares;
    for (const Input& in : inputs) {
      std::vector<double> own;
      for (int i = 0; i < in.shape.width(); ++i) {
        own.push_back(i == 0 ? std::nan("") : 1e30 * i);
      }
      squares.emplace_back(own);
      for (int head : in.heads.chosen) {
        for (int d = 0; d < in.shape.head_dim; ++d) {
          norms.push_back(std::sqrt(own[head * in.shape.head_dim + d]));
        }
      }
      for (int row : in.rows.chosen) {
        for (int head : in.heads.chosen) {
          double sum = 0;
          for (int d = 0; d < in.shape.head_dim; ++d) {
            sum += double{in.head(row, head)[d]} * in.head(row, head)[d];
          }
          token_norms.push_back(std::sqrt(sum));
        }
      }
    }
    const auto run = [&](bool of_tokens, size_t n) {
      return InEveryOrder("norms", [&] {
        const Array<float> out(n);
        float* to = out.data();
        std::vector<NormsJob> jobs;
        std::vector<TokenNormsJob> token_jobs;
        for (size_t i = 0; i < inputs.size(); ++i) {
          const Input& in = inputs[i];
          jobs.push_back(
              {squares[i].data(), in.heads.set, in.shape.head_dim, to});
          token_jobs.push_back({in.view(), in.rows.set, in.heads.set, to});
          to += (of_tokens ? in.rows.set.count : in.shape.head_dim) *
                in.heads.set.count;
        }
        const int count = static_cast<int>(inputs.size());
        if (of_tokens) {
          cuda::TokenNorms(token_jobs.data(), count, kStream);
        } else {
          cuda::FinishNorms(jobs.data(), count, kStream);
        }
        return out.Read();
      });
    };
    ExpectEach(run(false, norms.size()), norms, 2 * kEpsilon, 0, "norms");
    ExpectEach(run(true, token_norms.size()), token_norms, 2 * kEpsilon, 0,
               "token norms");
  }
}

TEST(CopyKernelTest, ExpandHeadsAndCopyOut) {
  Random random(4);
  for (int choice = 0; choice < kRowChoices; ++choice) {
    const int group = 1 + choice;
    const std::vector<Input> inputs = Inputs(choice, random);
    std::vector<float> expanded, copied;
    for (const Input& in : inputs) {
      const int dim = in.shape.head_dim;
      for (int i = 0; i < in.shape.rows * in.shape.heads * group; ++i) {
        const float* from = in.head(0, i / group);
        expanded.insert(expanded.end(), from, from + dim);
      }
      for (int row : in.rows.chosen) {
        for (int head : in.heads.chosen) {
          const float* from = in.head(row, head);
          copied.insert(copied.end(), from, from + dim);
        }
      }
    }
    const Array<float> all(expanded.size()), chosen(copied.size());
    std::vector<ExpandJob> expand_jobs;
    std::vector<CopyOutJob> copy_jobs;
    float *to_all = all.data(), *to_chosen = chosen.data();
    for (const Input& in : inputs) {
      expand_jobs.push_back({in.view(), in.shape.heads * group, to_all});
      copy_jobs.push_back(
          {in.view(), in.rows.set, in.heads.set, RawDtype::kF32, to_chosen});
      to_all += in.x.size() * group;
      to_chosen += static_cast<size_t>(in.rows.set.count) * in.heads.set.count *
                   in.shape.head_dim;
    }
    const int count = static_cast<int>(inputs.size());
    cuda::ExpandHeads(expand_jobs.data(), count, kStream);
    cuda::CopyOut(copy_jobs.data(), count, kStream);
    ExpectSame(all.Read(), expanded, "expanded");
    ExpectSame(chosen.Read(), copied, "copied");
  }
}

TEST(CopyKernelTest, CopyOutRounds) {
  std::vector<float> x = Random(5).Normal(1000, 100.0f);
  x.insert(x.end(), {1e-7f, 65519.0f, 65520.0f, kInf, -kInf, 3e-8f, 0.0f});
  const int n = static_cast<int>(x.size());
  const Array<float> device(x);
  for (RawDtype dtype : {RawDtype::kF16, RawDtype::kBF16}) {
    std::vector<uint16_t> want;
    for (float v : x) {
      want.push_back(dtype == RawDtype::kF16 ? RoundToF16(v) : RoundToBF16(v));
    }
    const Array<uint16_t> out(x.size());
    const CopyOutJob job = {
        {device.data(), 1, 1, n, 0}, {0, 1}, {1}, dtype, out.data()};
    cuda::CopyOut(&job, 1, kStream);
    ExpectSame(out.Read(), want, "rounded");
  }
}

// More jobs than one launch takes.
TEST(JobListTest, ManyJobsGoInSeveralLaunches) {
  const int count = 700;
  std::vector<double> squares(count);
  std::vector<float> want;
  for (int i = 0; i < count; ++i) {
    squares[i] = i;
    want.push_back(static_cast<float>(std::sqrt(i)));
  }
  const Array<double> from(squares);
  const Array<float> out(count);
  std::vector<NormsJob> jobs;
  for (int i = 0; i < count; ++i) {
    jobs.push_back({from.data() + i, {1}, 1, out.data() + i});
  }
  const int64_t before = cuda_on_cpu::counters().launches;
  cuda::FinishNorms(jobs.data(), count, kStream);
  EXPECT_EQ(cuda_on_cpu::counters().launches, before + 2);
  ExpectSame(out.Read(), want, "norms");
  cuda::FinishNorms(nullptr, 0, kStream);
  EXPECT_EQ(cuda_on_cpu::counters().launches, before + 2);
}

}  // namespace
}  // namespace qk::testing
