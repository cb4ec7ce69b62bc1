// The statistics of activations, for Prometheus: what the massive values of the
// models look like now. /metrics/activations shows them, within a limit.
#ifndef QKSCOPE_SERVER_OBSERVE_ACTIVATION_METRICS_H_
#define QKSCOPE_SERVER_OBSERVE_ACTIVATION_METRICS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/mutex.h"
#include "engine/types/model_config.h"
#include "engine/types/spec.h"
#include "prometheus/metric_family.h"
#include "server/observe/activation_baseline.h"
#include "server/observe/activation_model.h"
#include "server/observe/activation_options.h"
#include "server/observe/recent_activations.h"

namespace qk {

struct SavedBaseline {
  std::shared_ptr<ActivationModel> model;
  std::shared_ptr<const ActivationBaseline> baseline;
};

// Thread-safe.
class ActivationMetrics {
 public:
  struct Options {
    ActivationOptions shown;
    // Limit on the series of a page.
    int64_t max_series = 20'000;
    // Limit on frames of chosen prompts that wait to be measured, bytes.
    int64_t max_waiting_bytes = int64_t{64} << 20;
    // Is told of values that are not finite, on the threads of readers.
    // nullptr: nobody is.
    std::function<void(const std::string& model, int64_t values)>
        on_non_finite = nullptr;
    // Is told why a kept baseline is not used. nullptr: nobody is.
    std::function<void(const std::string& model, const absl::Status& reason)>
        on_bad_baseline = nullptr;
  };
  explicit ActivationMetrics(Options options)
      : options_(std::move(options)), folder_(options_.shown.baseline_dir) {}

  // Must be called before requests use the model. Replaces the model of that
  // name. Reads its baseline, if one of these weights is kept.
  void ModelLoaded(const std::string& name, const Model* model,
                   const ModelConfig& config, const std::string& weights_sha256)
      ABSL_LOCKS_EXCLUDED(baseline_mutex_, mutex_);
  // Its gauges and what it has shown are gone; its counters and histograms, and
  // a baseline's file, stay.
  void ModelUnloaded(const std::string& name) ABSL_LOCKS_EXCLUDED(mutex_);

  // nullptr: the model is not loaded any more.
  std::shared_ptr<ActivationModel> Find(const Model* model) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  // The model is the one that was used last.
  void MarkUsed(ActivationModel* model) { model->MarkUsed(++uses_); }
  void CountNonFinite(const ActivationModel& model, int64_t values) const;

  // Whether the next prompt that its client does not capture is to be measured.
  // Of any n prompts in a row, the share that the options want is chosen, give
  // or take one.
  bool Choose();
  // Room for frames that wait to be measured, bytes.
  bool TakeRoom(int64_t bytes);
  void GiveRoomBack(int64_t bytes) { waiting_bytes_ -= bytes; }
  // A prompt that was chosen found no room.
  void CountDropped() { ++dropped_; }

  // Makes the mean of what the model has shown, or `patterns` of it, its
  // baseline. Errors: NOT_FOUND: it is not loaded; FAILED_PRECONDITION: it has
  // shown nothing, or is not the loaded one any more; those of writing the
  // file, after which nothing has changed.
  absl::StatusOr<SavedBaseline> SaveBaseline(const std::string& name)
      ABSL_LOCKS_EXCLUDED(baseline_mutex_, mutex_);
  absl::StatusOr<SavedBaseline> SaveBaseline(
      const std::shared_ptr<ActivationModel>& model, MeanPatterns patterns)
      ABSL_LOCKS_EXCLUDED(baseline_mutex_, mutex_);
  // NOT_FOUND: there is none, in memory or in a file.
  absl::Status RemoveBaseline(const std::string& name)
      ABSL_LOCKS_EXCLUDED(baseline_mutex_, mutex_);
  bool keeps_baselines() const { return folder_.keeps(); }
  // All that are loaded, sorted by name.
  std::vector<std::shared_ptr<ActivationModel>> Models() const
      ABSL_LOCKS_EXCLUDED(mutex_);
  // The last prompts.
  RecentActivations* recent() { return &recent_; }
  const RecentActivations* recent() const { return &recent_; }

  // The page, as far as the series of models go for which `may_see` is true.
  std::vector<prometheus::MetricFamily> Collect(
      const std::function<bool(const std::string& model)>& may_see) const
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  std::shared_ptr<ActivationTotals> TotalsOf(const std::string& name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // nullptr: no model of that name is loaded.
  std::shared_ptr<ActivationModel> FindByName(const std::string& name) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  const Options options_;
  const BaselineFolder folder_;
  std::atomic<int64_t> uses_ = 0;
  std::atomic<int64_t> offered_ = 0;  // prompts that Choose was asked about
  std::atomic<int64_t> waiting_bytes_ = 0;
  std::atomic<int64_t> dropped_ = 0;
  RecentActivations recent_;
  // One baseline changes at a time.
  Mutex baseline_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  mutable Mutex mutex_;
  // By label: the names that came first, then "other".
  std::map<std::string, std::shared_ptr<ActivationTotals>> totals_
      ABSL_GUARDED_BY(mutex_);
  struct Loaded {
    const Model* model = nullptr;
    std::shared_ptr<ActivationModel> activations;
  };
  std::map<std::string, Loaded> loaded_ ABSL_GUARDED_BY(mutex_);  // by name
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_ACTIVATION_METRICS_H_
