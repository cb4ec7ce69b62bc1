#include "server/observe/service_metrics.h"

#include "server/observe/families.h"

namespace qk {
namespace {

using Families = std::vector<prometheus::MetricFamily>;

void AddGauge(const char* name, const char* help, double value,
              Families* families) {
  families->push_back(OneGauge(name, help, value));
}

void AddState(const ServiceSources::State& state, Families* families) {
  AddGauge("qkscope_serving",
           "1 while health is SERVING: the models of the configuration are "
           "loaded, and the server is not draining. Else 0.",
           state.serving ? 1 : 0, families);
  AddGauge("qkscope_draining",
           "1 from the moment when the server begins to shut down: it takes no "
           "calls any more and finishes those in progress. Else 0.",
           state.draining ? 1 : 0, families);
}

void AddQueue(const SchedulerLoad& load, Families* families) {
  AddGauge("qkscope_queue_limit_requests",
           "Requests that may wait for the device. A few places of operators "
           "come on top.",
           load.queue_limit, families);
  AddGauge("qkscope_queue_oldest_age_seconds",
           "How long the request that has waited longest for the device has "
           "waited, in seconds; 0 if none waits.",
           absl::ToDoubleSeconds(load.oldest_wait), families);
}

void AddStreams(const ServiceSources& sources, Families* families) {
  if (sources.buffered != nullptr) {
    AddGauge("qkscope_stream_buffered_bytes",
             "Bytes of results that wait for their readers.",
             static_cast<double>(sources.buffered->load()), families);
  }
  if (sources.buffers == nullptr) return;
  AddGauge("qkscope_stream_reserved_bytes",
           "Bytes of buffers that are reserved for the results of running "
           "requests.",
           static_cast<double>(sources.buffers->taken()), families);
  AddGauge("qkscope_stream_limit_bytes",
           "Bytes of buffers that may be reserved at one time.",
           static_cast<double>(sources.buffers->limit()), families);
}

void AddKept(const ServiceSources::Kept& kept, Families* families) {
  AddGauge("qkscope_kept_results",
           "Results in the spool. Absent without a spool.",
           static_cast<double>(kept.results), families);
  AddGauge("qkscope_kept_results_limit",
           "Results that the spool may hold. Absent without a spool.",
           static_cast<double>(kept.max_results), families);
  AddGauge("qkscope_kept_bytes",
           "Bytes of results in the spool, or reserved there for requests that "
           "have not ended. Absent without a spool.",
           static_cast<double>(kept.bytes), families);
  AddGauge("qkscope_kept_limit_bytes",
           "Bytes that the spool may hold. Absent without a spool.",
           static_cast<double>(kept.max_bytes), families);
}

}  // namespace

Families ServiceMetrics(const ServiceSources& sources,
                        const std::optional<SchedulerLoad>& load) {
  Families families;
  if (sources.state != nullptr) AddState(sources.state(), &families);
  if (load.has_value()) AddQueue(*load, &families);
  AddStreams(sources, &families);
  if (sources.kept != nullptr) AddKept(sources.kept(), &families);
  if (sources.connections != nullptr) {
    AddGauge("qkscope_connections",
             "Open connections of clients to the gRPC port.",
             static_cast<double>(sources.connections()), &families);
  }
  if (sources.connections_cut != nullptr) {
    families.push_back(
        OneCounter("qkscope_connections_cut_total",
                   "Connections that were cut because of what they cost.",
                   static_cast<double>(sources.connections_cut())));
  }
  if (sources.certificate_expiry != nullptr) {
    AddGauge(
        "qkscope_tls_certificate_expiry_timestamp_seconds",
        "When the certificate expires that new connections get, as Unix "
        "time in seconds. Absent without TLS.",
        absl::ToDoubleSeconds(sources.certificate_expiry() - absl::UnixEpoch()),
        &families);
  }
  if (sources.log_dropped != nullptr) {
    families.push_back(OneCounter("qkscope_log_dropped_total",
                                  "Lines of the log that could not be written.",
                                  static_cast<double>(sources.log_dropped())));
  }
  return families;
}

}  // namespace qk
