// Checks that many fields of a request share. Every error begins with the path
// of the field from the request's message on, as in "input.token_ids.ids[3]: ";
// then come the value it got and the values that are allowed.
#ifndef QKSCOPE_SERVER_CONVERT_CONVERT_FIELDS_H_
#define QKSCOPE_SERVER_CONVERT_CONVERT_FIELDS_H_

#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "engine/types/model_config.h"
#include "google/protobuf/message.h"
#include "google/protobuf/repeated_field.h"
#include "server/common/bad_field.h"

namespace qk {

// The status with another message, and the same payloads.
absl::Status WithMessage(const absl::Status& status, absl::string_view message);
// The status with "field: " or, if `joint` is given, "field" + joint in front.
absl::Status PrefixField(absl::string_view field, const absl::Status& status,
                         absl::string_view joint = ": ");
// Moves errors of an AnalyzeRequest that stands for another message: a path
// that begins with `from` (a whole component) begins with `to` instead. Other
// errors stay as they are.
absl::Status MovePath(const absl::Status& status, absl::string_view from,
                      absl::string_view to);

// "field: got 5000, limit 64" if there are too many.
absl::Status CheckCount(absl::string_view field, int64_t count, int64_t limit);

// "field: must be finite and > 0, got nan".
absl::Status CheckPositive(absl::string_view field, double value);
absl::Status CheckFinite(absl::string_view field, double value);

// Returns the values in ascending order. Errors: "field[3]: 12 is outside [0,
// 12)" with code `outside`; INVALID_ARGUMENT for a value that is given twice
// and for more than `limit` values.
absl::StatusOr<std::vector<int>> ConvertIndices(
    absl::string_view field,
    const google::protobuf::RepeatedField<int32_t>& values, int size,
    int64_t limit, absl::StatusCode outside);

// Returns a request's layers; no values stand for all layers with attention.
// Errors: INVALID_ARGUMENT for a layer without attention, code `outside` for a
// layer out of range.
absl::StatusOr<std::vector<int>> ConvertLayers(
    absl::string_view field,
    const google::protobuf::RepeatedField<int32_t>& values,
    const ModelConfig& config, int64_t limit, absl::StatusCode outside);

// Fails if the message has an unknown field at any depth. `path`: the
// message's; "": it is the request.
absl::Status CheckNoUnknownFields(const google::protobuf::Message& message,
                                  const std::string& path = "");

// Converts a proto3 enum, which is open: any number may arrive. 0 stands for
// the default.
template <typename To, size_t kSize>
absl::StatusOr<To> ConvertEnum(
    absl::string_view field, int value, To default_value,
    const std::array<std::pair<int, To>, kSize>& known) {
  if (value == 0) return default_value;
  for (const auto& [number, result] : known) {
    if (number == value) return result;
  }
  return BadField(field, absl::StrCat("unknown value ", value));
}

// The inverse of ConvertEnum. `value` must be in `known`.
template <typename From, size_t kSize>
int EnumNumber(From value,
               const std::array<std::pair<int, From>, kSize>& known) {
  for (const auto& [number, result] : known) {
    if (result == value) return number;
  }
  return 0;
}

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONVERT_CONVERT_FIELDS_H_
