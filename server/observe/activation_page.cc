#include "server/observe/activation_page.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace qk {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

struct MatrixLabels {
  const char* tensor;
  const char* rope;
};
// In the order of ActivationMatrix.
constexpr MatrixLabels kMatrixLabels[kActivationMatrices] = {{"q", "after"},
                                                             {"k", "after"},
                                                             {"v", "none"},
                                                             {"q", "before"},
                                                             {"k", "before"}};
constexpr const char* kArmLabels[kArmKinds] = {"clean", "disrupted", "control"};
constexpr const char* kSourceLabels[kActivationSources] = {"analyze", "score",
                                                           "generate"};

// The families in the order of the page.
enum Family {
  kLeftOut,
  kDropped,
  kSamples,
  kAge,
  kMassive,
  kRatio,
  kMax,
  kLowFrequency,
  kTopDim,
  kNonFinite,
  kDrift,
  kBaselinePrompts,
  kMemory,
  kMassiveHistogram,
  kRatioHistogram,
  kFamilies,
};

struct Description {
  const char* name;
  const char* help;
  MetricType type;
};

constexpr Description kDescriptions[kFamilies] = {
    {"qkscope_activation_left_out_series",
     "Series that this page leaves out because of its limit.",
     MetricType::Gauge},
    {"qkscope_activation_dropped_samples_total",
     "Prompts that were to be measured, and were not, because too many waited.",
     MetricType::Counter},
    {"qkscope_activation_samples_total",
     "Prompts whose activations were measured.", MetricType::Counter},
    {"qkscope_activation_age_seconds",
     "Time since the last matrix of norms was measured, seconds.",
     MetricType::Gauge},
    {"qkscope_activation_massive_entries",
     "Entries (head, dim) above 5 times the mean of their head, in the norms "
     "over the tokens of the last prompt.",
     MetricType::Gauge},
    {"qkscope_activation_max_mean_ratio",
     "Largest ratio of an entry to the mean of its head, last prompt.",
     MetricType::Gauge},
    {"qkscope_activation_max_norm", "Largest entry, last prompt.",
     MetricType::Gauge},
    {"qkscope_activation_low_frequency_ratio",
     "Part of the massive entries whose RoPE frequency is in the lower half, "
     "last prompt.",
     MetricType::Gauge},
    {"qkscope_activation_top_dim_ratio",
     "Part of the massive entries that lie in the dim that has most of them, "
     "last prompt.",
     MetricType::Gauge},
    {"qkscope_activation_non_finite_values",
     "Entries that are NaN or infinite, last prompt. The other gauges are of "
     "the finite ones.",
     MetricType::Gauge},
    {"qkscope_activation_drift_ratio",
     "1 - cosine of the norms over the means of their heads, of the last "
     "undisrupted prompt and of the baseline.",
     MetricType::Gauge},
    {"qkscope_activation_baseline_prompts",
     "Prompts that the model's baseline is the mean of.", MetricType::Gauge},
    {"qkscope_activation_memory_bytes",
     "Memory of the mean over the model's prompts and of its baseline, bytes.",
     MetricType::Gauge},
    {"qkscope_activation_matrix_massive_entries",
     "Massive entries of a matrix of norms, over all layers and prompts.",
     MetricType::Histogram},
    {"qkscope_activation_matrix_max_mean_ratio",
     "Largest ratio of an entry to the mean of its head of a matrix of norms, "
     "over all layers and prompts.",
     MetricType::Histogram},
};

template <typename Enum>
Enum At(int index) {
  return static_cast<Enum>(index);
}

ClientMetric GaugeOf(Labels labels, double value) {
  ClientMetric out;
  out.label = std::move(labels);
  out.gauge.value = value;
  return out;
}

class Page {
 public:
  Page(int64_t max_series, int64_t dropped)
      : left_(max_series - 2) {  // kLeftOut and kDropped
    for (int i = 0; i < kFamilies; ++i) {
      families_[i].name = kDescriptions[i].name;
      families_[i].help = kDescriptions[i].help;
      families_[i].type = kDescriptions[i].type;
    }
    families_[kDropped].metric.emplace_back().counter.value =
        static_cast<double>(dropped);
  }

  void AddCounts(const ActivationTotals& totals) {
    if (!Take(kActivationSources + 1)) return;
    for (int i = 0; i < kActivationSources; ++i) {
      ClientMetric& metric = families_[kSamples].metric.emplace_back();
      metric.label = {{"model", totals.label()}, {"source", kSourceLabels[i]}};
      metric.counter.value =
          static_cast<double>(totals.samples(At<ActivationSource>(i)));
    }
    if (const std::optional<absl::Duration> age = totals.age()) {
      Add(kAge, {{"model", totals.label()}}, absl::ToDoubleSeconds(*age));
    }
  }

  void AddModel(const ActivationModel& model) {
    if (!Take(2)) return;
    const Labels labels = {{"model", model.totals().label()}};
    Add(kMemory, labels, static_cast<double>(model.pattern_bytes()));
    const auto baseline = model.baseline();
    if (baseline == nullptr) return;
    Add(kBaselinePrompts, labels,
        static_cast<double>(baseline->patterns.prompts()));
  }

  void AddHistograms(const ActivationTotals& totals) {
    for (int arm = 0; arm < kArmKinds; ++arm) {
      for (int matrix = 0; matrix < kActivationMatrices; ++matrix) {
        auto histograms =
            totals.Collect(At<ActivationMatrix>(matrix), At<ArmKind>(arm));
        if (!histograms.has_value()) continue;
        const Labels labels = LabelsOf(totals, matrix, arm);
        AddHistogram(kMassiveHistogram, labels, std::move(histograms->massive));
        AddHistogram(kRatioHistogram, labels, std::move(histograms->ratio));
      }
    }
  }

  void AddLayers(const ActivationModel& model) {
    for (int arm = 0; arm < kArmKinds; ++arm) {
      for (int matrix = 0; matrix < kActivationMatrices; ++matrix) {
        const auto gauges =
            model.Gauges(At<ActivationMatrix>(matrix), At<ArmKind>(arm));
        for (int layer = 0; layer < model.num_layers(); ++layer) {
          if (!gauges[static_cast<size_t>(layer)].has_value()) continue;
          Labels labels = LabelsOf(model.totals(), matrix, arm);
          labels.insert(labels.begin() + 1, {"layer", absl::StrCat(layer)});
          AddGauges(std::move(labels), *gauges[static_cast<size_t>(layer)]);
        }
      }
    }
  }

  std::vector<MetricFamily> Finish() {
    Add(kLeftOut, {}, static_cast<double>(left_out_));
    std::vector<MetricFamily> out;
    for (MetricFamily& family : families_) {
      if (!family.metric.empty()) out.push_back(std::move(family));
    }
    return out;
  }

 private:
  static Labels LabelsOf(const ActivationTotals& totals, int matrix, int arm) {
    return {{"model", totals.label()},
            {"tensor", kMatrixLabels[matrix].tensor},
            {"rope", kMatrixLabels[matrix].rope},
            {"arm", kArmLabels[arm]}};
  }

  // Takes room for series; what comes after something that did not fit never
  // fits.
  bool Take(int64_t series) {
    if (series > left_) {
      left_ = 0;
      left_out_ += series;
      return false;
    }
    left_ -= series;
    return true;
  }

  void Add(Family family, Labels labels, double value) {
    families_[family].metric.push_back(GaugeOf(std::move(labels), value));
  }

  void AddHistogram(Family family, const Labels& labels, ClientMetric metric) {
    // Sum and count come with the buckets.
    if (!Take(static_cast<int64_t>(metric.histogram.bucket.size()) + 2)) return;
    metric.label = labels;
    families_[family].metric.push_back(std::move(metric));
  }

  void AddGauges(Labels labels, const ActivationGauges& gauges) {
    const std::pair<Family, std::optional<double>> values[] = {
        {kMassive, gauges.massive},
        {kRatio, gauges.ratio},
        {kMax, gauges.max},
        {kLowFrequency, gauges.low_frequency},
        {kTopDim, gauges.top_dim},
        {kNonFinite, static_cast<double>(gauges.non_finite)},
    };
    const auto set = std::count_if(
        std::begin(values), std::end(values),
        [](const auto& value) { return value.second.has_value(); });
    if (!Take(set + (gauges.drift.has_value() ? 1 : 0))) return;
    for (const auto& [family, value] : values) {
      if (value.has_value()) Add(family, labels, *value);
    }
    if (!gauges.drift.has_value()) return;
    labels.pop_back();  // only undisrupted arms have it
    Add(kDrift, std::move(labels), *gauges.drift);
  }

  int64_t left_;
  int64_t left_out_ = 0;
  MetricFamily families_[kFamilies];
};

}  // namespace

std::vector<MetricFamily> ActivationPage(const ActivationPageContent& content,
                                         int64_t max_series) {
  Page page(max_series, content.dropped);
  const auto is_shown = [&](const auto& known) {
    return std::any_of(
        content.by_layer.begin(), content.by_layer.end(),
        [&](const auto& model) { return &model->totals() == known.get(); });
  };
  for (const auto& known : content.totals) page.AddCounts(*known);
  for (const auto& model : content.loaded) page.AddModel(*model);
  for (const auto& model : content.by_layer) {
    page.AddHistograms(model->totals());
  }
  for (const auto& model : content.by_layer) page.AddLayers(*model);
  for (const auto& known : content.totals) {
    if (!is_shown(known)) page.AddHistograms(*known);
  }
  return page.Finish();
}

}  // namespace qk
