#include "server/observe/metrics.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/monotonic.h"
#include "server/observe/device_metrics.h"

namespace qk {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

// The label of a tensor whose massive entries the paper counts; nullptr for
// other points.
const char* TensorLabel(HookPoint point) {
  switch (point) {
    case HookPoint::kRotQ:
      return "q";
    case HookPoint::kRotK:
      return "k";
    case HookPoint::kV:
      return "v";
    default:
      return nullptr;
  }
}

MetricFamily BuildInfo(const std::string& version, const std::string& backend) {
  MetricFamily family = EmptyFamily(
      "qkscope_build_info",
      "Always 1; the version of the server and the device's backend are "
      "labels.",
      MetricType::Gauge);
  AddSample({{"backend", backend}, {"version", version}}, 1, &family);
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
                    .Add({})),
      massive_entries_(
          AddCounters(&registry_, "qkscope_massive_entries_total",
                      "Massive entries in the norms of undisrupted prompts.")),
      massive_ratio_(AddCounters(
          &registry_, "qkscope_massive_ratio_total",
          "Sum over matrices of norms of the largest ratio of an entry "
          "to its head's mean.")),
      massive_frames_(AddCounters(
          &registry_, "qkscope_massive_frames_total",
          "Matrices of norms counted by the other massive_ counters.")) {}

void Metrics::AddModel(const std::string& name, int num_layers) {
  models_.Add(name);
  MutexLock lock(&mutex_);
  // A model that is loaded again under its name reuses its series.
  const int had = series_of_model_[name];
  const int series = std::max(had, 3 * num_layers);  // q, k, v
  const bool fits = models_.LabelOf(name) == name &&
                    layer_series_ - had + series <= options_.max_layer_series;
  series_of_model_[name] = fits ? series : 0;
  layer_series_ += series_of_model_[name] - had;
}

void Metrics::CountStreamedBytes(int64_t bytes) {
  streamed_.Increment(static_cast<double>(bytes));
}

void Metrics::AddLayerStatistics(const std::string& model,
                                 const LayerFrame& frame) {
  const char* tensor = TensorLabel(frame.point);
  if (tensor == nullptr || !frame.statistics.has_value()) return;
  // A sum with NaN in it would stay NaN.
  if (!std::isfinite(frame.statistics->ratio)) return;
  bool by_layer = false;
  {
    MutexLock lock(&mutex_);
    const auto it = series_of_model_.find(model);
    if (it == series_of_model_.end()) return;
    by_layer = it->second > 0;
  }
  const prometheus::Labels labels = {
      {"model", by_layer ? model : kOther},
      {"layer", by_layer ? absl::StrCat(frame.layer) : "all"},
      {"tensor", tensor}};
  massive_entries_.Add(labels).Increment(frame.statistics->massive_count);
  massive_ratio_.Add(labels).Increment(frame.statistics->ratio);
  massive_frames_.Add(labels).Increment();
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
