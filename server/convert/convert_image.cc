#include "server/convert/convert_image.h"

#include <bit>
#include <cstring>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/base/check.h"
#include "engine/base/may_park.h"
#include "engine/base/sha256.h"
#include "engine/images.h"
#include "server/common/text.h"
#include "server/convert/convert_fields.h"
#include "server/convert/image_decode.h"
#include "server/convert/image_patches.h"

namespace qk {
namespace {

static_assert(std::endian::native == std::endian::little);

// engine/images.h names an image as if it stood in the request itself.
absl::Status InInput(const absl::Status& status) {
  return MovePath(status, "images", "input.images");
}

// `in` must have its default sizes filled in.
absl::StatusOr<Image> FromFile(absl::string_view field, const pb::Image& in,
                               absl::string_view file, const ModelView& model,
                               int64_t rows_left) {
  const VisionConfig& config = model.config->vision;
  if (config.channels != 3) {
    return absl::FailedPreconditionError(
        absl::StrCat(field, ": model '", model.name,
                     "' does not take RGB images; send "
                     "patches"));
  }
  const int min = in.min_pixels(), max = in.max_pixels();
  if (min < 1 || max < min || max > kMostPixels) {
    const bool first = min < 1 || min > kMostPixels;
    return BadField(
        absl::StrCat(field, first ? ".min_pixels" : ".max_pixels"),
        absl::StrFormat("min_pixels and max_pixels must be ascending in [1, "
                        "%d], got %d, %d",
                        kMostPixels, min, max));
  }
  absl::StatusOr<Pixels> pixels = DecodeImage(file);
  if (!pixels.ok()) {
    return PrefixField(absl::StrCat(field, ".encoded"), pixels.status());
  }
  const int factor = config.patch_size * config.merge_size;
  const absl::StatusOr<ImageSize> size =
      SmartResize({pixels->width, pixels->height}, factor, min, max);
  if (!size.ok()) {
    return PrefixField(absl::StrCat(field, ".encoded"), size.status());
  }
  // The size is checked before the patches take memory.
  const int64_t rows = int64_t{size->width / factor} * (size->height / factor);
  if (rows > rows_left) {
    return BadField(
        field, absl::StrFormat("has %d rows, but the model's context of %d "
                               "leaves room for %d",
                               rows, model.config->context_length, rows_left));
  }
  return MakePatches(ResizeBicubic(*std::move(pixels), *size), config);
}

absl::StatusOr<Image> FromPatches(absl::string_view field,
                                  const pb::Image& in) {
  if (in.has_min_pixels() || in.has_max_pixels()) {
    return BadField(absl::StrCat(field, in.has_min_pixels() ? ".min_pixels"
                                                            : ".max_pixels"),
                    "must not be set with patches");
  }
  const std::string& values = in.patches().values();
  if (values.size() % sizeof(float) != 0) {
    return BadField(absl::StrCat(field, ".patches.values"),
                    absl::StrFormat("must be a multiple of 4 bytes (float32), "
                                    "got %d",
                                    values.size()));
  }
  Image image;
  image.frames = in.patches().frames();
  image.rows = in.patches().rows();
  image.columns = in.patches().columns();
  image.values.resize(values.size() / sizeof(float));
  if (values.empty()) return image;  // no address to copy to
  std::memcpy(image.values.data(), values.data(), values.size());
  return image;
}

absl::StatusOr<std::string> CheckSha256(absl::string_view field,
                                        const pb::Image& in) {
  const std::string& bytes =
      in.has_encoded() ? in.encoded() : in.patches().values();
  std::string hex = Sha256Hex(bytes);
  if (in.has_sha256() && in.sha256() != hex) {
    return BadField(absl::StrCat(field, ".sha256"),
                    absl::StrCat("got '", Echo(in.sha256()),
                                 "', but that of the bytes is ", hex));
  }
  return hex;
}

// The image as the expanded request shows it: with its defaults, and a digest
// instead of its bytes.
absl::StatusOr<pb::Image> Expand(absl::string_view field, const pb::Image& in,
                                 const ImageProcessing& processing) {
  pb::Image out;
  QK_ASSIGN_OR_RETURN(*out.mutable_sha256(), CheckSha256(field, in));
  if (in.has_encoded()) {
    out.set_min_pixels(in.has_min_pixels() ? in.min_pixels()
                                           : processing.min_pixels);
    out.set_max_pixels(in.has_max_pixels() ? in.max_pixels()
                                           : processing.max_pixels);
  } else {
    out.mutable_patches()->set_frames(in.patches().frames());
    out.mutable_patches()->set_rows(in.patches().rows());
    out.mutable_patches()->set_columns(in.patches().columns());
  }
  return out;
}

// Repeats each image's placeholder once per row of the image.
std::vector<int32_t> RepeatPlaceholders(const std::vector<int32_t>& tokens,
                                        const std::vector<Image>& images,
                                        const VisionConfig& config) {
  std::vector<int32_t> out;
  size_t image = 0;
  for (int32_t token : tokens) {
    const bool placeholder = token == config.image_token;
    out.insert(out.end(), placeholder ? MergedRows(images[image++], config) : 1,
               token);
  }
  return out;
}

}  // namespace

absl::StatusOr<ConvertedImages> ConvertImages(const pb::Input& input,
                                              std::vector<int32_t> tokens,
                                              const ModelView& model) {
  ConvertedImages out;
  out.tokens = std::move(tokens);
  if (input.images().empty()) return out;
  const VisionConfig& config = model.config->vision;
  if (config.num_layers == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("input.images: model '", model.name, "' takes no images"));
  }
  QK_RETURN_IF_ERROR(
      CheckCount("input.images", input.images_size(), kMaxImages));
  int64_t left = model.config->context_length;
  for (int i = 0; i < input.images_size(); ++i) {
    MayPark(kManySteps);
    const std::string field = absl::StrFormat("input.images[%d]", i);
    const pb::Image& in = input.images(i);
    if (in.source_case() == pb::Image::SOURCE_NOT_SET) {
      return BadField(field, "exactly one of encoded and patches must be set");
    }
    QK_ASSIGN_OR_RETURN(const pb::Image expanded,
                        Expand(field, in, config.processing));
    QK_ASSIGN_OR_RETURN(
        Image image, in.has_encoded()
                         ? FromFile(field, expanded, in.encoded(), model, left)
                         : FromPatches(field, in));
    out.expanded.push_back(expanded);
    QK_RETURN_IF_ERROR(InInput(CheckGrid(image, i, config)));
    left -= MergedRows(image, config);
    out.images.push_back(std::move(image));
  }
  const auto placeholders = absl::c_count(out.tokens, config.image_token);
  if (placeholders == input.images_size()) {
    out.tokens = RepeatPlaceholders(out.tokens, out.images, config);
  }
  QK_RETURN_IF_ERROR(InInput(CheckImages(out.images, out.tokens, config)));
  return out;
}

}  // namespace qk
