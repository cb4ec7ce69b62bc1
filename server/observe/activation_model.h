// What the activations of one model look like: the statistics of its last
// prompt by layer, histograms over all prompts, and how far the last prompt is
// from a baseline.
#ifndef QKSCOPE_SERVER_OBSERVE_ACTIVATION_MODEL_H_
#define QKSCOPE_SERVER_OBSERVE_ACTIVATION_MODEL_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "engine/base/mutex.h"
#include "engine/types/model_config.h"
#include "engine/types/results.h"
#include "engine/types/spec.h"
#include "prometheus/client_metric.h"
#include "prometheus/histogram.h"
#include "server/observe/activation_baseline.h"
#include "server/observe/activation_pattern.h"

namespace qk {

// What an arm does to the prompt. A control's rules choose dims of which
// nothing is expected: random_k and bottom_k.
enum class ArmKind { kClean, kDisrupted, kControl };
inline constexpr int kArmKinds = 3;
ArmKind ArmKindOf(const ArmSpec& arm);

// The RPC that a measured prompt came with.
enum class ActivationSource { kAnalyze, kScore, kGenerate };
inline constexpr int kActivationSources = 3;

// Statistics of one matrix. Ratio and max are absent if no entry is finite, the
// shares if they are undefined (Statistics).
struct ActivationGauges {
  int massive = 0;
  std::optional<double> ratio;
  std::optional<double> max;
  std::optional<double> low_frequency;
  std::optional<double> top_dim;
  int64_t non_finite = 0;
  std::optional<double> drift;  // from the baseline, of an undisrupted arm
};

// What all models with one label have in common. It outlives them, because its
// values only grow. Thread-safe.
class ActivationTotals {
 public:
  explicit ActivationTotals(std::string label) : label_(std::move(label)) {}

  void CountSample(ActivationSource source);
  // An entry that is not finite is in no histogram.
  void Observe(ActivationMatrix matrix, ArmKind arm,
               const ActivationGauges& gauges) ABSL_LOCKS_EXCLUDED(mutex_);

  const std::string& label() const { return label_; }
  int64_t samples(ActivationSource source) const {
    return samples_[static_cast<size_t>(source)];
  }
  struct Histograms {
    prometheus::ClientMetric massive, ratio;
  };
  // nullopt: no such matrix was seen.
  std::optional<Histograms> Collect(ActivationMatrix matrix, ArmKind arm) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Since the last matrix; nullopt: there was none.
  std::optional<absl::Duration> age() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Distributions {
    std::unique_ptr<prometheus::Histogram> massive, ratio;
  };

  const std::string label_;
  std::array<std::atomic<int64_t>, kActivationSources> samples_ = {};
  mutable Mutex mutex_;
  std::array<std::array<Distributions, kArmKinds>, kActivationMatrices>
      distributions_ ABSL_GUARDED_BY(mutex_);
  absl::Time last_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

// One loaded model. Thread-safe.
class ActivationModel {
 public:
  ActivationModel(std::string name, std::shared_ptr<ActivationTotals> totals,
                  const ModelConfig& config, std::string weights_sha256);

  // Takes a frame with statistics of one of the matrices: the whole prompt, all
  // heads, before the arm's rules act. `shown`: its statistics are those of the
  // model's last prompt. Returns them.
  ActivationGauges Add(const LayerFrame& frame, ActivationMatrix matrix,
                       ArmKind arm, bool shown) ABSL_LOCKS_EXCLUDED(mutex_);

  // Whether the frame has all heads of its tensor.
  bool HasAllHeads(const LayerFrame& frame) const;

  const std::string& name() const { return name_; }
  ActivationTotals& totals() const { return *totals_; }
  const std::string& weights_sha256() const { return weights_sha256_; }
  int num_layers() const { return static_cast<int>(num_heads_.size()); }
  // The larger, the later it was used.
  int64_t used() const { return used_; }
  void MarkUsed(int64_t now) { used_ = now; }

  // (layers) of one matrix and arm.
  std::vector<std::optional<ActivationGauges>> Gauges(ActivationMatrix matrix,
                                                      ArmKind arm) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // The mean over all undisrupted prompts.
  MeanPatterns patterns() const ABSL_LOCKS_EXCLUDED(mutex_);
  // nullptr: there is none.
  std::shared_ptr<const ActivationBaseline> baseline() const
      ABSL_LOCKS_EXCLUDED(mutex_);
  // The next prompts are compared with it. Its matrices must have the model's
  // shapes.
  void SetBaseline(std::shared_ptr<const ActivationBaseline> baseline)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Of means and baseline.
  int64_t pattern_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Drift {
    std::shared_ptr<const ActivationBaseline> from;
    double value = 0;
  };

  // Adds an undisrupted prompt's pattern to the mean. Returns how far it is
  // from the baseline, if both are known.
  std::optional<Drift> AddPattern(const LayerFrame& frame,
                                  ActivationMatrix matrix)
      ABSL_LOCKS_EXCLUDED(mutex_);
  size_t IndexOf(int layer, ActivationMatrix matrix, ArmKind arm) const;

  const std::string name_;
  const std::shared_ptr<ActivationTotals> totals_;
  const std::string weights_sha256_;
  std::vector<int> num_heads_;  // (layers); 0: a layer without attention
  std::atomic<int64_t> used_ = 0;
  mutable Mutex mutex_;
  // (matrices, arms, layers)
  std::vector<std::optional<ActivationGauges>> gauges_ ABSL_GUARDED_BY(mutex_);
  MeanPatterns patterns_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const ActivationBaseline> baseline_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_ACTIVATION_MODEL_H_
