// Compares a run's estimated needs with what it takes, for random shapes:
// admission relies on an estimate that is enough, but not far too much.
#include <errno.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <random>
#include <utility>
#include <vector>

#include "tests/engine/random_model.h"
#include "tests/engine/test_util.h"

namespace {
std::atomic<int64_t> g_taken = 0;
// What the heap holds now, and the most that it has held since ResetPeak.
std::atomic<int64_t> g_live = 0, g_peak = 0;

[[maybe_unused]] void CountLive(int64_t bytes) {
  const int64_t live = g_live += bytes;
  int64_t peak = g_peak;
  while (live > peak && !g_peak.compare_exchange_weak(peak, live)) {
  }
}

void ResetPeak() { g_peak = g_live.load(); }
}  // namespace

#ifdef __SANITIZE_ADDRESS__
constexpr bool kCountsHeap = false;  // the heap is the sanitizer's

// The CPU backend allocates its buffers here. The counter ignores freed memory:
// without decode a run holds its buffers until it ends.
extern "C" void* aligned_alloc(size_t alignment, size_t size) {
  g_taken += static_cast<int64_t>(size);
  return memalign(alignment, size);
}
#else
constexpr bool kCountsHeap = true;

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);

void* Counted(void* data) {
  CountLive(static_cast<int64_t>(malloc_usable_size(data)));
  return data;
}
void* malloc(size_t size) { return Counted(__libc_malloc(size)); }
void* calloc(size_t n, size_t size) { return Counted(__libc_calloc(n, size)); }
void* memalign(size_t alignment, size_t size) {
  return Counted(__libc_memalign(alignment, size));
}
int posix_memalign(void** out, size_t alignment, size_t size) {
  *out = memalign(alignment, size);
  return *out == nullptr ? ENOMEM : 0;
}
void* realloc(void* data, size_t size) {
  CountLive(-static_cast<int64_t>(malloc_usable_size(data)));
  return Counted(__libc_realloc(data, size));
}
void free(void* data) {
  CountLive(-static_cast<int64_t>(malloc_usable_size(data)));
  __libc_free(data);
}
// As above.
void* aligned_alloc(size_t alignment, size_t size) {
  g_taken += static_cast<int64_t>(size);
  return memalign(alignment, size);
}
}  // extern "C"
#endif

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

// A model with many words and little else, so that logits are most of what a
// run takes.
constexpr int kWords = 20'000;
constexpr int kPrompt = 120;

RunSpec Wide(const std::shared_ptr<const Model>& model, int arms) {
  RunSpec spec;
  for (int i = 0; i < kPrompt; ++i) spec.tokens.push_back(3 * i);
  for (int i = 0; i < arms; ++i) {
    spec.arms.push_back({absl::StrCat("arm", i), model, {}});
  }
  spec.capture.off = true;
  return spec;
}

LogitsSpec LogitsOf(int top_n, int first, int positions) {
  LogitsSpec out;
  out.top_n = top_n;
  for (int i = 0; i < positions; ++i) out.positions.push_back(first + i);
  return out;
}

TEST(EstimateTest, R32_WideAnswersAreCovered) {
  if (!kCountsHeap) GTEST_SKIP() << "the heap is a sanitizer's";
  const std::unique_ptr<Backend> backend = MakeTestBackend();
  ModelOptions options;
  options.max_rows_per_pass = 2048;
  options.kv_cache_bytes = 64 << 20;
  const std::shared_ptr<const Model> model = RandomModel({.name = "wide",
                                                          .layers = 1,
                                                          .hidden = 32,
                                                          .intermediate = 32,
                                                          .heads = 2,
                                                          .kv_heads = 2,
                                                          .vocab = kWords},
                                                         options, backend.get())
                                                 .value();
  std::vector<std::pair<const char*, RunSpec>> cases;
  const auto add = [&](const char* name, int arms) -> RunSpec& {
    return cases.emplace_back(name, Wide(model, arms)).second;
  };
  add("all logits", 1).logits = LogitsOf(kWords, 0, kPrompt);
  add("all logits of three arms", 3).logits = LogitsOf(kWords, 0, kPrompt);
  add("some of all positions", 2).logits = LogitsOf(kWords / 10, 0, kPrompt);
  add("one position", 1).logits = LogitsOf(kWords, kPrompt - 1, 1);
  add("ten positions of nine arms", 9).logits = LogitsOf(kWords, 7, 10);
  RunSpec& compared = add("compared", 2);
  compared.baseline = 0;
  compared.logits = LogitsOf(kWords / 2, 0, kPrompt);
  RunSpec& scored = add("scored", 1);
  scored.score = {10, kPrompt};
  scored.logits = LogitsOf(kWords / 2, 5, 40);
  for (int arms : {1, 12}) {
    RunSpec& sampled = add("sampled", arms);
    sampled.generate.emplace();
    sampled.generate->max_new_tokens = 3;
    sampled.generate->sampling.temperature = 1;
    sampled.logits = LogitsOf(kWords, 0, 20);
  }
  RunAlone(Wide(model, 1));  // the backend's own scratch grows
  for (const auto& [name, spec] : cases) {
    const RunEstimate estimate = *qk::Run::Estimate(spec);
    ResetPeak();
    const int64_t before = g_live;
    const Recorder recorder = RunAlone(spec);
    const int64_t peak = g_peak - before;
    std::printf("R32: %s, %zu arms: %.2f MB, estimate %.2f MB\n", name,
                spec.arms.size(), static_cast<double>(peak) / 1e6,
                static_cast<double>(estimate.peak_extra_bytes) / 1e6);
    EXPECT_GE(estimate.peak_extra_bytes, peak) << name;
    EXPECT_LE(static_cast<double>(estimate.peak_extra_bytes),
              1.5 * static_cast<double>(peak))
        << name;
    int64_t logits = 0;
    for (const auto& [arm, positions] : recorder.logits) {
      for (const PositionLogits& position : positions) {
        logits += static_cast<int64_t>(sizeof(position)) +
                  8 * static_cast<int64_t>(position.ids.size());
      }
    }
    EXPECT_EQ(estimate.logits_bytes, logits) << name;
  }
}

}  // namespace
}  // namespace qk::testing
