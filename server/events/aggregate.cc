#include "server/events/aggregate.h"

#include <bit>
#include <cstring>

#include "server/convert/convert_enums.h"
#include "server/convert/convert_fields.h"

namespace qk {
namespace {

// Little-endian payloads are copied without conversion.
static_assert(std::endian::native == std::endian::little);

std::vector<float> Floats(const std::string& data) {
  std::vector<float> out(data.size() / sizeof(float));
  std::memcpy(out.data(), data.data(), out.size() * sizeof(float));
  return out;
}

std::string Bytes(const std::vector<double>& values, double divisor) {
  std::string out(values.size() * sizeof(float), '\0');
  for (size_t i = 0; i < values.size(); ++i) {
    const float value = static_cast<float>(values[i] / divisor);
    std::memcpy(out.data() + i * sizeof(float), &value, sizeof(float));
  }
  return out;
}

}  // namespace

void RunningMoments::Add(double value) {
  ++count;
  const double difference = value - mean;
  mean += difference / static_cast<double>(count);
  squares += difference * (value - mean);
}

pb::Moments RunningMoments::ToProto() const {
  pb::Moments out;
  out.set_count(count);
  out.set_mean(mean);
  out.set_variance(count == 0 ? 0 : squares / static_cast<double>(count));
  return out;
}

void Aggregator::Add(const std::vector<LayerFrame>& frames) {
  for (const LayerFrame& frame : frames) {
    Entry& entry = entries_[{
        frame.arm, static_cast<int>(frame.phase), frame.image >= 0, frame.layer,
        static_cast<int>(frame.point), static_cast<int>(frame.stage)}];
    const std::vector<float> norms = Floats(frame.data);
    entry.shape = frame.shape;
    entry.group_size = frame.group_size;
    entry.mean.resize(norms.size());
    entry.squares.resize(norms.size());
    ++entry.count;
    for (size_t i = 0; i < norms.size(); ++i) {
      const double difference = norms[i] - entry.mean[i];
      entry.mean[i] += difference / static_cast<double>(entry.count);
      entry.squares[i] += difference * (norms[i] - entry.mean[i]);
    }
    if (!frame.statistics.has_value()) continue;
    entry.non_finite_count += frame.statistics->non_finite_count;
    entry.massive_count.Add(frame.statistics->massive_count);
    entry.ratio.Add(frame.statistics->ratio);
    entry.max.Add(frame.statistics->max);
    if (frame.statistics->low_frequency_share.has_value()) {
      entry.low_frequency_share.Add(*frame.statistics->low_frequency_share);
    }
  }
}

std::vector<pb::Aggregate> Aggregator::ToProto(const pb::AnalyzeRequest& spec,
                                               int64_t max_bytes) const {
  std::vector<pb::Aggregate> out(1);
  int64_t bytes = 0;
  for (const auto& [key, entry] : entries_) {
    pb::AggregateEntry message;
    message.set_arm(spec.arms(key.arm).name());
    message.set_phase(static_cast<pb::Phase>(key.phase));
    message.set_vision(key.vision);
    message.set_layer(key.layer);
    message.set_point(static_cast<pb::HookPoint>(
        EnumNumber(static_cast<HookPoint>(key.point), kHookPointTable)));
    message.set_stage(static_cast<pb::Stage>(key.stage));
    message.set_count(entry.count);
    message.mutable_shape()->Assign(entry.shape.begin(), entry.shape.end());
    message.set_group_size(entry.group_size);
    message.set_mean(Bytes(entry.mean, 1));
    message.set_variance(
        Bytes(entry.squares, static_cast<double>(entry.count)));
    message.set_non_finite_count(entry.non_finite_count);
    *message.mutable_massive_count() = entry.massive_count.ToProto();
    *message.mutable_ratio() = entry.ratio.ToProto();
    *message.mutable_max() = entry.max.ToProto();
    *message.mutable_low_frequency_share() =
        entry.low_frequency_share.ToProto();
    const int64_t size = static_cast<int64_t>(message.ByteSizeLong());
    if (bytes > 0 && bytes + size > max_bytes) {
      out.emplace_back();
      bytes = 0;
    }
    bytes += size;
    *out.back().add_entries() = std::move(message);
  }
  return out;
}

}  // namespace qk
