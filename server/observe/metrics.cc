#include "server/observe/metrics.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/common/grpc_status.h"
#include "server/observe/device_metrics.h"

namespace qk {
namespace {

using prometheus::Histogram;

// Number of models that get their own label.
constexpr size_t kMaxModels = 50;
constexpr char kOther[] = "other";

const Histogram::BucketBoundaries& RpcSeconds() {
  static const auto& buckets = *new Histogram::BucketBoundaries{
      0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600};
  return buckets;
}

const Histogram::BucketBoundaries& PassSeconds() {
  static const auto& buckets = *new Histogram::BucketBoundaries{
      0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10};
  return buckets;
}

const Histogram::BucketBoundaries& PowersOfFour() {
  static const auto& buckets =
      *new Histogram::BucketBoundaries{1, 4, 16, 64, 256, 1024, 4096};
  return buckets;
}

Histogram& OneHistogram(prometheus::Registry& registry, const char* name,
                        const char* help,
                        const Histogram::BucketBoundaries& buckets) {
  return prometheus::BuildHistogram()
      .Name(name)
      .Help(help)
      .Register(registry)
      .Add({}, buckets);
}

prometheus::MetricFamily OneCounter(const char* name, const char* help,
                                    double value) {
  prometheus::MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = prometheus::MetricType::Counter;
  family.metric.emplace_back().counter.value = value;
  return family;
}

const char* CancelName(CancelReason reason) {
  switch (reason) {
    case CancelReason::kClient:
      return "client";
    case CancelReason::kDeadline:
      return "deadline";
    case CancelReason::kStalled:
      return "stalled";
    case CancelReason::kShutdown:
      return "shutdown";
  }
  return kOther;
}

// The log counts by itself.
prometheus::MetricFamily LogDropped(int64_t lines) {
  prometheus::MetricFamily family;
  family.name = "qkscope_log_dropped_total";
  family.help = "Lines of the log that could not be written.";
  family.type = prometheus::MetricType::Counter;
  family.metric.emplace_back().counter.value = static_cast<double>(lines);
  return family;
}

}  // namespace

prometheus::Family<prometheus::Counter>& Metrics::Counter(const char* name,
                                                          const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry_);
}

prometheus::Family<prometheus::Gauge>& Metrics::Gauge(const char* name,
                                                      const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry_);
}

Metrics::Metrics(const Options& options)
    : options_(options),
      rpc_started_(Counter("qkscope_rpc_started_total",
                           "Calls that reached a handler.")),
      rpc_handled_(Counter("qkscope_rpc_handled_total", "Calls that ended.")),
      rpc_duration_(prometheus::BuildHistogram()
                        .Name("qkscope_rpc_duration_seconds")
                        .Help("Time from a call's start to its end, seconds.")
                        .Register(registry_)),
      refused_(Counter("qkscope_refused_total",
                       "Requests refused before they ran.")),
      cancelled_(Counter("qkscope_cancelled_total",
                         "Calls that ended before their work was done.")),
      queued_(
          Gauge("qkscope_queued_requests", "Requests waiting for the device.")
              .Add({})),
      running_(
          Gauge("qkscope_running_requests", "Requests that hold device memory.")
              .Add({})),
      buffered_(Gauge("qkscope_stream_buffered_bytes",
                      "Bytes of results waiting for readers.")
                    .Add({})),
      reserved_(Gauge("qkscope_stream_reserved_bytes",
                      "Bytes of buffers reserved for results.")
                    .Add({})),
      streamed_(Counter("qkscope_streamed_bytes_total",
                        "Bytes of results handed to gRPC, which users are "
                        "charged for.")
                    .Add({})),
      kept_results_(
          Gauge("qkscope_kept_results", "Results in the spool.").Add({})),
      kept_bytes_(Gauge("qkscope_kept_bytes",
                        "Bytes of results in the spool, or reserved there.")
                      .Add({})),
      spool_errors_(Counter("qkscope_spool_errors_total",
                            "Failures of the spool's folder and files.")
                        .Add({})),
      pass_rows_(OneHistogram(registry_, "qkscope_pass_rows", "Rows per pass.",
                              PowersOfFour())),
      pass_sequences_(OneHistogram(registry_, "qkscope_pass_sequences",
                                   "Sequences per pass.", PowersOfFour())),
      pass_duration_(OneHistogram(registry_, "qkscope_pass_duration_seconds",
                                  "Duration of a pass, seconds.",
                                  PassSeconds())),
      cancel_to_idle_(OneHistogram(
          registry_, "qkscope_cancel_to_idle_seconds",
          "Time from a request's cancellation until its memory is free, "
          "seconds.",
          PassSeconds())) {
  Gauge("qkscope_build_info", "Always 1; the version is a label.")
      .Add({{"version", options.version}})
      .Set(1);
  if (!options.replica.empty()) {
    Gauge("qkscope_replica_info", "Always 1; the replica's name is a label.")
        .Add({{"replica", options.replica}})
        .Set(1);
  }
  for (const std::string& method : options.methods) {
    rpc_started_.Add({{"method", method}});
    rpc_handled_.Add({{"method", method}, {"code", "OK"}});
    rpc_duration_.Add({{"method", method}}, RpcSeconds());
  }
  for (int i = 0; i <= static_cast<int>(Refusal::kUserBudget); ++i) {
    refused_.Add({{"reason", RefusalName(static_cast<Refusal>(i))}});
  }
  for (int i = 0; i <= static_cast<int>(CancelReason::kShutdown); ++i) {
    cancelled_.Add({{"reason", CancelName(static_cast<CancelReason>(i))}});
  }
}

void Metrics::AddModel(const std::string& name) {
  MutexLock lock(&mutex_);
  const auto known = models_.find(name);
  const std::string label = known != models_.end()        ? known->second.label
                            : models_.size() < kMaxModels ? name
                                                          : kOther;
  const prometheus::Labels labels = {{"model", label}};
  ModelMetrics m;
  m.passes = &Counter("qkscope_passes_total", "Forward passes.").Add(labels);
  m.failed_passes =
      &Counter("qkscope_failed_passes_total", "Forward passes that failed.")
           .Add(labels);
  m.rows =
      &Counter("qkscope_pass_rows_total", "Rows of all passes.").Add(labels);
  m.pass_seconds =
      &Counter("qkscope_pass_seconds_total", "Time in all passes, seconds.")
           .Add(labels);
  m.prompt_tokens =
      &Counter("qkscope_prompt_tokens_total", "Prompt tokens of requests.")
           .Add(labels);
  m.generated_tokens =
      &Counter("qkscope_generated_tokens_total", "Generated tokens.")
           .Add(labels);
  m.ready =
      &Gauge("qkscope_model_ready", "1 if the model is ready to serve, else 0.")
           .Add(labels);
  m.non_finite =
      &Counter("qkscope_activation_non_finite_total",
               "Values that are NaN or infinite, of all matrices of norms.")
           .Add(labels);
  m.label = label;
  models_[name] = m;
}

void Metrics::ModelLoaded(const std::string& name,
                          const std::shared_ptr<const Model>& model,
                          const ModelCost& cost) {
  MutexLock lock(&mutex_);
  std::erase_if(names_,
                [](const auto& named) { return named.second.model.expired(); });
  names_[model.get()] = {model, name};
  const ModelMetrics& m = models_.at(name);
  m.ready->Set(1);
  // The label "other" shows the model that was loaded last.
  Gauge("qkscope_model_load_seconds", "Time to load the model, seconds.")
      .Add({{"model", m.label}})
      .Set(cost.load_seconds);
  SetMemory(m.label, static_cast<double>(cost.host_bytes),
            static_cast<double>(cost.device_bytes));
}

void Metrics::ModelUnloaded(const std::string& name) {
  MutexLock lock(&mutex_);
  const auto it = models_.find(name);
  if (it == models_.end() || it->second.label != name) return;
  it->second.ready->Set(0);
  SetMemory(name, 0, 0);
}

void Metrics::SetMemory(const std::string& label, double host, double device) {
  auto& memory = Gauge("qkscope_model_memory_bytes",
                       "Memory of the model's weights and workspace, bytes.");
  memory.Add({{"model", label}, {"memory", "host"}}).Set(host);
  memory.Add({{"model", label}, {"memory", "device"}}).Set(device);
}

std::optional<Metrics::ModelMetrics> Metrics::Find(
    const std::string& model) const {
  MutexLock lock(&mutex_);
  const auto it = models_.find(model);
  if (it == models_.end()) return std::nullopt;
  return it->second;
}

void Metrics::RpcStarted(const std::string& method) {
  rpc_started_.Add({{"method", method}}).Increment();
}

void Metrics::RpcHandled(const std::string& method, grpc::StatusCode code,
                         double seconds) {
  rpc_handled_.Add({{"method", method}, {"code", CodeName(code)}}).Increment();
  rpc_duration_.Add({{"method", method}}, RpcSeconds()).Observe(seconds);
}

void Metrics::CountRefusal(Refusal reason) {
  refused_.Add({{"reason", RefusalName(reason)}}).Increment();
}

void Metrics::CountCancelled(CancelReason reason) {
  cancelled_.Add({{"reason", CancelName(reason)}}).Increment();
}

void Metrics::CountTokens(const std::string& model, int64_t prompt,
                          int64_t generated) {
  const std::optional<ModelMetrics> m = Find(model);
  if (!m.has_value()) return;
  m->prompt_tokens->Increment(static_cast<double>(prompt));
  m->generated_tokens->Increment(static_cast<double>(generated));
}

void Metrics::CountStreamedBytes(int64_t bytes) {
  streamed_.Increment(static_cast<double>(bytes));
}

void Metrics::CountSpoolError() { spool_errors_.Increment(); }

void Metrics::CountNonFinite(const std::string& model, int64_t values) {
  const std::optional<ModelMetrics> m = Find(model);
  if (m.has_value()) m->non_finite->Increment(static_cast<double>(values));
}

void Metrics::OnPass(const Model& model, int rows, int sequences,
                     double seconds, const absl::Status& status) {
  pass_rows_.Observe(rows);
  pass_sequences_.Observe(sequences);
  pass_duration_.Observe(seconds);
  std::string name;
  {
    MutexLock lock(&mutex_);
    const auto it = names_.find(&model);
    if (it != names_.end()) name = it->second.name;
  }
  const std::optional<ModelMetrics> m = Find(name);
  if (!m.has_value()) return;
  m->passes->Increment();
  if (!status.ok()) m->failed_passes->Increment();
  m->rows->Increment(rows);
  m->pass_seconds->Increment(seconds);
}

void Metrics::OnQueue(int waiting_requests, int running_requests) {
  queued_.Set(waiting_requests);
  running_.Set(running_requests);
}

void Metrics::OnCancelled(double seconds) { cancel_to_idle_.Observe(seconds); }

std::vector<prometheus::MetricFamily> Metrics::Collect() const {
  if (options_.buffered != nullptr) {
    buffered_.Set(static_cast<double>(options_.buffered->load()));
  }
  if (options_.buffers != nullptr) {
    reserved_.Set(static_cast<double>(options_.buffers->taken()));
  }
  if (options_.read_kept != nullptr) {
    const Kept kept = options_.read_kept();
    kept_results_.Set(static_cast<double>(kept.results));
    kept_bytes_.Set(static_cast<double>(kept.bytes));
  }
  std::vector<prometheus::MetricFamily> all = registry_.Collect();
  if (options_.log_dropped != nullptr) {
    all.push_back(LogDropped(options_.log_dropped()));
  }
  if (options_.read_device != nullptr) {
    for (prometheus::MetricFamily& family :
         DeviceMetrics(options_.read_device(), options_.device)) {
      all.push_back(std::move(family));
    }
  }
  if (options_.connections_cut != nullptr) {
    all.push_back(
        OneCounter("qkscope_connections_cut_total",
                   "Connections that were cut because of what they cost.",
                   static_cast<double>(options_.connections_cut())));
  }
  return all;
}

}  // namespace qk
