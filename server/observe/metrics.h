// The Prometheus metrics. Labels come from closed sets: methods, codes,
// reasons, the models loaded first. A request's id, tag, text or address is
// never a label. Statistics of activations are in activation_metrics.h.
#ifndef QKSCOPE_SERVER_OBSERVE_METRICS_H_
#define QKSCOPE_SERVER_OBSERVE_METRICS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "engine/base/mutex.h"
#include "engine/types/device_reading.h"
#include "engine/types/results.h"
#include "engine/types/spec.h"
#include "grpcpp/support/status.h"
#include "prometheus/collectable.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "server/common/byte_pool.h"
#include "server/common/cancel_reason.h"
#include "server/common/refusal.h"
#include "server/schedule/scheduler_observer.h"

namespace qk {

class Metrics : public prometheus::Collectable, public SchedulerObserver {
 public:
  struct Kept {
    int64_t results = 0;
    int64_t bytes = 0;
  };
  struct Options {
    std::string version;
    std::string replica = {};  // this replica's name, or empty
    std::vector<std::string> methods;
    // Lines that the log has lost. nullptr: nobody asks.
    std::function<int64_t()> log_dropped = nullptr;
    const BytePool* buffers = nullptr;
    const std::atomic<int64_t>* buffered = nullptr;
    std::function<Kept()> read_kept = nullptr;
    // What the device says of itself, and its name. nullptr: nobody asks.
    std::function<DeviceReading()> read_device = nullptr;
    std::string device = {};
    // Connections that were cut because of what they cost. nullptr: not shown.
    std::function<int64_t()> connections_cut = nullptr;
  };
  explicit Metrics(const Options& options);

  // Must be called before requests use the model, and again each time that its
  // name is loaded.
  void AddModel(const std::string& name);
  struct ModelCost {
    double load_seconds = 0;
    int64_t host_bytes = 0;
    int64_t device_bytes = 0;
  };
  void ModelLoaded(const std::string& name,
                   const std::shared_ptr<const Model>& model,
                   const ModelCost& cost);
  // The model's series stay; its ready and memory gauges become 0.
  void ModelUnloaded(const std::string& name);

  void RpcStarted(const std::string& method);
  void RpcHandled(const std::string& method, grpc::StatusCode code,
                  double seconds);
  void CountRefusal(Refusal reason);
  void CountCancelled(CancelReason reason);
  void CountTokens(const std::string& model, int64_t prompt, int64_t generated);
  void CountStreamedBytes(int64_t bytes);
  void CountSpoolError();
  // Counts values of activations that are NaN or infinite.
  void CountNonFinite(const std::string& model, int64_t values);

  void OnPass(const Model& model, int rows, int sequences, double seconds,
              const absl::Status& status) override;
  void OnQueue(int waiting_requests, int running_requests) override;
  void OnCancelled(double seconds) override;

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  template <typename Metric>
  using Family = prometheus::Family<Metric>;
  struct ModelMetrics {
    prometheus::Counter* passes;
    prometheus::Counter* failed_passes;
    prometheus::Counter* rows;
    prometheus::Counter* pass_seconds;
    prometheus::Counter* prompt_tokens;
    prometheus::Counter* generated_tokens;
    prometheus::Gauge* ready;
    prometheus::Counter* non_finite;
    std::string label;  // the model's name, or "other"
  };
  struct LoadedModel {
    std::weak_ptr<const Model> model;
    std::string name;
  };

  std::optional<ModelMetrics> Find(const std::string& model) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  void SetMemory(const std::string& label, double host, double device)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Family<prometheus::Counter>& Counter(const char* name, const char* help);
  Family<prometheus::Gauge>& Gauge(const char* name, const char* help);

  const Options options_;
  prometheus::Registry registry_;
  Family<prometheus::Counter>& rpc_started_;
  Family<prometheus::Counter>& rpc_handled_;
  Family<prometheus::Histogram>& rpc_duration_;
  Family<prometheus::Counter>& refused_;
  Family<prometheus::Counter>& cancelled_;
  prometheus::Gauge& queued_;
  prometheus::Gauge& running_;
  prometheus::Gauge& buffered_;
  prometheus::Gauge& reserved_;
  prometheus::Counter& streamed_;
  prometheus::Gauge& kept_results_;
  prometheus::Gauge& kept_bytes_;
  prometheus::Counter& spool_errors_;
  prometheus::Histogram& pass_rows_;
  prometheus::Histogram& pass_sequences_;
  prometheus::Histogram& pass_duration_;
  prometheus::Histogram& cancel_to_idle_;

  mutable Mutex mutex_;
  std::map<std::string, ModelMetrics> models_ ABSL_GUARDED_BY(mutex_);
  // Passes of an unloaded or replaced model still count under its name.
  std::map<const Model*, LoadedModel> names_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_METRICS_H_
