// The bytes are always the same: a sequence's results do not depend on what
// else is in the batch, on threads, or on whether anything is captured.
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/batch.h"
#include "tests/engine/forward_driver.h"
#include "tests/engine/forwarding_backend.h"

namespace qk::testing {
namespace {

struct Case {
  ComputeType compute;
  TestBackend backend;
};

class IdentityTest : public ::testing::TestWithParam<Case> {
 protected:
  std::unique_ptr<Backend> MakeBackend(int threads) {
    return GetParam().backend.make(threads);
  }

  static std::vector<int32_t> RandomTokens(int n, uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<int32_t> tokens;
    for (int i = 0; i < n; ++i) tokens.push_back(random() % 97);
    return tokens;
  }

  static RunSpec MakeSpec(std::shared_ptr<const Model> model,
                          std::vector<int32_t> tokens, int new_tokens) {
    RunSpec spec;
    spec.tokens = std::move(tokens);
    DisruptionRule rule;
    const int n = static_cast<int>(spec.tokens.size());
    rule.stat_span = rule.positions = {0, n};
    rule.layers = {0, 1};
    rule.phase = 3;
    spec.arms = {{"clean", model, {}}, {"top", model, {rule}}};
    spec.capture = CaptureAll(model->config());
    spec.capture.stage = 3;
    spec.baseline = 0;
    spec.logits.emplace();
    spec.logits->positions = {0};
    if (n > 1) spec.logits->positions.push_back(n - 1);
    spec.generate.emplace();
    spec.generate->max_new_tokens = new_tokens;
    return spec;
  }

  template <typename T>
  static std::string RawBytes(const std::vector<T>& values) {
    return {reinterpret_cast<const char*>(values.data()),
            values.size() * sizeof(T)};
  }

  // Returns everything in a recording that must be equal, as bytes.
  static std::string Bytes(const Recorder& r, bool frames) {
    std::map<std::string, std::string> parts;
    const auto add = [&parts](const std::string& name,
                              const std::string& bytes) {
      EXPECT_FALSE(bytes.empty()) << name;
      EXPECT_TRUE(parts.emplace(name, bytes).second) << name << " twice";
    };
    for (const LayerFrame& f : r.frames) {
      if (!frames) break;
      add(absl::StrCat("frame ", f.arm, " ", f.layer, " ",
                       static_cast<int>(f.point), " ",
                       static_cast<int>(f.stage), " ", f.step),
          f.data);
    }
    for (const TokenEvent& t : r.tokens) {
      add(absl::StrCat("token ", t.arm, " ", t.step),
          absl::StrCat(t.id, " ") + RawBytes(std::vector{t.logprob}));
    }
    for (const ComparisonResult& c : r.comparisons) {
      add(absl::StrCat("compare ", c.arm),
          RawBytes(c.kl) + RawBytes(c.top1) + RawBytes(c.token_logprob));
    }
    for (const auto& [arm, rows] : r.logits) {
      for (const PositionLogits& row : rows) {
        add(absl::StrCat("logits ", arm, " ", row.position),
            RawBytes(row.ids) + RawBytes(row.logprobs));
      }
    }
    EXPECT_FALSE(parts.empty());
    std::string all;
    for (const auto& [key, value] : parts) absl::StrAppend(&all, key, value);
    return all;
  }
};

TEST_P(IdentityTest, AloneInABatchOnOtherThreadsAndWithoutCapture) {
  const auto two = MakeBackend(2);
  const auto one = MakeBackend(1);
  const auto model =
      LoadGolden("tiny_llama_gqa", GetParam().compute, two.get());
  const auto model_one =
      LoadGolden("tiny_llama_gqa", GetParam().compute, one.get());
  for (int length : {1, 2, 37, 64, 65, 130}) {
    const std::vector<int32_t> tokens = RandomTokens(length, length);
    const std::string alone = Bytes(RunAlone(MakeSpec(model, tokens, 5)), true);
    EXPECT_EQ(alone, Bytes(RunAlone(MakeSpec(model, tokens, 5)), true));
    EXPECT_EQ(alone, Bytes(RunAlone(MakeSpec(model_one, tokens, 5)), true));

    // Runs among 16 others of random lengths, at different stages of decode.
    std::vector<std::unique_ptr<Recorder>> recorders;
    std::vector<std::unique_ptr<qk::Run>> runs;
    std::vector<qk::Run*> together;
    for (int i = 0; i < 17; ++i) {
      recorders.push_back(std::make_unique<Recorder>());
      const RunSpec spec =
          i == 8 ? MakeSpec(model, tokens, 5)
                 : MakeSpec(model, RandomTokens(1 + (i * 29) % 90, 100 + i),
                            1 + i % 7);
      runs.push_back(qk::Run::Create(spec, recorders.back().get()).value());
      together.push_back(runs.back().get());
    }
    RunTogether(together);
    EXPECT_EQ(alone, Bytes(*recorders[8], true)) << length;

    RunSpec silent = MakeSpec(model, tokens, 5);
    silent.capture.off = true;
    EXPECT_EQ(Bytes(RunAlone(MakeSpec(model, tokens, 5)), false),
              Bytes(RunAlone(silent), false));
  }
}

TEST_P(IdentityTest, CancelledNeighboursLeaveAndChangeNothing) {
  const auto backend = MakeBackend(2);
  const auto model =
      LoadGolden("tiny_llama_gqa", GetParam().compute, backend.get());
  const RunSpec spec = MakeSpec(model, RandomTokens(40, 1), 0);
  const std::string alone = Bytes(RunAlone(spec), true);
  Recorder kept, gone;
  auto stays = qk::Run::Create(spec, &kept).value();
  auto leaves =
      qk::Run::Create(MakeSpec(model, RandomTokens(70, 2), 0), &gone).value();
  // A scheduler asks for this first.
  EXPECT_EQ(leaves->next_model(), model.get());
  ASSERT_TRUE(leaves->Reserve().ok());
  ASSERT_TRUE(stays->Reserve().ok());
  std::vector<Sequence*> sequences;
  leaves->AppendReady(model.get(), &sequences);
  const size_t first = sequences.size();
  stays->AppendReady(model.get(), &sequences);
  Pass pass(*model, sequences);
  pass.RunStep();
  // Results of the first layer arrive; those of a later one may be on their
  // way when the run goes.
  ASSERT_TRUE(backend->Synchronize().ok());
  for (Sequence* sequence : sequences) sequence->Deliver();
  leaves->Cancel(absl::CancelledError("client went away"));
  while (!pass.done()) pass.RunStep();
  const absl::Status status = pass.Finish();
  leaves->AfterPass(absl::MakeConstSpan(sequences).subspan(0, first), status,
                    0);
  stays->AfterPass(absl::MakeConstSpan(sequences).subspan(first), status, 0);
  while (stays->comparing()) stays->CompareTile();
  EXPECT_EQ(gone.final_status, absl::CancelledError("client went away"));
  EXPECT_EQ(gone.finished, 1);
  EXPECT_TRUE(kept.final_status.ok()) << kept.final_status;
  EXPECT_EQ(alone, Bytes(kept, true));
  EXPECT_FALSE(gone.frames.empty());
  for (const LayerFrame& f : gone.frames) EXPECT_EQ(f.layer, 0);
  EXPECT_EQ(model->pages().used_pages(), 0);
}

// Several prompts of one run: more rows than a pass may keep the device for.
struct LongRun {
  LongRun(const RunSpec& spec, int arms) {
    RunSpec of_many = spec;
    of_many.arms.clear();
    for (int i = 0; i < arms; ++i) {
      of_many.arms.push_back(spec.arms[i % spec.arms.size()]);
      of_many.arms.back().name = absl::StrCat("arm", i);
    }
    run = qk::Run::Create(of_many, &recorder).value();
  }
  void Start(const Model* model) {
    sequences.clear();
    run->AppendReady(model, &sequences);
    pass = std::make_unique<Pass>(*model, sequences);
  }
  void End() {
    run->AfterPass(sequences, pass->Finish(), 0);
    while (run->comparing()) run->CompareTile();
  }

  Recorder recorder;
  std::unique_ptr<qk::Run> run;
  std::vector<Sequence*> sequences;
  std::unique_ptr<Pass> pass;
};

std::map<int, std::string> FramesByArm(const Recorder& recorder) {
  std::map<int, std::string> out;
  for (const LayerFrame& f : recorder.frames) out[f.arm] += f.data;
  return out;
}

// Counts the rows that attend.
class CountingBackend : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  void Attention(const float* q, const AttentionConfig& config,
                 const KvView& kv, qk::Range of, float* out) override {
    attended += of.size();
    ForwardingBackend::Attention(q, config, kv, of, out);
  }
  int attended = 0;
};

// In the last layer those rows attend from which logits come, and those between
// them if they are few. Nobody sees that.
TEST_P(IdentityTest, RowsThatNothingReadsDoNotAttend) {
  constexpr int kTokens = 250, kLast = kTokens - 1;
  CountingBackend backend(MakeBackend(2));
  const auto model = LoadGolden("tiny_llama_gqa", GetParam().compute, &backend);
  ASSERT_NE(model, nullptr);
  const int before_last = model->config().num_layers() - 1;
  CaptureSpec all = CaptureAll(model->config()), without_z = all;
  std::erase(without_z.points, HookPoint::kZ);
  struct Expected {
    std::vector<std::vector<int>> positions;  // with logits, of each sequence
    int attending;                            // rows of the last layer
  };
  for (const auto& [positions, attending] :
       std::vector<Expected>{{{{kLast}}, 1},
                             {{{}}, 0},
                             {{{100, kLast}}, 150},
                             {{{0}, {}, {kLast}}, 2},
                             {{{0}, {}, {0}}, 2},
                             {{{kLast}, {kLast}, {kLast}}, 501}}) {
    std::vector<std::string> results;
    for (const CaptureSpec& capture : {all, without_z}) {
      std::vector<std::unique_ptr<Driven>> driven;
      std::vector<Driven*> batch;
      for (size_t i = 0; i < positions.size(); ++i) {
        const auto seed = static_cast<uint32_t>(i);
        driven.push_back(std::make_unique<Driven>(
            model, GoldenPrompt{RandomTokens(kTokens, seed), {}},
            std::vector<DisruptionRule>{}, capture));
        driven.back()->Request(positions[i]);
        batch.push_back(driven.back().get());
      }
      backend.attended = 0;
      RunPass(batch);
      const int rows = kTokens * static_cast<int>(batch.size());
      const bool captured = capture.points.size() == all.points.size();
      EXPECT_EQ(backend.attended,
                rows * before_last + (captured ? rows : attending));
      std::string& result = results.emplace_back();
      for (const Driven* one : batch) {
        result += RawBytes(one->Logits());
        for (const LayerFrame& f : one->recorder.frames) {
          if (f.point != HookPoint::kZ) result += f.data;
        }
      }
    }
    EXPECT_FALSE(results[0].empty());
    EXPECT_TRUE(results[0] == results[1]) << attending;
  }
}

// A device on which passes pause within a layer from 513 rows on.
class PausingBackend : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  Tiles tiles() const override {
    Tiles tiles = ForwardingBackend::tiles();
    tiles.mlp_rows = 256;
    tiles.step_rows = 512;
    tiles.step_keys = 2048;
    return tiles;
  }
};

TEST_P(IdentityTest, PassesThatTakeTurnsWithinTheirLayers) {
  PausingBackend backend(MakeBackend(2));
  for (const char* name :
       {"tiny_llama_gqa", "tiny_gemma2", "tiny_gpt_neox", "tiny_opt_post_norm",
        "tiny_jamba", "tiny_phi3_longrope", "tiny_gpt_neo"}) {
    const auto model = LoadGolden(name, GetParam().compute, &backend);
    ASSERT_NE(model, nullptr) << name;
    const int tokens = std::min(120, model->config().context_length);
    RunSpec spec = MakeSpec(model, RandomTokens(tokens, 3), 0);
    spec.generate.reset();
    for (ArmSpec& arm : spec.arms) {
      for (DisruptionRule& rule : arm.rules) {
        std::erase_if(rule.layers, [&](int layer) {
          return model->config().layers[layer].attention.num_heads == 0;
        });
        if (rule.layers.empty()) rule.layers = {1};
      }
    }
    const int arms = 1 + backend.tiles().step_rows / tokens * 2;
    LongRun a(spec, arms), b(spec, arms);
    ASSERT_TRUE(a.run->Reserve().ok() && b.run->Reserve().ok());
    a.Start(model.get());
    b.Start(model.get());
    int steps = 0;
    while (!a.pass->done() || !b.pass->done()) {
      if (!a.pass->done()) a.pass->RunStep();
      if (!b.pass->done()) b.pass->RunStep();
      ++steps;
    }
    EXPECT_GT(steps, 2 * model->config().num_layers()) << name;
    a.End();
    b.End();
    LongRun undisturbed(spec, 2);
    RunTogether({undisturbed.run.get()});
    const auto expected = FramesByArm(undisturbed.recorder);
    ASSERT_EQ(expected.size(), 2u);
    for (const LongRun* run : {&a, &b}) {
      EXPECT_TRUE(run->recorder.final_status.ok()) << name;
      const auto frames = FramesByArm(run->recorder);
      EXPECT_EQ(static_cast<int>(frames.size()), arms);
      for (const auto& [arm, bytes] : frames) {
        EXPECT_EQ(bytes, expected.at(arm % 2)) << name << " arm " << arm;
      }
    }
  }
}

TEST_P(IdentityTest, ACancelledRunLeavesWithinALayer) {
  const auto backend = MakeBackend(2);
  const auto model =
      LoadGolden("tiny_llama_gqa", GetParam().compute, backend.get());
  RunSpec spec = MakeSpec(model, RandomTokens(120, 3), 0);
  spec.generate.reset();
  LongRun undisturbed(spec, 4);
  RunTogether({undisturbed.run.get()});
  const std::string expected = Bytes(undisturbed.recorder, true);
  for (int after = 0;; ++after) {
    LongRun stays(spec, 4), leaves(spec, 4);
    ASSERT_TRUE(stays.run->Reserve().ok());
    const int64_t pages = model->pages().used_pages();
    ASSERT_TRUE(leaves.run->Reserve().ok());
    std::vector<Sequence*> all, staying;
    leaves.run->AppendReady(model.get(), &all);
    stays.run->AppendReady(model.get(), &staying);
    all.insert(all.begin() + 2, staying.begin(), staying.end());
    Pass pass(*model, all);
    int steps = 0;
    for (; steps < after && !pass.done(); ++steps) pass.RunStep();
    if (pass.done()) break;
    leaves.run->Cancel(absl::CancelledError("left"));
    pass.DropCancelled();
    leaves.run->FinishCancelled();
    EXPECT_EQ(model->pages().used_pages(), pages) << after;
    while (!pass.done()) pass.RunStep();
    stays.run->AfterPass(staying, pass.Finish(), 0);
    while (stays.run->comparing()) stays.run->CompareTile();
    ASSERT_EQ(Bytes(stays.recorder, true), expected) << after;
  }
}

// A device that works on few rows at once, and whose results hardly fit into
// what they wait in.
class SmallTiles : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  Tiles tiles() const override {
    return {.mlp_rows = 7,
            .step_rows = 20,
            .step_keys = 9,
            .logits_bytes = int64_t{3} * 4 * 97,
            .logits_rows = 128,
            .staging_bytes = 64};
  }
};

TEST_P(IdentityTest, TilesChangeNothing) {
  const auto backend = MakeBackend(2);
  SmallTiles small(MakeBackend(2));
  const auto model =
      LoadGolden("tiny_llama_gqa", GetParam().compute, backend.get());
  const auto model_small =
      LoadGolden("tiny_llama_gqa", GetParam().compute, &small);
  EXPECT_EQ(model_small->workspace().logits_rows(), 3);
  for (CaptureForm form : {CaptureForm::kNormOverTokens,
                           CaptureForm::kNormPerToken, CaptureForm::kRaw}) {
    RunSpec spec = MakeSpec(model, RandomTokens(75, 5), 3);
    spec.capture.form = form;
    spec.capture.phase = 1;
    if (form == CaptureForm::kRaw) {
      spec.capture.points.push_back(HookPoint::kPattern);
    }
    RunSpec same = spec;
    for (ArmSpec& arm : same.arms) arm.model = model_small;
    EXPECT_EQ(Bytes(RunAlone(spec), true), Bytes(RunAlone(same), true));
  }
}

TEST_P(IdentityTest, ACancelledRunLeavesWithinAComparison) {
  const auto backend = MakeBackend(2);
  const auto model =
      LoadGolden("tiny_llama_gqa", GetParam().compute, backend.get());
  const int tile = model->workspace().logits_rows();
  const RunSpec spec = MakeSpec(model, RandomTokens(tile + 60, 4), 0);
  const std::string alone = Bytes(RunAlone(spec), true);
  Recorder kept, gone;
  auto stays = qk::Run::Create(spec, &kept).value();
  auto leaves = qk::Run::Create(spec, &gone).value();
  ASSERT_TRUE(stays->Reserve().ok() && leaves->Reserve().ok());
  for (qk::Run* run : {leaves.get(), stays.get()}) {
    std::vector<Sequence*> sequences;
    run->AppendReady(model.get(), &sequences);
    Pass pass(*model, sequences);
    while (!pass.done()) pass.RunStep();
    run->AfterPass(sequences, pass.Finish(), 0);
    ASSERT_TRUE(run->comparing());
    run->CompareTile();
    ASSERT_TRUE(run->comparing());  // results of the first tile may be due
  }
  leaves->Cancel(absl::CancelledError("left"));
  leaves->CompareTile();
  EXPECT_EQ(gone.final_status, absl::CancelledError("left"));
  EXPECT_TRUE(gone.comparisons.empty());
  while (stays->comparing()) stays->CompareTile();
  EXPECT_EQ(alone, Bytes(kept, true));
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const TestBackend& kernel : TestKernels()) {
    cases.push_back({ComputeType::kF32, kernel});
    if (kernel.has_bf16) cases.push_back({ComputeType::kBF16, kernel});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Kernels, IdentityTest, ::testing::ValuesIn(Cases()),
                         [](const ::testing::TestParamInfo<Case>& info) {
                           return absl::StrCat(
                               info.param.compute == ComputeType::kF32
                                   ? "f32_"
                                   : "bf16_",
                               InTestName(info.param.backend));
                         });

}  // namespace
}  // namespace qk::testing
