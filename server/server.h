// The whole server: engine, scheduler, services, health and metrics.
#ifndef QKSCOPE_SERVER_SERVER_H_
#define QKSCOPE_SERVER_SERVER_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/base/monotonic.h"
#include "engine/create_backend.h"
#include "grpcpp/server.h"
#include "server/access/access.h"
#include "server/calls/admin_service.h"
#include "server/calls/analysis_service.h"
#include "server/calls/health_service.h"
#include "server/calls/server_core.h"
#include "server/common/descriptors.h"
#include "server/config/options.h"
#include "server/http_answers.h"
#include "server/models/model_manager.h"
#include "server/net/acceptor.h"
#include "server/net/connections.h"
#include "server/net/metrics_listener.h"
#include "server/schedule/engine_device.h"

namespace qk {

class Server {
 public:
  // Describes the models, then listens. Health is NOT_SERVING until LoadModels
  // has finished. Errors name the configuration's key. `log` must outlive the
  // server. `backend`: nullptr stands for the one that the options name.
  static absl::StatusOr<std::unique_ptr<Server>> Create(
      const ServerOptions& options, Log* log,
      std::unique_ptr<Device> device = std::make_unique<EngineDevice>(),
      std::unique_ptr<Backend> backend = nullptr);
  // Ends the remaining calls at once.
  ~Server();

  // If the device is lost (Backend::SetOnLost), only a new process helps: the
  // server begins to drain and calls `on_lost`, which must neither block nor
  // call the server. Must be set before models load.
  void SetOnDeviceLost(std::function<void(const absl::Status&)> on_lost);

  // Loads all models, one after the other. Stops at the first error, which has
  // the form `file: reason`.
  absl::Status LoadModels();

  // The bound addresses, "HOST:PORT". metrics_address is empty if metrics are
  // off.
  const std::string& address() const { return address_; }
  const std::string& metrics_address() const { return metrics_address_; }

  // The content of /metrics.
  std::vector<prometheus::MetricFamily> CollectMetrics() const {
    return metrics_->Collect();
  }
  // The content of /metrics/activations.
  std::vector<prometheus::MetricFamily> CollectActivations() const {
    return activations_->Collect([](const std::string&) { return true; });
  }

  // Reads the users file and the TLS files again.
  void ReloadAccess() { access_->Reload(); }

  // Succeeds if the server answers a new connection. May be called in any
  // state.
  absl::Status CheckSelf(absl::Duration timeout);

  // Sets health to NOT_SERVING and refuses new calls.
  void BeginDrain();
  // Waits until no call is left. Returns false if the deadline came first.
  bool WaitUntilIdle(absl::Time deadline);
  // Ends the remaining calls and the listener.
  void Stop();

 private:
  // Limit on the memory of all requests that wait or run.
  static constexpr int64_t kMaxRequestBytes = int64_t{512} << 20;

  Server(const ServerOptions& options, std::unique_ptr<Device> device,
         std::unique_ptr<Backend> backend);

  absl::Status Start(Log* log);
  absl::Status MakeBackend(Log* log);
  void MakeMetrics(Log* log);
  absl::Status OpenResults(Log* log);
  absl::Status DescribeModels(Log* log);
  void MakeServices(Log* log);
  absl::Status Listen(Log* log);
  absl::Status ExposeMetrics();
  // What the metrics port answers with.
  HttpSources MakeHttpSources() const;

  const ServerOptions options_;
  const DescriptorShares descriptors_;
  std::unique_ptr<Backend> backend_;
  ModelRegistry registry_;
  BytePool buffers_;
  BytePool requests_{"requests that wait", kMaxRequestBytes};
  std::atomic<int64_t> buffered_ = 0;
  Connections connections_;
  const std::unique_ptr<Device> device_;
  const SystemClock clock_;
  const absl::Time started_ = MonotonicNow();
  std::shared_ptr<Metrics> metrics_;
  std::unique_ptr<ActivationMetrics> activations_;
  std::unique_ptr<CallTracker> calls_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<HostWork> host_;
  std::unique_ptr<ResultStore> results_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<Executor> spool_executor_;
  std::unique_ptr<Access> access_;
  ServerDescription description_;
  ServerCore core_;
  std::unique_ptr<HealthService> health_;
  std::unique_ptr<ModelManager> models_;
  std::unique_ptr<AnalysisService> service_;
  std::unique_ptr<AdminService> admin_service_;
  std::unique_ptr<grpc::Server> grpc_server_;
  std::unique_ptr<Acceptor> acceptor_;
  std::unique_ptr<MetricsListener> metrics_listener_;
  std::string address_;
  std::string metrics_address_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SERVER_H_
