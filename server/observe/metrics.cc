#include "server/observe/metrics.h"

#include <optional>
#include <utility>

#include "engine/base/monotonic.h"
#include "server/observe/device_metrics.h"

namespace qk {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

MetricFamily BuildInfo(const std::string& version, const std::string& backend) {
  MetricFamily family = EmptyFamily(
      "qkscope_build_info",
      "Always 1; the version of the server and the device's backend are "
      "labels.",
      MetricType::Gauge);
  AddSample({{"backend", backend}, {"version", version}}, 1, &family);
  return family;
}

MetricFamily ReplicaInfo(const std::string& replica) {
  MetricFamily family = EmptyFamily(
      "qkscope_replica_info",
      "Always 1; the replica's name is a label. Absent for a server without a "
      "name.",
      MetricType::Gauge);
  AddSample({{"replica", replica}}, 1, &family);
  return family;
}

}  // namespace

Metrics::Metrics(const Options& options)
    : options_(options),
      rpcs_(options.methods, &registry_),
      passes_(&registry_),
      models_(&registry_),
      streamed_(AddCounters(&registry_, "qkscope_streamed_bytes_total",
                            "Bytes of results that were handed to gRPC, which "
                            "users are charged for.")
                    .Add({})) {}

void Metrics::CountStreamedBytes(int64_t bytes) {
  streamed_.Increment(static_cast<double>(bytes));
}

void Metrics::OnPass(const PassReport& pass) {
  passes_.Observe(pass);
  models_.Observe(pass);
}

void Metrics::OnQueue(int waiting_requests, int running_requests) {
  queued_ = waiting_requests;
  running_ = running_requests;
}

void Metrics::OnCancelled(double seconds) { passes_.ObserveCancelled(seconds); }

std::vector<MetricFamily> Metrics::Collect() const {
  std::vector<MetricFamily> all;
  const auto add = [&all](std::vector<MetricFamily> more) {
    for (MetricFamily& family : more) all.push_back(std::move(family));
  };
  std::optional<SchedulerLoad> load;
  if (options_.sources.load != nullptr) load = options_.sources.load();
  all.push_back(BuildInfo(options_.version, options_.backend));
  if (!options_.replica.empty()) {
    all.push_back(ReplicaInfo(options_.replica));
  }
  add(ServiceMetrics(options_.sources, load));
  all.push_back(OneGauge("qkscope_queued_requests",
                         "Requests that wait for the device.",
                         static_cast<double>(queued_)));
  all.push_back(OneGauge("qkscope_running_requests",
                         "Requests that have a run on the device.",
                         static_cast<double>(running_)));
  if (options_.sources.kept != nullptr) {
    all.push_back(OneCounter("qkscope_spool_errors_total",
                             "Failures of the spool's folder and files. Absent "
                             "without a spool.",
                             static_cast<double>(spool_errors_)));
  }
  add(registry_.Collect());
  add(models_.Collect());
  add(users_.Collect(load.has_value() ? load->users : std::vector<UserLoad>(),
                     MonotonicNow()));
  if (options_.read_device != nullptr) {
    add(DeviceMetrics(options_.read_device(), options_.device));
  }
  add(process_.Collect());
  return all;
}

}  // namespace qk
