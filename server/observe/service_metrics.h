// The gauges of the server as a whole, which a scrape reads from the parts that
// have them.
#ifndef QKSCOPE_SERVER_OBSERVE_SERVICE_METRICS_H_
#define QKSCOPE_SERVER_OBSERVE_SERVICE_METRICS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "prometheus/metric_family.h"
#include "server/common/byte_pool.h"
#include "server/schedule/listing.h"

namespace qk {

// Where the gauges come from. Each is called on the scraping thread; a family
// without a source is left out.
struct ServiceSources {
  struct State {
    bool serving = false;
    bool draining = false;
  };
  struct Kept {
    int64_t results = 0;
    int64_t max_results = 0;
    int64_t bytes = 0;
    int64_t max_bytes = 0;
  };
  std::function<State()> state = nullptr;
  std::function<SchedulerLoad()> load = nullptr;
  // Of streams.
  const BytePool* buffers = nullptr;
  const std::atomic<int64_t>* buffered = nullptr;
  std::function<Kept()> kept = nullptr;  // nullptr: the server keeps no results
  std::function<int64_t()> connections = nullptr;
  std::function<int64_t()> connections_cut = nullptr;
  // The end of the certificate in use. nullptr: no TLS.
  std::function<absl::Time()> certificate_expiry = nullptr;
  // Lines that the log has lost.
  std::function<int64_t()> log_dropped = nullptr;
};

// All but those of the users.
std::vector<prometheus::MetricFamily> ServiceMetrics(
    const ServiceSources& sources, const std::optional<SchedulerLoad>& load);

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_SERVICE_METRICS_H_
