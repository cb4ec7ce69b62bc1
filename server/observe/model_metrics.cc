#include "server/observe/model_metrics.h"

#include <utility>

namespace qk {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

}  // namespace

ModelMetrics::ModelMetrics(prometheus::Registry* registry)
    : passes_(AddCounters(registry, "qkscope_passes_total",
                          "Forward passes of the model that ended, failed ones "
                          "included.")),
      failed_passes_(AddCounters(registry, "qkscope_failed_passes_total",
                                 "Forward passes of the model that failed.")),
      rows_(AddCounters(registry, "qkscope_pass_rows_total",
                        "Rows (tokens of all sequences) of the model's "
                        "passes.")),
      pass_seconds_(AddCounters(registry, "qkscope_pass_seconds_total",
                                "The device's time in the model's passes, in "
                                "seconds.")),
      prompt_tokens_(AddCounters(registry, "qkscope_prompt_tokens_total",
                                 "Tokens of the prompts, and of what Score "
                                 "scores, of the model's requests that ran; "
                                 "counted when a request ends, once for all "
                                 "its arms.")),
      generated_tokens_(AddCounters(
          registry, "qkscope_generated_tokens_total",
          "Tokens that the model's requests generated, in all arms; counted "
          "when a request ends.")),
      non_finite_(AddCounters(
          registry, "qkscope_activation_non_finite_total",
          "Values that are NaN or infinite, of all matrices of norms.")) {}

const ModelMetrics::Series* ModelMetrics::SeriesOf(const std::string& label) {
  const auto [it, inserted] = series_.try_emplace(label);
  if (inserted) {
    const prometheus::Labels labels = {{"model", label}};
    it->second = {label,
                  &passes_.Add(labels),
                  &failed_passes_.Add(labels),
                  &rows_.Add(labels),
                  &pass_seconds_.Add(labels),
                  &prompt_tokens_.Add(labels),
                  &generated_tokens_.Add(labels),
                  &non_finite_.Add(labels)};
  }
  return &it->second;
}

void ModelMetrics::Add(const std::string& name) {
  MutexLock lock(&mutex_);
  if (names_.contains(name)) return;
  const Series* series = SeriesOf(names_.size() < kMaxModels ? name : kOther);
  names_[name].series = series;
}

void ModelMetrics::Loaded(const std::string& name,
                          const std::shared_ptr<const Model>& model,
                          const ModelCost& cost, KvReader read_kv) {
  MutexLock lock(&mutex_);
  std::erase_if(living_,
                [](const auto& entry) { return entry.second.model.expired(); });
  Named& named = names_.at(name);
  named.ready = true;
  named.cost = cost;
  living_[model.get()] = {model, named.series, read_kv};
  if (named.series->label == kOther) last_of_other_ = name;
}

void ModelMetrics::Unloaded(const std::string& name) {
  MutexLock lock(&mutex_);
  const auto it = names_.find(name);
  if (it != names_.end()) it->second.ready = false;
}

const ModelMetrics::Series* ModelMetrics::Find(const std::string& name) const {
  MutexLock lock(&mutex_);
  const auto it = names_.find(name);
  return it == names_.end() ? nullptr : it->second.series;
}

void ModelMetrics::CountTokens(const std::string& name, int64_t prompt,
                               int64_t generated) {
  const Series* series = Find(name);
  if (series == nullptr) return;
  series->prompt_tokens->Increment(static_cast<double>(prompt));
  series->generated_tokens->Increment(static_cast<double>(generated));
}

void ModelMetrics::CountNonFinite(const std::string& name, int64_t values) {
  const Series* series = Find(name);
  if (series == nullptr) return;
  series->non_finite->Increment(static_cast<double>(values));
}

void ModelMetrics::Observe(const PassReport& pass) {
  const Series* series = nullptr;
  {
    MutexLock lock(&mutex_);
    const auto it = living_.find(pass.model);
    // A model that is being loaded is warmed up by a pass that does not count;
    // it may lie where another one was.
    if (it == living_.end() || it->second.model.expired()) return;
    series = it->second.series;
  }
  series->passes->Increment();
  if (!pass.status.ok()) series->failed_passes->Increment();
  series->rows->Increment(pass.rows);
  series->pass_seconds->Increment(pass.seconds);
}

std::map<std::string, ModelMetrics::Sum> ModelMetrics::SumByLabel() const {
  std::map<std::string, Sum> sums;
  // These are read, and perhaps destroyed, without the lock.
  std::vector<std::pair<std::shared_ptr<const Model>, Living>> living;
  {
    MutexLock lock(&mutex_);
    for (const auto& [name, named] : names_) {
      const std::string& label = named.series->label;
      Sum& sum = sums[label];
      if (label != kOther || name == last_of_other_) {
        sum.load_seconds = named.cost.load_seconds;
      }
      if (!named.ready) continue;
      sum.ready = true;
      sum.host_bytes += named.cost.host_bytes;
      sum.device_bytes += named.cost.device_bytes;
    }
    living.reserve(living_.size());
    for (const auto& [pointer, entry] : living_) {
      living.emplace_back(entry.model.lock(), entry);
    }
  }
  for (const auto& [model, entry] : living) {
    if (model == nullptr || entry.read_kv == nullptr) continue;
    const KvUse use = entry.read_kv(*model);
    KvUse& kv = sums[entry.series->label].kv;
    kv.used_bytes += use.used_bytes;
    kv.limit_bytes += use.limit_bytes;
  }
  return sums;
}

std::vector<MetricFamily> ModelMetrics::Collect() const {
  const auto gauge = [](const char* name, const char* help) {
    return EmptyFamily(name, help, MetricType::Gauge);
  };
  MetricFamily ready =
      gauge("qkscope_model_ready",
            "1 while the model is ready to serve, else 0. The series of a "
            "model that was unloaded stays. For \"other\": whether any is.");
  MetricFamily load = gauge("qkscope_model_load_seconds",
                            "How long the model's last load took, in seconds; "
                            "0 before its first one has ended.");
  MetricFamily memory =
      gauge("qkscope_model_memory_bytes",
            "Memory of the weights and the workspace of the model that serves, "
            "in bytes: of the host, and of the device, which may be the same. "
            "0 once it is unloaded.");
  MetricFamily used =
      gauge("qkscope_kv_cache_used_bytes",
            "Bytes of the pages of the model's KV cache that requests hold.");
  MetricFamily limit = gauge("qkscope_kv_cache_limit_bytes",
                             "Bytes that the model's KV cache may grow to. 0 "
                             "once the model is unloaded and unused.");
  for (const auto& [label, sum] : SumByLabel()) {
    const std::vector<Label> labels = {{"model", label}};
    AddSample(labels, sum.ready ? 1 : 0, &ready);
    AddSample(labels, sum.load_seconds, &load);
    AddSample({{"memory", "host"}, {"model", label}},
              static_cast<double>(sum.host_bytes), &memory);
    AddSample({{"memory", "device"}, {"model", label}},
              static_cast<double>(sum.device_bytes), &memory);
    AddSample(labels, static_cast<double>(sum.kv.used_bytes), &used);
    AddSample(labels, static_cast<double>(sum.kv.limit_bytes), &limit);
  }
  return {std::move(ready), std::move(load), std::move(memory), std::move(used),
          std::move(limit)};
}

}  // namespace qk
