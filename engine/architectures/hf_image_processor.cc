#include "engine/architectures/hf_image_processor.h"

#include <cmath>
#include <optional>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "engine/base/check.h"
#include "engine/formats/excerpt.h"

namespace qk {
namespace {

constexpr int64_t kBicubic = 3;  // PIL's number for it
constexpr double kRescale = 1.0 / 255.0;

constexpr absl::string_view kFields[] = {
    "do_convert_rgb", "do_normalize", "do_rescale",
    "do_resize",      "image_mean",   "image_processor_type",
    "image_std",      "max_pixels",   "merge_size",
    "min_pixels",     "patch_size",   "resample",
    "rescale_factor", "size",         "temporal_patch_size"};
// These change no patch.
constexpr absl::string_view kNeutral[] = {
    "data_format",      "default_to_square",      "device",
    "disable_grouping", "feature_extractor_type", "input_data_format",
    "processor_class",  "return_tensors"};

// Returns UNIMPLEMENTED `preprocessor_config: KEY: MESSAGE`.
absl::Status Refuse(const JsonValue& object, absl::string_view key,
                    absl::string_view message) {
  return absl::UnimplementedError(
      object.Error(absl::StrCat(Excerpt(key), ": ", message)).message());
}

absl::Status CheckFields(const JsonValue& json,
                         absl::Span<const absl::string_view> known) {
  return json.ForEachMember([&](absl::string_view key, JsonValue value) {
    if (value.is_null() || absl::c_linear_search(known, key) ||
        absl::c_linear_search(kNeutral, key)) {
      return absl::OkStatus();
    }
    return Refuse(json, key,
                  absl::StrCat("a field that is not implemented, got ",
                               value.Describe()));
  });
}

// The steps that are always done.
absl::Status CheckSteps(const JsonValue& json) {
  QK_ASSIGN_OR_RETURN(
      const absl::string_view type,
      json.GetStringOr("image_processor_type", "Qwen2VLImageProcessor"));
  if (!absl::StartsWith(type, "Qwen2VLImageProcessor")) {
    return Refuse(json, "image_processor_type",
                  absl::StrCat(json.Get("image_processor_type")->Describe(),
                               " is not implemented (implemented: "
                               "Qwen2VLImageProcessor)"));
  }
  for (const char* key :
       {"do_resize", "do_rescale", "do_normalize", "do_convert_rgb"}) {
    QK_ASSIGN_OR_RETURN(const bool done, json.GetBoolOr(key, true));
    if (!done) return Refuse(json, key, "false is not implemented");
  }
  QK_ASSIGN_OR_RETURN(const int64_t resample,
                      json.GetInt64Or("resample", kBicubic));
  if (resample != kBicubic) {
    return Refuse(json, "resample",
                  absl::StrCat(resample,
                               " is not implemented "
                               "(implemented: 3, bicubic)"));
  }
  QK_ASSIGN_OR_RETURN(const double factor,
                      json.GetDoubleOr("rescale_factor", kRescale));
  if (std::abs(factor - kRescale) > 1e-9) {
    return Refuse(
        json, "rescale_factor",
        absl::StrCat(factor, " is not implemented (implemented: 1/255)"));
  }
  return absl::OkStatus();
}

absl::Status CheckSizes(const JsonValue& json, const VisionConfig& vision) {
  const std::pair<const char*, int> sizes[] = {
      {"patch_size", vision.patch_size},
      {"temporal_patch_size", vision.temporal_patch_size},
      {"merge_size", vision.merge_size}};
  for (const auto& [key, want] : sizes) {
    QK_ASSIGN_OR_RETURN(const int64_t got, json.GetInt64Or(key, want));
    if (got == want) continue;
    return json.Error(
        absl::StrCat(key, ": expected config.json's ", want, ", got ", got));
  }
  return absl::OkStatus();
}

// Reads one bound, which has an older name and a member of "size"; both must
// agree.
absl::Status ReadPixels(const JsonValue& json, const char* older,
                        const char* edge, int* pixels) {
  std::optional<int64_t> found;
  if (json.Find("size").has_value()) {
    QK_ASSIGN_OR_RETURN(const JsonValue size, json.GetObject("size"));
    constexpr absl::string_view kEdges[] = {"shortest_edge", "longest_edge"};
    QK_RETURN_IF_ERROR(CheckFields(size, kEdges));
    if (size.Find(edge).has_value()) {
      QK_ASSIGN_OR_RETURN(found, size.GetInt64InRange(edge, 1, kMostPixels));
    }
  }
  if (json.Find(older).has_value()) {
    QK_ASSIGN_OR_RETURN(const int64_t value,
                        json.GetInt64InRange(older, 1, kMostPixels));
    if (found.value_or(value) != value) {
      return json.Error(absl::StrCat(older, ": ", value, ", but size.", edge,
                                     " is ", *found));
    }
    found = value;
  }
  if (found.has_value()) *pixels = static_cast<int>(*found);
  return absl::OkStatus();
}

absl::Status ReadColours(const JsonValue& json, const char* key,
                         std::array<double, 3>* values) {
  if (!json.Find(key).has_value()) return absl::OkStatus();
  QK_ASSIGN_OR_RETURN(const JsonValue array, json.GetArray(key));
  if (array.size() != 3) {
    return array.Error(absl::StrCat("expected 3 numbers, got ", array.size()));
  }
  size_t i = 0;
  return array.ForEachElement([&](JsonValue element) -> absl::Status {
    QK_ASSIGN_OR_RETURN((*values)[i++], element.AsDouble());
    return absl::OkStatus();
  });
}

}  // namespace

absl::StatusOr<ImageProcessing> ReadImageProcessing(
    const JsonValue& json, const VisionConfig& vision) {
  ImageProcessing out;
  QK_RETURN_IF_ERROR(CheckFields(json, kFields));
  QK_RETURN_IF_ERROR(CheckSteps(json));
  QK_RETURN_IF_ERROR(CheckSizes(json, vision));
  QK_RETURN_IF_ERROR(
      ReadPixels(json, "min_pixels", "shortest_edge", &out.min_pixels));
  QK_RETURN_IF_ERROR(
      ReadPixels(json, "max_pixels", "longest_edge", &out.max_pixels));
  if (out.min_pixels > out.max_pixels) {
    return json.Error(absl::StrCat("min_pixels: ", out.min_pixels,
                                   " is over max_pixels, ", out.max_pixels));
  }
  QK_RETURN_IF_ERROR(ReadColours(json, "image_mean", &out.mean));
  QK_RETURN_IF_ERROR(ReadColours(json, "image_std", &out.deviation));
  for (const double deviation : out.deviation) {
    // Patches are float32 and made from pixels in [0, 1].
    if (deviation < 1e-6) {
      return json.Error(
          absl::StrCat("image_std: must be > 1e-6, got ", deviation));
    }
  }
  for (const double mean : out.mean) {
    if (std::abs(mean) > 1e6) {
      return json.Error(
          absl::StrCat("image_mean: must be in [-1e6, 1e6], got ", mean));
    }
  }
  return out;
}

}  // namespace qk
