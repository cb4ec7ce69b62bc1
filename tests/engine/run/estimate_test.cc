// Compares a run's estimated needs with what it takes, for random shapes:
// admission relies on an estimate that is enough, but not far too much.
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <random>

#include "tests/engine/test_util.h"

namespace {
std::atomic<int64_t> g_taken = 0;
}  // namespace

// The CPU backend allocates its buffers here. The counter ignores freed memory:
// without decode a run holds its buffers until it ends.
extern "C" void* aligned_alloc(size_t alignment, size_t size) {
  g_taken += static_cast<int64_t>(size);
  return memalign(alignment, size);
}

namespace qk::testing {
namespace {

RunSpec RandomShape(std::shared_ptr<const Model> model, std::mt19937* random) {
  const auto pick = [random](int least, int most) {
    return least + static_cast<int>((*random)() % (most - least + 1));
  };
  RunSpec spec;
  const int tokens = pick(64, 200);
  for (int i = 0; i < tokens; ++i) spec.tokens.push_back(pick(0, 96));
  const int arms = pick(1, 6);
  for (int i = 0; i < arms; ++i) {
    ArmSpec arm = {absl::StrCat("arm", i), model, {}};
    if (i > 0) {
      DisruptionRule rule;
      rule.stat_span = rule.positions = {0, tokens};
      rule.layers = {0, 1};
      rule.k = pick(1, 4);
      rule.kv_cache = pick(0, 1) == 0 ? DisruptionRule::KvCache::kPersist
                                      : DisruptionRule::KvCache::kAttentionOnly;
      arm.rules = {rule};
    }
    spec.arms.push_back(arm);
  }
  spec.capture = CaptureAll(model->config());
  spec.capture.points = {HookPoint::kRotQ, HookPoint::kRotK, HookPoint::kV};
  const CaptureForm forms[] = {CaptureForm::kNormOverTokens,
                               CaptureForm::kNormPerToken, CaptureForm::kRaw};
  spec.capture.form = forms[pick(0, 2)];
  spec.capture.stage = pick(0, 1) == 0 ? 1 : 3;
  if (pick(0, 1) == 1) spec.baseline = 0;
  return spec;
}

TEST(EstimateTest, R11_IsEnoughAndNotFarTooMuch) {
  std::mt19937 random(5);
  double worst = 0, least = 10;
  for (int i = 0; i < 50; ++i) {
    const std::unique_ptr<Backend> backend = MakeTestBackend();
    ModelOptions options;
    options.max_rows_per_pass = 2048;
    options.kv_cache_bytes = 64 << 20;
    const std::shared_ptr<const Model> model =
        Model::Load(GoldenPath("tiny_llama_gqa"), options, backend.get())
            .value();
    const RunSpec spec = RandomShape(model, &random);
    const int64_t estimate = qk::Run::Estimate(spec)->peak_extra_bytes;
    const int64_t before = g_taken;
    const Recorder recorder = RunAlone(spec);
    int64_t actual = g_taken - before;
    for (const LayerFrame& frame : recorder.frames) {
      actual += static_cast<int64_t>(frame.data.size());
    }
    ASSERT_GT(actual, 10'000);
    EXPECT_GE(estimate, actual)
        << spec.tokens.size() << " tokens, " << spec.arms.size() << " arms";
    const double ratio = static_cast<double>(estimate) / actual;
    worst = std::max(worst, ratio);
    least = std::min(least, ratio);
  }
  EXPECT_LE(worst, 1.5);
  EXPECT_GE(least, 1.0);
}

}  // namespace
}  // namespace qk::testing
