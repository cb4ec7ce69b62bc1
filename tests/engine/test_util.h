// Helpers of the engine's tests: they read goldens, compare so that NaN fails,
// and run sequences without a server.
#ifndef QKSCOPE_TESTS_ENGINE_TEST_UTIL_H_
#define QKSCOPE_TESTS_ENGINE_TEST_UTIL_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/formats/dequantize.h"
#include "engine/formats/safetensors.h"
#include "engine/model/model.h"
#include "engine/pass.h"
#include "engine/run/run.h"
#include "engine/sequence.h"
#include "gtest/gtest.h"
#include "tests/engine/test_backend.h"

namespace qk::testing {

inline std::string GoldenPath(const std::string& name) {
  return std::string(QK_SOURCE_DIR) + "/tests/goldens/" + name;
}

// Returns the sum of squared differences over the sum of squares; NaN if any
// value is NaN, or if there is nothing to compare.
inline double Nmse(const std::vector<float>& got,
                   const std::vector<float>& want) {
  if (got.size() != want.size() || want.empty()) return std::nan("");
  double error = 0;
  double power = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double d = double{got[i]} - want[i];
    error += d * d;
    power += double{want[i]} * want[i];
  }
  return power == 0 ? error : error / power;
}

inline std::vector<float> ReadTensor(const TensorSource& source,
                                     const std::string& name) {
  const TensorInfo* tensor = source.Find(name);
  if (tensor == nullptr) {
    ADD_FAILURE() << "no tensor " << name;
    return {};
  }
  int64_t n = 1;
  for (int64_t dim : tensor->shape) n *= dim;
  std::vector<float> values(n);
  Dequantize(tensor->dtype, tensor->data.data(), n, values.data());
  return values;
}

inline std::vector<float> Floats(const std::string& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

// Keeps everything that a run sends.
class Recorder : public RunSink {
 public:
  void OnLayer(LayerFrame frame) override {
    frame.ComputeStatistics();
    frames.push_back(std::move(frame));
  }
  void OnApplied(AppliedRule rule) override {
    applied.push_back(std::move(rule));
  }
  void OnToken(TokenEvent token) override {
    tokens.push_back(std::move(token));
  }
  void OnComparison(ComparisonResult comparison) override {
    comparisons.push_back(std::move(comparison));
  }
  void OnLogits(int arm, std::vector<PositionLogits> positions) override {
    logits[arm] = std::move(positions);
  }
  void OnScore(ScoreResult score) override {
    scores.push_back(std::move(score));
  }
  void OnFinished(const absl::Status& status,
                  const std::vector<ArmSummary>& arms,
                  const RunTimes&) override {
    ++finished;
    final_status = status;
    summaries = arms;
  }

  std::vector<LayerFrame> frames;
  std::vector<AppliedRule> applied;
  std::vector<TokenEvent> tokens;
  std::vector<ComparisonResult> comparisons;
  std::map<int, std::vector<PositionLogits>> logits;
  std::vector<ScoreResult> scores;
  std::vector<ArmSummary> summaries;
  absl::Status final_status = absl::UnknownError("not finished");
  int finished = 0;
};

// Runs all of `runs` together, with every ready sequence in every pass.
inline void RunTogether(const std::vector<Run*>& runs) {
  for (Run* run : runs) {
    const absl::Status status = run->Reserve();
    ASSERT_TRUE(status.ok()) << status;
  }
  while (true) {
    const Model* model = nullptr;
    for (Run* run : runs) {
      if (!run->finished() && run->next_model() != nullptr) {
        model = run->next_model();
      }
    }
    if (model == nullptr) return;
    std::vector<Sequence*> sequences;
    std::vector<size_t> ends;
    for (Run* run : runs) {
      if (!run->finished()) run->AppendReady(model, &sequences);
      ends.push_back(sequences.size());
    }
    Pass pass(*model, sequences);
    while (!pass.done()) pass.RunStep();
    const absl::Status status = pass.Finish();
    size_t begin = 0;
    for (size_t i = 0; i < runs.size(); ++i) {
      if (ends[i] > begin) {
        runs[i]->AfterPass(
            absl::MakeConstSpan(sequences).subspan(begin, ends[i] - begin),
            status, 0.0);
      }
      while (runs[i]->comparing()) runs[i]->CompareTile();
      begin = ends[i];
    }
  }
}

// One run alone.
inline Recorder RunAlone(const RunSpec& spec) {
  Recorder recorder;
  absl::StatusOr<std::unique_ptr<Run>> run = Run::Create(spec, &recorder);
  EXPECT_TRUE(run.ok()) << run.status();
  if (run.ok()) RunTogether({run->get()});
  EXPECT_EQ(recorder.finished, 1);
  EXPECT_TRUE(recorder.final_status.ok()) << recorder.final_status;
  return recorder;
}

// Returns the spec of a capture of everything, raw, in both phases.
inline CaptureSpec CaptureAll(const ModelConfig& config) {
  CaptureSpec capture;
  for (int i = 0; i < config.num_layers(); ++i) {
    if (config.has_attention(i)) capture.layers.push_back(i);
  }
  capture.points = {HookPoint::kQ,    HookPoint::kK,    HookPoint::kV,
                    HookPoint::kRotQ, HookPoint::kRotK, HookPoint::kZ};
  capture.form = CaptureForm::kRaw;
  capture.phase = 3;
  return capture;
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_TEST_UTIL_H_
