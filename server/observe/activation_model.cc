#include "server/observe/activation_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/base/monotonic.h"

namespace qk {
namespace {

using prometheus::Histogram;

// The paper's threshold. Statistics of requests with another one are computed
// anew, because gauges must be comparable.
constexpr double kLambda = 5.0;

std::optional<double> Finite(double value) {
  if (!std::isfinite(value)) return std::nullopt;
  return value;
}

ActivationGauges GaugesOf(const Statistics& statistics) {
  ActivationGauges out;
  out.massive = statistics.massive_count;
  out.ratio = Finite(statistics.ratio);
  out.max = Finite(statistics.max);
  out.low_frequency = statistics.low_frequency_share;
  out.top_dim = statistics.top_dim_share;
  out.non_finite = statistics.non_finite_count;
  return out;
}

ActivationGauges GaugesOf(const LayerFrame& frame) {
  if (!frame.statistics_inputs.has_value() ||
      frame.statistics_inputs->lambda == kLambda) {
    return GaugesOf(*frame.statistics);
  }
  LayerFrame again;
  again.shape = frame.shape;
  again.heads = frame.heads;
  again.data = frame.data;
  again.statistics_inputs = frame.statistics_inputs;
  again.statistics_inputs->lambda = kLambda;
  again.ComputeStatistics();
  return GaugesOf(*again.statistics);
}

std::unique_ptr<Histogram> MassiveHistogram() {
  return std::make_unique<Histogram>(
      Histogram::BucketBoundaries{0, 1, 2, 4, 8, 16, 32, 64, 128});
}

std::unique_ptr<Histogram> RatioHistogram() {
  return std::make_unique<Histogram>(
      Histogram::BucketBoundaries{2, 3, 5, 7, 10, 15, 25, 50, 100});
}

}  // namespace

ArmKind ArmKindOf(const ArmSpec& arm) {
  if (arm.rules.empty()) return ArmKind::kClean;
  const bool control = std::all_of(
      arm.rules.begin(), arm.rules.end(), [](const DisruptionRule& rule) {
        return rule.select == DisruptionRule::Select::kRandomK ||
               rule.select == DisruptionRule::Select::kBottomK;
      });
  return control ? ArmKind::kControl : ArmKind::kDisrupted;
}

void ActivationTotals::CountSample(ActivationSource source) {
  ++samples_[static_cast<size_t>(source)];
}

void ActivationTotals::Observe(ActivationMatrix matrix, ArmKind arm,
                               const ActivationGauges& gauges) {
  MutexLock lock(&mutex_);
  last_ = MonotonicNow();
  Distributions& seen =
      distributions_[static_cast<size_t>(matrix)][static_cast<size_t>(arm)];
  if (seen.massive == nullptr) {
    seen.massive = MassiveHistogram();
    seen.ratio = RatioHistogram();
  }
  // A sum with NaN in it would stay NaN.
  if (!gauges.ratio.has_value()) return;
  seen.massive->Observe(gauges.massive);
  seen.ratio->Observe(*gauges.ratio);
}

std::optional<ActivationTotals::Histograms> ActivationTotals::Collect(
    ActivationMatrix matrix, ArmKind arm) const {
  MutexLock lock(&mutex_);
  const Distributions& seen =
      distributions_[static_cast<size_t>(matrix)][static_cast<size_t>(arm)];
  if (seen.massive == nullptr) return std::nullopt;
  return Histograms{seen.massive->Collect(), seen.ratio->Collect()};
}

std::optional<absl::Duration> ActivationTotals::age() const {
  MutexLock lock(&mutex_);
  if (last_ == absl::InfinitePast()) return std::nullopt;
  return MonotonicNow() - last_;
}

ActivationModel::ActivationModel(std::string name,
                                 std::shared_ptr<ActivationTotals> totals,
                                 const ModelConfig& config,
                                 std::string weights_sha256)
    : name_(std::move(name)),
      totals_(std::move(totals)),
      weights_sha256_(std::move(weights_sha256)),
      gauges_(size_t{kActivationMatrices} * kArmKinds * config.layers.size()) {
  for (const LayerConfig& layer : config.layers) {
    num_heads_.push_back(layer.attention.num_heads);
  }
}

bool ActivationModel::HasAllHeads(const LayerFrame& frame) const {
  return static_cast<int>(frame.heads.size()) * frame.group_size ==
         num_heads_[static_cast<size_t>(frame.layer)];
}

size_t ActivationModel::IndexOf(int layer, ActivationMatrix matrix,
                                ArmKind arm) const {
  return (static_cast<size_t>(matrix) * kArmKinds + static_cast<size_t>(arm)) *
             num_heads_.size() +
         static_cast<size_t>(layer);
}

ActivationGauges ActivationModel::Add(const LayerFrame& frame,
                                      ActivationMatrix matrix, ArmKind arm,
                                      bool shown) {
  ActivationGauges gauges = GaugesOf(frame);
  totals_->Observe(matrix, arm, gauges);
  if (!shown) return gauges;
  std::optional<Drift> drift;
  if (arm == ArmKind::kClean) drift = AddPattern(frame, matrix);
  MutexLock lock(&mutex_);
  if (drift.has_value() && drift->from == baseline_) {
    gauges.drift = drift->value;
  }
  gauges_[IndexOf(frame.layer, matrix, arm)] = gauges;
  return gauges;
}

std::optional<ActivationModel::Drift> ActivationModel::AddPattern(
    const LayerFrame& frame, ActivationMatrix matrix) {
  const auto pattern = PatternOf(frame);
  if (!pattern.has_value()) return std::nullopt;
  const ActivationPlace place = {matrix, frame.layer};
  std::shared_ptr<const ActivationBaseline> baseline;
  {
    MutexLock lock(&mutex_);
    patterns_.Add(place, frame.shape, *pattern);
    baseline = baseline_;
  }
  if (baseline == nullptr) return std::nullopt;
  const MeanPatterns::Mean* mean = baseline->patterns.Find(place);
  if (mean == nullptr) return std::nullopt;
  return Drift{baseline, DriftBetween(*pattern, mean->values)};
}

MeanPatterns ActivationModel::patterns() const {
  MutexLock lock(&mutex_);
  return patterns_;
}

std::shared_ptr<const ActivationBaseline> ActivationModel::baseline() const {
  MutexLock lock(&mutex_);
  return baseline_;
}

void ActivationModel::SetBaseline(
    std::shared_ptr<const ActivationBaseline> baseline) {
  MutexLock lock(&mutex_);
  // What was shown is how far prompts were from another one.
  for (auto& gauges : gauges_) {
    if (gauges.has_value()) gauges->drift.reset();
  }
  std::swap(baseline_, baseline);
}

int64_t ActivationModel::pattern_bytes() const {
  MutexLock lock(&mutex_);
  return patterns_.bytes() +
         (baseline_ == nullptr ? 0 : baseline_->patterns.bytes());
}

std::vector<std::optional<ActivationGauges>> ActivationModel::Gauges(
    ActivationMatrix matrix, ArmKind arm) const {
  MutexLock lock(&mutex_);
  const auto begin =
      gauges_.begin() + static_cast<ptrdiff_t>(IndexOf(0, matrix, arm));
  return {begin, begin + num_layers()};
}

}  // namespace qk
