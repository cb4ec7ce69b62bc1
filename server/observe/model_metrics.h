// What is counted for each model, and what the loaded models are like. The
// first 50 names have series of their own; later ones share those of "other".
#ifndef QKSCOPE_SERVER_OBSERVE_MODEL_METRICS_H_
#define QKSCOPE_SERVER_OBSERVE_MODEL_METRICS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "engine/base/mutex.h"
#include "prometheus/metric_family.h"
#include "server/observe/families.h"
#include "server/schedule/scheduler_observer.h"

namespace qk {

struct ModelCost {
  double load_seconds = 0;
  int64_t host_bytes = 0;
  int64_t device_bytes = 0;
};

// Bytes of a model's KV cache: the pages that requests hold, and the most that
// they may.
struct KvUse {
  int64_t used_bytes = 0;
  int64_t limit_bytes = 0;
};
using KvReader = KvUse (*)(const Model& model);

// Thread-safe.
class ModelMetrics {
 public:
  explicit ModelMetrics(prometheus::Registry* registry);

  // Must be called before requests use the model, and again each time that its
  // name is loaded.
  void Add(const std::string& name) ABSL_LOCKS_EXCLUDED(mutex_);
  void Loaded(const std::string& name,
              const std::shared_ptr<const Model>& model, const ModelCost& cost,
              KvReader read_kv) ABSL_LOCKS_EXCLUDED(mutex_);
  // The model's series stay.
  void Unloaded(const std::string& name) ABSL_LOCKS_EXCLUDED(mutex_);

  // Unknown models are ignored, here and below.
  void CountTokens(const std::string& name, int64_t prompt, int64_t generated)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void CountNonFinite(const std::string& name, int64_t values)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Observe(const PassReport& pass) ABSL_LOCKS_EXCLUDED(mutex_);

  // The gauges. The counters are the registry's.
  std::vector<prometheus::MetricFamily> Collect() const
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // The counters of a label.
  struct Series {
    std::string label;
    prometheus::Counter* passes;
    prometheus::Counter* failed_passes;
    prometheus::Counter* rows;
    prometheus::Counter* pass_seconds;
    prometheus::Counter* prompt_tokens;
    prometheus::Counter* generated_tokens;
    prometheus::Counter* non_finite;
  };
  struct Named {
    const Series* series = nullptr;
    bool ready = false;
    ModelCost cost;  // of the last load
  };
  // A model that was loaded, and may be in use after it was unloaded or
  // replaced.
  struct Living {
    std::weak_ptr<const Model> model;
    const Series* series = nullptr;
    KvReader read_kv = nullptr;
  };
  // What the models of a label have together.
  struct Sum {
    bool ready = false;
    double load_seconds = 0;  // of the model that was loaded last
    int64_t host_bytes = 0;
    int64_t device_bytes = 0;
    KvUse kv;
  };

  // nullptr: the model is unknown.
  const Series* Find(const std::string& name) const ABSL_LOCKS_EXCLUDED(mutex_);
  const Series* SeriesOf(const std::string& label)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::map<std::string, Sum> SumByLabel() const ABSL_LOCKS_EXCLUDED(mutex_);

  CounterFamily& passes_;
  CounterFamily& failed_passes_;
  CounterFamily& rows_;
  CounterFamily& pass_seconds_;
  CounterFamily& prompt_tokens_;
  CounterFamily& generated_tokens_;
  CounterFamily& non_finite_;

  mutable Mutex mutex_;
  // By label. Never erased, so that others may point to them.
  std::map<std::string, Series> series_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Named> names_ ABSL_GUARDED_BY(mutex_);
  std::map<const Model*, Living> living_ ABSL_GUARDED_BY(mutex_);
  std::string last_of_other_ ABSL_GUARDED_BY(mutex_);  // a name
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_MODEL_METRICS_H_
