// Counts calls by method and code, and requests by what they were refused or
// cancelled for and by how long their phases took.
#ifndef QKSCOPE_SERVER_OBSERVE_RPC_METRICS_H_
#define QKSCOPE_SERVER_OBSERVE_RPC_METRICS_H_

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "engine/types/results.h"
#include "grpcpp/support/status.h"
#include "server/common/cancel_reason.h"
#include "server/common/refusal.h"
#include "server/observe/families.h"

namespace qk {

// How long the phases of a request took, in seconds.
struct PhaseSeconds {
  double queue = 0;   // from the call's start until its first run began
  RunTimes device;    // of all its runs
  double stream = 0;  // from the first event to the last; 0: no event
};

// Thread-safe, without a lock that a scrape holds for longer than it takes to
// copy one metric.
class RpcMetrics {
 public:
  // `methods`: all that are ever counted.
  RpcMetrics(const std::vector<std::string>& methods,
             prometheus::Registry* registry);

  void Started(absl::string_view method);
  void Handled(absl::string_view method, grpc::StatusCode code, double seconds);
  void CountRefusal(Refusal reason);
  void CountCancelled(CancelReason reason);
  // Phases that did not happen, which took 0 s, are not observed.
  void ObservePhases(const PhaseSeconds& phases);

 private:
  static constexpr size_t kCodes = 17;
  struct Method {
    prometheus::Counter* started = nullptr;
    prometheus::Histogram* duration = nullptr;
    // By code; nullptr: has not been the code of a call yet.
    std::array<std::atomic<prometheus::Counter*>, kCodes> handled = {};
  };

  prometheus::Counter& HandledCounter(const std::string& method,
                                      grpc::StatusCode code);
  Method& Find(absl::string_view method);

  CounterFamily& handled_;
  absl::flat_hash_map<std::string, std::unique_ptr<Method>> methods_;
  std::vector<prometheus::Counter*> refused_;    // by reason
  std::vector<prometheus::Counter*> cancelled_;  // by reason
  prometheus::Histogram* queue_;
  prometheus::Histogram* prefill_;
  prometheus::Histogram* decode_;
  prometheus::Histogram* capture_;
  prometheus::Histogram* stream_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_RPC_METRICS_H_
