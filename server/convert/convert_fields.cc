#include "server/convert/convert_fields.h"

#include <algorithm>

#include "absl/strings/cord.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "engine/base/check.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/unknown_field_set.h"

namespace qk {

absl::Status WithMessage(const absl::Status& status,
                         absl::string_view message) {
  absl::Status out(status.code(), message);
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    out.SetPayload(url, payload);
  });
  return out;
}

absl::Status PrefixField(absl::string_view field, const absl::Status& status,
                         absl::string_view joint) {
  return WithMessage(status, absl::StrCat(field, joint, status.message()));
}

absl::Status MovePath(const absl::Status& status, absl::string_view from,
                      absl::string_view to) {
  absl::string_view rest = status.message();
  if (!absl::ConsumePrefix(&rest, from) || rest.empty() ||
      absl::string_view(".[:").find(rest[0]) == absl::string_view::npos) {
    return status;
  }
  return WithMessage(status, absl::StrCat(to, rest));
}

absl::Status CheckCount(absl::string_view field, int64_t count, int64_t limit) {
  if (count <= limit) return absl::OkStatus();
  return BadField(field, absl::StrFormat("got %d, limit %d", count, limit));
}

absl::Status CheckPositive(absl::string_view field, double value) {
  if (std::isfinite(value) && value > 0) return absl::OkStatus();
  return BadField(field,
                  absl::StrFormat("must be finite and > 0, got %g", value));
}

absl::Status CheckFinite(absl::string_view field, double value) {
  if (std::isfinite(value)) return absl::OkStatus();
  return BadField(field, absl::StrFormat("must be finite, got %g", value));
}

absl::StatusOr<std::vector<int>> ConvertIndices(
    absl::string_view field,
    const google::protobuf::RepeatedField<int32_t>& values, int size,
    int64_t limit, absl::StatusCode outside) {
  QK_RETURN_IF_ERROR(CheckCount(field, values.size(), limit));
  std::vector<bool> seen(static_cast<size_t>(size), false);
  for (int i = 0; i < values.size(); ++i) {
    const int value = values[i];
    if (value < 0 || value >= size) {
      return absl::Status(
          outside, absl::StrFormat("%s[%d]: %d is outside [0, %d)", field, i,
                                   value, size));
    }
    if (seen[value]) {
      return BadField(absl::StrFormat("%s[%d]", field, i),
                      absl::StrFormat("%d is given twice", value));
    }
    seen[value] = true;
  }
  std::vector<int> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  return sorted;
}

absl::StatusOr<std::vector<int>> ConvertLayers(
    absl::string_view field,
    const google::protobuf::RepeatedField<int32_t>& values,
    const ModelConfig& config, int64_t limit, absl::StatusCode outside) {
  QK_ASSIGN_OR_RETURN(
      std::vector<int> layers,
      ConvertIndices(field, values, config.num_layers(), limit, outside));
  for (int i = 0; i < values.size(); ++i) {
    if (!config.has_attention(values[i])) {
      return BadField(
          absl::StrFormat("%s[%d]", field, i),
          absl::StrFormat("layer %d has no attention (see GetModel)",
                          values[i]));
    }
  }
  for (int layer = 0; values.empty() && layer < config.num_layers(); ++layer) {
    if (config.has_attention(layer)) layers.push_back(layer);
  }
  return layers;
}

absl::Status CheckNoUnknownFields(const google::protobuf::Message& message,
                                  const std::string& path) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  const auto& unknown = reflection.GetUnknownFields(message);
  if (unknown.field_count() > 0) {
    return BadField(path.empty() ? message.GetDescriptor()->name() : path,
                    absl::StrFormat("unknown field %d (strict is set)",
                                    unknown.field(0).number()));
  }
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const auto* field : fields) {
    if (field->cpp_type() !=
        google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) {
      continue;
    }
    const std::string inner =
        absl::StrCat(path, path.empty() ? "" : ".", field->name());
    if (!field->is_repeated()) {
      QK_RETURN_IF_ERROR(
          CheckNoUnknownFields(reflection.GetMessage(message, field), inner));
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
      QK_RETURN_IF_ERROR(
          CheckNoUnknownFields(reflection.GetRepeatedMessage(message, field, i),
                               absl::StrFormat("%s[%d]", inner, i)));
    }
  }
  return absl::OkStatus();
}

}  // namespace qk
