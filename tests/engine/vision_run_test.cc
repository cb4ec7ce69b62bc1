// Tests runs with images: positions as in transformers, arms that share the
// tower, the same bytes beside other runs, and what is refused.
#include <bit>
#include <cstdint>

#include "absl/strings/match.h"
#include "engine/images.h"
#include "tests/engine/vision_testing.h"

namespace qk::testing {
namespace {

class VisionRunTest : public ::testing::Test {
 protected:
  void SetUp() override {
    backend_ = MakeTestBackend();
    model_ = LoadGolden(kVisionModel, ComputeType::kF32, backend_.get());
    ASSERT_NE(model_, nullptr);
  }

  GoldenPrompt Prompt(const std::string& name) const {
    const JsonDocument json =
        ReadJson(GoldenPath(absl::StrCat(kVisionModel, "/golden.json")));
    return ReadPrompt(json.root().Get("prompts")->Get(name).value());
  }

  RunSpec Spec(const std::string& prompt) const {
    RunSpec spec;
    spec.tokens = Prompt(prompt).ids;
    spec.images = GoldenImages(kVisionModel, prompt);
    spec.arms = {{"clean", model_, {}}};
    spec.capture = CaptureAll(model_->config());
    spec.generate.emplace();
    spec.generate->max_new_tokens = 4;
    return spec;
  }

  DisruptionRule Rule(const RunSpec& spec) const {
    DisruptionRule rule;
    rule.stat_span = rule.positions = {0, static_cast<int>(spec.tokens.size())};
    rule.layers = {0, 1};
    return rule;
  }

  // Returns the frames and tokens of one arm, as bytes.
  static std::string Bytes(const Recorder& r, int arm) {
    std::map<std::string, std::string> parts;
    for (const LayerFrame& f : r.frames) {
      if (f.arm != arm) continue;
      parts[absl::StrCat(f.layer, " ", static_cast<int>(f.point), " ",
                         f.step)] = f.data;
    }
    for (const TokenEvent& t : r.tokens) {
      if (t.arm != arm) continue;
      parts[absl::StrCat("token ", t.step)] =
          absl::StrCat(t.id, " ", std::bit_cast<uint32_t>(t.logprob));
    }
    EXPECT_FALSE(parts.empty()) << "arm " << arm;
    std::string all;
    for (const auto& [name, data] : parts) absl::StrAppend(&all, name, data);
    return all;
  }

  std::unique_ptr<Backend> backend_;
  std::shared_ptr<const Model> model_;
};

TEST_F(VisionRunTest, PositionsEqualTransformers) {
  const std::string path =
      GoldenPath(absl::StrCat(kVisionModel, "/golden.safetensors"));
  for (const std::string name : {"p0", "p1"}) {
    const RunSpec spec = Spec(name);
    const std::atomic<bool> never{false};
    const Sequence sequence(spec, 0, never, nullptr);
    int first = 0;
    for (const std::string part :
         {"prefill", "decode.0", "decode.1", "decode.2"}) {
      const std::vector<int> want =
          ReadIntegers(path, absl::StrCat(name, "/", part, "/position_ids"));
      const int rows = static_cast<int>(want.size()) / 3;
      ASSERT_GT(rows, 0);
      for (int i = 0; i < rows; ++i) {
        EXPECT_EQ(sequence.rope_position(first + i),
                  (RopePosition{want[i], want[rows + i], want[2 * rows + i]}))
            << name << " " << part << " " << i;
      }
      first += rows;
    }
  }
}

TEST_F(VisionRunTest, ArmsOfOneModelShareTheTower) {
  RunSpec both = Spec("p1");
  both.arms.push_back({"top", model_, {Rule(both)}});
  both.baseline = 0;
  RunSpec rule = Spec("p1");
  rule.arms[0].rules = {Rule(rule)};
  const Recorder shared = RunAlone(both);
  EXPECT_EQ(Bytes(shared, 0), Bytes(RunAlone(Spec("p1")), 0));
  EXPECT_EQ(Bytes(shared, 1), Bytes(RunAlone(rule), 0));
  EXPECT_NE(Bytes(shared, 0), Bytes(shared, 1));
  const auto alone = qk::Run::Estimate(Spec("p1")),
             two = qk::Run::Estimate(both);
  ASSERT_TRUE(alone.ok() && two.ok());
  const Vision vision(*model_, both.images);
  EXPECT_GT(alone->peak_extra_bytes, vision.bytes());
  EXPECT_LE(two->peak_extra_bytes - vision.bytes(),
            3 * (alone->peak_extra_bytes - vision.bytes()));
}

TEST_F(VisionRunTest, OneArmTakesTheTowersRows) {
  RunSpec spec = Spec("p1");
  spec.arms.push_back({"other", model_, {}});
  Recorder recorder;
  const auto run = qk::Run::Create(spec, &recorder).value();
  ASSERT_TRUE(run->Reserve().ok());
  std::vector<Sequence*> sequences;
  run->AppendReady(model_.get(), &sequences);
  ASSERT_EQ(sequences.size(), 2u);
  EXPECT_EQ(sequences[0]->TowerRows(),
            spec.images[0].patches() + spec.images[1].patches());
  EXPECT_EQ(sequences[1]->TowerRows(), 0);
  HookOps ops(model_->backend(), model_->workspace().staging());
  while (!sequences[0]->vision()->done()) {
    sequences[0]->vision()->RunLayer(ops);
  }
  ops.Fetch();
  EXPECT_EQ(sequences[0]->TowerRows(), 0);
}

TEST_F(VisionRunTest, TheEstimateCountsTowersAndImages) {
  RunSpec spec = Spec("p1");
  const int64_t patches = spec.images[0].patches() + spec.images[1].patches();
  const int64_t tokens = static_cast<int64_t>(spec.tokens.size());
  RunSpec text = spec;
  text.images.clear();
  const RunEstimate without = qk::Run::Estimate(text).value();
  const RunEstimate one = qk::Run::Estimate(spec).value();
  EXPECT_EQ(one.prefill_rows, tokens + patches);
  const Vision vision(*model_, spec.images);
  const int64_t values = 4 * patches * model_->config().vision.patch_values();
  EXPECT_EQ(one.peak_extra_bytes - without.peak_extra_bytes,
            vision.bytes() + values);
  // A second arm shares the tower unless its rule is for the tower.
  spec.arms.push_back({"top", model_, {Rule(spec)}});
  EXPECT_EQ(qk::Run::Estimate(spec)->prefill_rows, 2 * tokens + patches);
  DisruptionRule& rule = spec.arms[1].rules[0];
  rule.vision = true;
  rule.stat_span = rule.positions = kAllPatches;
  EXPECT_EQ(qk::Run::Estimate(spec)->prefill_rows, 2 * (tokens + patches));
  // If captured raw, the larger image needs room for its rows.
  spec = Spec("p1");
  spec.capture.vision_layers = {0};
  EXPECT_EQ(qk::Run::Estimate(spec)->stream_bytes - one.stream_bytes,
            6 * patches * model_->config().vision.hidden_size * 4);
}

TEST_F(VisionRunTest, SameBytesBesideOthers) {
  const RunSpec spec = Spec("p0"), other = Spec("p1");
  RunSpec text = Spec("p1");
  text.images.clear();
  const Recorder alone = RunAlone(spec);
  Recorder beside[3];
  std::vector<std::unique_ptr<qk::Run>> runs;
  runs.push_back(qk::Run::Create(other, &beside[0]).value());
  runs.push_back(qk::Run::Create(spec, &beside[1]).value());
  runs.push_back(qk::Run::Create(text, &beside[2]).value());
  RunTogether({runs[0].get(), runs[1].get(), runs[2].get()});
  EXPECT_EQ(Bytes(alone, 0), Bytes(beside[1], 0));
  EXPECT_EQ(Bytes(beside[2], 0), Bytes(RunAlone(text), 0));
  EXPECT_NE(Bytes(beside[2], 0), Bytes(beside[0], 0));
}

TEST_F(VisionRunTest, AChangedPixelChangesWhatComesAfterItsImage) {
  RunSpec changed = Spec("p1");
  changed.images[1].values[5] += 1.0f;
  const Recorder a = RunAlone(Spec("p1")), b = RunAlone(changed);
  const int begin =
      PlaceImages(changed.images, changed.tokens, model_->config().vision)[1]
          .begin;
  ASSERT_EQ(a.frames.size(), b.frames.size());
  int compared = 0;
  for (size_t i = 0; i < a.frames.size(); ++i) {
    if (a.frames[i].phase != Phase::kPrefill) continue;
    ++compared;
    const std::vector<float> x = Floats(a.frames[i].data);
    const std::vector<float> y = Floats(b.frames[i].data);
    const size_t rows = changed.tokens.size();
    const size_t before = x.size() / rows * begin;
    ASSERT_GT(before, 0u);
    ASSERT_EQ(x.size(), y.size());
    EXPECT_TRUE(std::equal(x.begin(), x.begin() + before, y.begin()));
    EXPECT_FALSE(x == y);
  }
  EXPECT_EQ(compared, 6 * model_->config().num_layers());
}

TEST_F(VisionRunTest, ACancelledRunLeavesBetweenTheTowersLayers) {
  const RunSpec spec = Spec("p0");
  Recorder recorder;
  const auto run = qk::Run::Create(spec, &recorder).value();
  ASSERT_TRUE(run->Reserve().ok());
  std::vector<Sequence*> sequences;
  run->AppendReady(model_.get(), &sequences);
  Pass pass(*model_, sequences);
  pass.RunStep();
  run->Cancel(absl::CancelledError("enough"));
  pass.RunStep();
  EXPECT_TRUE(pass.done());
  EXPECT_TRUE(pass.Finish().ok());
  EXPECT_FALSE(sequences[0]->vision()->done());
  run->AfterPass(sequences, absl::OkStatus(), 0.0);
  EXPECT_TRUE(run->finished());
  EXPECT_EQ(recorder.final_status.code(), absl::StatusCode::kCancelled);
}

TEST_F(VisionRunTest, BadImagesAreNamed) {
  const auto message = [&](const RunSpec& spec) {
    Recorder recorder;
    return std::string(qk::Run::Create(spec, &recorder).status().message());
  };
  const auto expect = [](const std::string& got, const std::string& part) {
    EXPECT_TRUE(absl::StrContains(got, part)) << got;
  };
  RunSpec spec = Spec("p1");
  spec.images[1].rows = 7;
  expect(message(spec), "images[1]: grid: expected 1 frame or more, rows and");
  spec = Spec("p1");
  spec.images[0].frames = 0;
  expect(message(spec), "images[0]: grid: ");
  spec.images[0] = {1 << 30, 1 << 30, 1 << 30, {}};
  expect(message(spec), "images[0]: grid: more than 1048576 patches");
  spec = Spec("p1");
  spec.images[0].values.pop_back();
  expect(message(spec),
         "images[0]: patches: expected 1536 values (16 patches "
         "of 96), got 1535");
  spec = Spec("p1");
  spec.images.pop_back();
  expect(message(spec), "images: their 4 rows need as many tokens 95, got 12");
  spec = Spec("p1");
  std::swap(spec.images[0], spec.images[1]);
  expect(message(spec), "images[0]: expected 8 tokens 95 in a row, got 4");
  spec = Spec("p0");
  spec.arms[0].model =
      LoadGolden("tiny_llama_gqa", ComputeType::kF32, backend_.get());
  expect(message(spec), "images: the model takes none");
}

}  // namespace
}  // namespace qk::testing
