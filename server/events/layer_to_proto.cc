#include "server/convert/convert_enums.h"
#include "server/convert/convert_fields.h"
#include "server/events/event_encoder.h"

namespace qk {
namespace {

pb::MassiveEntry EntryToProto(const MassiveEntry& entry) {
  pb::MassiveEntry out;
  out.set_head(entry.head);
  out.set_dim(entry.dim);
  out.set_norm(entry.norm);
  out.set_ratio(entry.ratio);
  if (entry.wavelength.has_value()) out.set_wavelength(*entry.wavelength);
  return out;
}

// Copies the frame's heads: query heads, or the KV heads that serve them. The
// field stays empty if all heads are captured.
void SetHeads(const LayerFrame& frame, const pb::Capture& capture,
              pb::Layer* out) {
  if (capture.heads().empty() || frame.image >= 0) return;
  for (int head : frame.heads) out->add_heads(head);
}

}  // namespace

pb::Statistics StatisticsToProto(const Statistics& statistics) {
  pb::Statistics out;
  out.set_massive_count(statistics.massive_count);
  out.set_ratio(statistics.ratio);
  out.set_max(statistics.max);
  if (statistics.top_dim.has_value()) out.set_top_dim(*statistics.top_dim);
  if (statistics.top_dim_share.has_value()) {
    out.set_top_dim_share(*statistics.top_dim_share);
  }
  if (statistics.low_frequency_share.has_value()) {
    out.set_low_frequency_share(*statistics.low_frequency_share);
  }
  out.set_non_finite_count(statistics.non_finite_count);
  for (const MassiveEntry& entry : statistics.top) {
    *out.add_top() = EntryToProto(entry);
  }
  *out.mutable_largest() = EntryToProto(statistics.largest);
  return out;
}

pb::Layer LayerToProto(const LayerFrame& frame,
                       const pb::AnalyzeRequest& spec) {
  pb::Layer out;
  out.set_arm(spec.arms(frame.arm).name());
  out.set_layer(frame.layer);
  out.set_point(
      static_cast<pb::HookPoint>(EnumNumber(frame.point, kHookPointTable)));
  out.set_stage(static_cast<pb::Stage>(frame.stage));
  out.set_phase(static_cast<pb::Phase>(frame.phase));
  out.set_no_rope(frame.no_rope);
  if (frame.step >= 0) out.set_step(frame.step);
  if (frame.image >= 0) {
    out.set_image(frame.image);
  } else if (frame.position >= 0) {
    out.add_positions(frame.position);
  } else if (frame.phase == Phase::kPrefill) {
    *out.mutable_positions() = spec.capture().positions();
  }
  SetHeads(frame, spec.capture(), &out);
  out.set_group_size(frame.group_size);
  out.mutable_shape()->Assign(frame.shape.begin(), frame.shape.end());
  out.set_dtype(
      static_cast<pb::RawDtype>(EnumNumber(frame.dtype, kRawDtypeTable)));
  out.set_form(
      static_cast<pb::CaptureForm>(EnumNumber(frame.form, kFormTable)));
  out.set_total_bytes(static_cast<int64_t>(frame.data.size()));
  if (frame.statistics.has_value()) {
    *out.mutable_statistics() = StatisticsToProto(*frame.statistics);
  }
  return out;
}

}  // namespace qk
