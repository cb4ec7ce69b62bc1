// The Prometheus metrics of the service. Labels come from closed sets: methods,
// codes, reasons, phases, the models loaded first, and the busiest users. A
// request's id, tag, text or address is never a label. Statistics of
// activations are in activation_metrics.h.
//
// The parts are in the files beside this one. Calls and the scheduler's thread
// count in objects that they find without a lock, or under one that is held for
// a look into a table; a scrape copies these, and builds the gauges anew.
#ifndef QKSCOPE_SERVER_OBSERVE_METRICS_H_
#define QKSCOPE_SERVER_OBSERVE_METRICS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/types/device_reading.h"
#include "grpcpp/support/status.h"
#include "prometheus/collectable.h"
#include "prometheus/counter.h"
#include "prometheus/registry.h"
#include "server/common/cancel_reason.h"
#include "server/common/refusal.h"
#include "server/observe/model_metrics.h"
#include "server/observe/pass_metrics.h"
#include "server/observe/process_metrics.h"
#include "server/observe/rpc_metrics.h"
#include "server/observe/service_metrics.h"
#include "server/observe/user_metrics.h"
#include "server/schedule/scheduler_observer.h"

namespace qk {

class Metrics : public prometheus::Collectable, public SchedulerObserver {
 public:
  struct Options {
    std::string version;
    std::string backend = {};
    std::string replica = {};  // this replica's name, or empty
    std::vector<std::string> methods;
    ServiceSources sources = {};
    // What the device says of itself, and its name. nullptr: nobody asks.
    std::function<DeviceReading()> read_device = nullptr;
    std::string device = {};
  };
  explicit Metrics(const Options& options);

  // As ModelMetrics has them.
  void AddModel(const std::string& name) { models_.Add(name); }
  void ModelLoaded(const std::string& name,
                   const std::shared_ptr<const Model>& model,
                   const ModelCost& cost, KvReader read_kv) {
    models_.Loaded(name, model, cost, read_kv);
  }
  void ModelUnloaded(const std::string& name) { models_.Unloaded(name); }

  // As RpcMetrics has them.
  void RpcStarted(absl::string_view method) { rpcs_.Started(method); }
  void RpcHandled(absl::string_view method, grpc::StatusCode code,
                  double seconds) {
    rpcs_.Handled(method, code, seconds);
  }
  void CountRefusal(Refusal reason) { rpcs_.CountRefusal(reason); }
  void CountCancelled(CancelReason reason) { rpcs_.CountCancelled(reason); }
  void ObservePhases(const PhaseSeconds& phases) {
    rpcs_.ObservePhases(phases);
  }

  // Counts a call of the user that has ended.
  void CountCall(absl::string_view alias) { users_.CountCall(alias); }
  void CountTokens(const std::string& model, int64_t prompt,
                   int64_t generated) {
    models_.CountTokens(model, prompt, generated);
  }
  void CountStreamedBytes(int64_t bytes);
  void CountSpoolError() { ++spool_errors_; }
  void CountNonFinite(const std::string& model, int64_t values) {
    models_.CountNonFinite(model, values);
  }

  void OnPass(const PassReport& pass) override;
  void OnQueue(int waiting_requests, int running_requests) override;
  void OnCancelled(double seconds) override;

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const Options options_;
  prometheus::Registry registry_;
  RpcMetrics rpcs_;
  PassMetrics passes_;
  ModelMetrics models_;
  mutable UserMetrics users_;  // a scrape decides who has series
  const ProcessMetrics process_;
  std::atomic<int64_t> queued_ = 0;
  std::atomic<int64_t> running_ = 0;
  std::atomic<int64_t> spool_errors_ = 0;
  prometheus::Counter& streamed_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_METRICS_H_
