// The bytes are always the same, at the sizes of real models: a row's product
// does not depend on the rows beside it, nor a token's logits on whether it was
// prefilled or decoded, alone or among others. On a GPU all of RealShapes run;
// elsewhere the first, which an emulation can still compute.
#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/half.h"
#include "tests/engine/backend/compare.h"
#include "tests/engine/forward_driver.h"
#include "tests/engine/random_model.h"

namespace qk::testing {
namespace {

bool OnGpu() { return ChosenTestBackend().name.starts_with("cuda"); }

std::vector<LlamaShape> Shapes() {
  std::vector<LlamaShape> shapes = RealShapes();
  if (!OnGpu()) shapes.resize(1);
  return shapes;
}

// --- matrices

// An emulation would take minutes for an lm_head.
std::vector<MatrixShape> Matrices() {
  std::vector<MatrixShape> all = MatricesOf(Shapes());
  if (!OnGpu()) {
    std::erase_if(all,
                  [](const MatrixShape& m) { return m.out_features > 2000; });
  }
  return all;
}

class ProductTest : public ::testing::TestWithParam<MatrixShape> {
 protected:
  ProductTest() : backend_(MakeTestBackend()) {}

  DeviceBuffer OnDevice(const std::vector<float>& values) {
    const auto bytes = static_cast<int64_t>(4 * values.size());
    DeviceBuffer buffer = backend_->Allocate(bytes).value();
    backend_->Upload(buffer.as<void>(), values.data(), bytes);
    return buffer;
  }

  // The product of rows [begin, begin + rows) of x. Memory that it does not
  // write is NaN.
  std::vector<float> Multiply(const float* x, const Matrix& w, int rows) {
    const int64_t n = int64_t{rows} * w.out_features();
    const DeviceBuffer out = OnDevice(std::vector<float>(n, kNaN));
    backend_->MatMul(x, {{w, out.as<float>()}}, rows);
    const Arrival arrival = backend_->Fetch(out.as<void>(), 4 * n);
    EXPECT_TRUE(backend_->Synchronize().ok());
    const auto values = arrival.as<float>();
    return {values.begin(), values.end()};
  }

  std::unique_ptr<Backend> backend_;
};

TEST_P(ProductTest, ARowsBytesDoNotDependOnTheOthersNorOnItsPlace) {
  const auto [out, in] = GetParam();
  Random random(1);
  const std::vector<float> weights = random.Normal(size_t{1} << 20);
  const auto read = [&, in = in](int64_t begin, int64_t end, float* to) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t i = 0; i < in; ++i) {
        *to++ = weights[(r * 7919 + i) & ((1 << 20) - 1)];
      }
    }
  };
  // Few rows where a row is an lm_head's.
  const int most = !OnGpu() ? 67 : out > 20000 ? 130 : 513;
  const auto w =
      backend_->PackMatrix(out, in, ComputeType::kBF16, {read}, nullptr)
          .value();
  const DeviceBuffer x = OnDevice(random.Normal(size_t(most) * in));
  const std::vector<float> all = Multiply(x.as<float>(), *w, most);
  for (const float value : all) ASSERT_TRUE(std::isfinite(value));
  for (int rows : {1, 2, 7, 8, 16, 33, 64, 100, 128, 129, 256, 512}) {
    for (int begin : {0, 1, most - rows}) {
      if (begin < 0 || begin + rows > most) continue;
      const std::vector<float> some =
          Multiply(x.as<float>() + int64_t{begin} * in, *w, rows);
      ASSERT_EQ(
          std::memcmp(some.data(), &all[int64_t{begin} * out], 4 * some.size()),
          0)
          << rows << " rows from " << begin;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, ProductTest, ::testing::ValuesIn(Matrices()),
                         [](const ::testing::TestParamInfo<MatrixShape>& info) {
                           return absl::StrCat(info.param.out_features, "_x_",
                                               info.param.in);
                         });

// --- whole passes

class PassTest : public ::testing::TestWithParam<LlamaShape> {
 protected:
  // Two layers show what thirty would.
  PassTest() : backend_(MakeTestBackend()) {
    LlamaShape shape = GetParam();
    shape.layers = OnGpu() ? 2 : 1;
    shape.vocab = 503;
    ModelOptions options;
    options.compute = ComputeType::kBF16;
    options.max_rows_per_pass = 4096;
    model_ = RandomModel(shape, options, backend_.get()).value();
  }

  static std::vector<int32_t> Tokens(int n, int seed) {
    std::vector<int32_t> tokens(n);
    for (int i = 0; i < n; ++i) tokens[i] = (i * 131 + seed * 17 + i * i) % 503;
    return tokens;
  }

  std::unique_ptr<Driven> Drive(std::vector<int32_t> prompt,
                                std::vector<int32_t> decoded = {}) {
    CaptureSpec off;
    off.off = true;
    return std::make_unique<Driven>(
        model_, GoldenPrompt{std::move(prompt), std::move(decoded)},
        std::vector<DisruptionRule>{}, off);
  }

  std::unique_ptr<Backend> backend_;
  std::shared_ptr<const Model> model_;
};

TEST_P(PassTest, LogitsAreTheSamePrefilledDecodedAndAmongOthers) {
  // Long enough that attention is split for a decode step.
  const int prompt = OnGpu() ? 1500 : 60, decoded = OnGpu() ? 10 : 6;
  const std::vector<int32_t> tokens = Tokens(prompt + decoded, 1);
  const auto wanted = [&](int i) { return prompt + i; };

  const auto whole = Drive(tokens);
  std::vector<int> positions;
  for (int i = 0; i < decoded; ++i) positions.push_back(wanted(i));
  whole->Request(positions);
  RunPass({whole.get()});
  const std::vector<float> prefilled = whole->Logits();
  ASSERT_EQ(prefilled.size(), size_t(decoded) * 503);
  for (const float value : prefilled) ASSERT_TRUE(std::isfinite(value));

  // Decoded, in passes with others of all lengths.
  const auto step = Drive({tokens.begin(), tokens.begin() + prompt},
                          {tokens.begin() + prompt, tokens.end()});
  std::vector<std::unique_ptr<Driven>> others;
  std::vector<Driven*> batch;
  for (int i = 0; i < 4; ++i) {
    others.push_back(Drive(Tokens(1 + i * prompt / 5, i), Tokens(decoded, i)));
    batch.push_back(others.back().get());
    if (i == 1) batch.push_back(step.get());
  }
  RunPass(batch);
  for (int i = 0; i < decoded; ++i) {
    for (Driven* driven : batch) {
      driven->sequence()->AppendToken(driven->prompt().decode_ids[i]);
    }
    step->Request({wanted(i)});
    RunPass(batch);
    const std::vector<float> logits = step->Logits();
    ASSERT_EQ(logits.size(), 503u);
    ASSERT_EQ(std::memcmp(logits.data(), &prefilled[size_t(i) * 503],
                          4 * logits.size()),
              0)
        << "token " << i << " after the prompt";
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, PassTest, ::testing::ValuesIn(Shapes()),
                         [](const ::testing::TestParamInfo<LlamaShape>& info) {
                           std::string name = info.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace qk::testing
