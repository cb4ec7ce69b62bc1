// Measures what the metrics of activations take of the processor for a prompt
// whose norms are captured: statistics, gauges, histograms, patterns and drift,
// off the scheduler's thread. Best of several runs, in microseconds per prompt.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "server/observe/activation_metrics.h"
#include "server/observe/activation_run.h"

namespace qk {
namespace {

struct Shape {
  const char* name;
  int layers, heads, kv_heads, head_dim;
};

constexpr Shape kShapes[] = {{"SmolLM2-135M", 30, 9, 3, 64},
                             {"Llama-3-8B", 32, 32, 8, 128},
                             {"Llama-3-70B", 80, 64, 8, 128}};

double CpuSeconds() {
  timespec now = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * now.tv_nsec;
}

ModelConfig ConfigOf(const Shape& shape) {
  ModelConfig config;
  config.layers.resize(static_cast<size_t>(shape.layers));
  for (LayerConfig& layer : config.layers) {
    layer.attention.num_heads = shape.heads;
    layer.attention.num_kv_heads = shape.kv_heads;
    layer.attention.head_dim = shape.head_dim;
  }
  return config;
}

LayerFrame FrameOf(const Shape& shape, int layer, HookPoint point,
                   std::mt19937* random) {
  LayerFrame frame;
  frame.layer = layer;
  frame.point = point;
  const int heads = point == HookPoint::kRotQ ? shape.heads : shape.kv_heads;
  frame.shape = {heads, shape.head_dim};
  frame.group_size = shape.heads / heads;
  for (int h = 0; h < heads; ++h) frame.heads.push_back(h);
  std::lognormal_distribution<float> norm(0, 0.5);
  std::vector<float> norms(static_cast<size_t>(heads) * shape.head_dim);
  for (float& value : norms) value = norm(*random);
  frame.data.resize(norms.size() * sizeof(float));
  std::memcpy(frame.data.data(), norms.data(), frame.data.size());
  StatisticsInputs& inputs = frame.statistics_inputs.emplace();
  inputs.lambda = 5.0;
  if (point != HookPoint::kV) {
    inputs.wavelengths.resize(static_cast<size_t>(shape.head_dim) / 2, 1.0);
  }
  return frame;
}

void Measure(const Shape& shape) {
  std::mt19937 random(1);
  ActivationMetrics metrics({});
  const auto* model = reinterpret_cast<const Model*>(&shape);  // an address
  metrics.ModelLoaded("m", model, ConfigOf(shape), "sha256");
  RunSpec spec;
  spec.tokens = {1};
  spec.arms.resize(1);
  spec.arms[0].model = {std::shared_ptr<const Model>(), model};
  std::vector<LayerFrame> frames;
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (HookPoint point :
         {HookPoint::kRotQ, HookPoint::kRotK, HookPoint::kV}) {
      frames.push_back(FrameOf(shape, layer, point, &random));
    }
  }
  double statistics = 1e9, rest = 1e9;
  for (int repeat = 0; repeat < 50; ++repeat) {
    const double start = CpuSeconds();
    for (LayerFrame& frame : frames) frame.ComputeStatistics();
    const double computed = CpuSeconds();
    ActivationRun run(&metrics, spec, ActivationSource::kAnalyze);
    for (const LayerFrame& frame : frames) run.Add(frame);
    run.Finish();
    const double end = CpuSeconds();
    statistics = std::min(statistics, computed - start);
    rest = std::min(rest, end - computed);
    if (repeat == 0) metrics.SaveBaseline("m").IgnoreError();
  }
  std::printf("{\"model\":\"%s\",\"statistics_us\":%.0f,\"metrics_us\":%.0f}\n",
              shape.name, 1e6 * statistics, 1e6 * rest);
}

}  // namespace
}  // namespace qk

int main() {
  for (const qk::Shape& shape : qk::kShapes) qk::Measure(shape);
}
