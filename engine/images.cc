#include "engine/images.h"

#include <algorithm>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

namespace qk {
namespace {

absl::Status CheckImage(const Image& image, const VisionConfig& config) {
  const int merge = config.merge_size;
  if (image.frames < 1 || image.rows < 1 || image.columns < 1 ||
      image.rows % merge != 0 || image.columns % merge != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "grid: expected 1 frame or more, rows and columns that are multiples "
        "of ",
        merge, ", got ", image.frames, " x ", image.rows, " x ",
        image.columns));
  }
  // Each factor is an int, so neither product overflows int64: `frame` is
  // checked before it is multiplied again.
  const int64_t frame = int64_t{image.rows} * image.columns;
  if (frame > kMaxPatches || frame * image.frames > kMaxPatches) {
    return absl::InvalidArgumentError(
        absl::StrCat("grid: more than ", kMaxPatches, " patches"));
  }
  const int64_t values = image.patches() * config.patch_values();
  if (static_cast<int64_t>(image.values.size()) != values) {
    return absl::InvalidArgumentError(absl::StrCat(
        "patches: expected ", values, " values (", image.patches(),
        " patches of ", config.patch_values(), "), got ", image.values.size()));
  }
  return absl::OkStatus();
}

}  // namespace

int MergedRows(const Image& image, const VisionConfig& config) {
  return static_cast<int>(image.patches() /
                          (config.merge_size * config.merge_size));
}

absl::Status CheckGrid(const Image& image, size_t index,
                       const VisionConfig& config) {
  const absl::Status status = CheckImage(image, config);
  if (status.ok()) return status;
  return absl::InvalidArgumentError(
      absl::StrCat("images[", index, "]: ", status.message()));
}

absl::Status CheckImages(absl::Span<const Image> images,
                         absl::Span<const int32_t> tokens,
                         const VisionConfig& config) {
  if (images.empty()) return absl::OkStatus();
  if (config.num_layers == 0) {
    return absl::InvalidArgumentError("images: the model takes none");
  }
  int64_t rows = 0;
  for (size_t i = 0; i < images.size(); ++i) {
    QK_RETURN_IF_ERROR(CheckGrid(images[i], i, config));
    rows += MergedRows(images[i], config);
  }
  const int64_t placeholders = absl::c_count(tokens, config.image_token);
  if (placeholders != rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("images: their ", rows, " rows need as many tokens ",
                     config.image_token, ", got ", placeholders));
  }
  size_t at = 0;
  for (size_t i = 0; i < images.size(); ++i) {
    while (tokens[at] != config.image_token) ++at;
    for (int row = 0; row < MergedRows(images[i], config); ++row, ++at) {
      if (at == tokens.size() || tokens[at] != config.image_token) {
        return absl::InvalidArgumentError(absl::StrCat(
            "images[", i, "]: expected ", MergedRows(images[i], config),
            " tokens ", config.image_token, " in a row, got ", row));
      }
    }
  }
  return absl::OkStatus();
}

std::vector<Range> PlaceImages(absl::Span<const Image> images,
                               absl::Span<const int32_t> tokens,
                               const VisionConfig& config) {
  std::vector<Range> places;
  int at = 0;
  for (const Image& image : images) {
    while (tokens[at] != config.image_token) ++at;
    const int rows = MergedRows(image, config);
    places.push_back({at, at + rows});
    at += rows;
  }
  return places;
}

std::vector<RopePosition> ImagePositions(absl::Span<const Image> images,
                                         absl::Span<const int32_t> tokens,
                                         const VisionConfig& config) {
  std::vector<RopePosition> positions;
  positions.reserve(tokens.size());
  int next = 0;
  const auto add_text = [&](int end) {
    while (static_cast<int>(positions.size()) < end) {
      positions.push_back({next, next, next});
      ++next;
    }
  };
  const std::vector<Range> places = PlaceImages(images, tokens, config);
  for (size_t i = 0; i < images.size(); ++i) {
    add_text(places[i].begin);
    const int rows = images[i].rows / config.merge_size;
    const int columns = images[i].columns / config.merge_size;
    for (int row = 0; row < images[i].frames * rows * columns; ++row) {
      positions.push_back({next + row / (rows * columns),
                           next + row / columns % rows, next + row % columns});
    }
    next += std::max(rows, columns);
  }
  add_text(static_cast<int>(tokens.size()));
  return positions;
}

}  // namespace qk
