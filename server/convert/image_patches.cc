#include "server/convert/image_patches.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

namespace qk {
namespace {

constexpr double kMaxAspect = 200;
constexpr int kPrecisionBits = 22;

double Bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

// The filter of one output pixel, over inputs [begin, begin + weights.size()).
struct Taps {
  int begin = 0;
  std::vector<int> weights;  // add up to about 2^kPrecisionBits
};

std::vector<Taps> MakeTaps(int from, int to) {
  const double scale = static_cast<double>(from) / to;
  const double stretch = std::max(scale, 1.0);
  const double support = 2.0 * stretch;
  std::vector<Taps> all(to);
  for (int i = 0; i < to; ++i) {
    const double center = (i + 0.5) * scale;
    Taps& taps = all[i];
    // As Pillow: a half is added and the rest cut off, negative values, too.
    const double first = center - support + 0.5;
    const double last = center + support + 0.5;
    taps.begin = std::max(0, static_cast<int>(first));
    const int end = std::min(from, static_cast<int>(last));
    std::vector<double> weights;
    double sum = 0;
    for (int x = taps.begin; x < end; ++x) {
      weights.push_back(Bicubic((x - center + 0.5) * (1.0 / stretch)));
      sum += weights.back();
    }
    for (double weight : weights) {
      const double fixed = weight / sum * (1 << kPrecisionBits);
      taps.weights.push_back(
          static_cast<int>(fixed + (fixed < 0 ? -0.5 : 0.5)));
    }
  }
  return all;
}

// Filters `lines` lines along one axis, to `out` (lines, taps.size(), 3). Pixel
// p of line l is at p * step + l * stride in `in`, and likewise in `out`.
void Resample(const uint8_t* in, int64_t step, int64_t stride, int lines,
              const std::vector<Taps>& taps, uint8_t* out, int64_t out_step,
              int64_t out_stride) {
  for (int line = 0; line < lines; ++line) {
    for (size_t i = 0; i < taps.size(); ++i) {
      for (int c = 0; c < 3; ++c) {
        const uint8_t* pixel = in + line * stride + taps[i].begin * step + c;
        int sum = 1 << (kPrecisionBits - 1);
        for (int weight : taps[i].weights) {
          sum += *pixel * weight;
          pixel += step;
        }
        out[line * out_stride + static_cast<int64_t>(i) * out_step + c] =
            static_cast<uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255));
      }
    }
  }
}

}  // namespace

absl::StatusOr<ImageSize> SmartResize(ImageSize size, int factor,
                                      int64_t min_pixels, int64_t max_pixels) {
  const double w = size.width, h = size.height, f = factor;
  if (std::max(w, h) / std::min(w, h) > kMaxAspect) {
    return absl::InvalidArgumentError(
        absl::StrCat(size.width, " x ", size.height,
                     " pixels: one side must not exceed 200 times the other"));
  }
  // Halves round to even, as in Python's round.
  double height = std::nearbyint(h / f) * f, width = std::nearbyint(w / f) * f;
  if (height * width > static_cast<double>(max_pixels)) {
    const double beta = std::sqrt(h * w / static_cast<double>(max_pixels));
    height = std::max(f, std::floor(h / beta / f) * f);
    width = std::max(f, std::floor(w / beta / f) * f);
  } else if (height * width < static_cast<double>(min_pixels)) {
    const double beta = std::sqrt(static_cast<double>(min_pixels) / (h * w));
    height = std::ceil(h * beta / f) * f;
    width = std::ceil(w * beta / f) * f;
  }
  return ImageSize{static_cast<int>(width), static_cast<int>(height)};
}

Pixels ResizeBicubic(Pixels pixels, ImageSize size) {
  Pixels wide;
  const int height = pixels.height;
  if (size.width == pixels.width) {
    wide = std::move(pixels);
  } else {
    wide.width = size.width;
    wide.height = height;
    wide.rgb.resize(int64_t{3} * size.width * height);
    Resample(pixels.rgb.data(), 3, int64_t{3} * pixels.width, height,
             MakeTaps(pixels.width, size.width), wide.rgb.data(), 3,
             int64_t{3} * size.width);
  }
  if (size.height == height) return wide;
  Pixels out;
  out.width = size.width;
  out.height = size.height;
  out.rgb.resize(int64_t{3} * size.width * size.height);
  const int64_t stride = int64_t{3} * size.width;
  Resample(wide.rgb.data(), stride, 3, size.width,
           MakeTaps(pixels.height, size.height), out.rgb.data(), stride, 3);
  return out;
}

Image MakePatches(const Pixels& pixels, const VisionConfig& config) {
  const int side = config.patch_size, merge = config.merge_size;
  QK_CHECK(config.channels == 3 && pixels.width % (side * merge) == 0 &&
           pixels.height % (side * merge) == 0);
  const ImageProcessing& p = config.processing;
  Image image;
  image.frames = 1;
  image.rows = pixels.height / side;
  image.columns = pixels.width / side;
  image.values.resize(image.patches() * config.patch_values());
  float* out = image.values.data();
  for (int64_t i = 0; i < image.patches(); ++i) {
    // Blocks of merged patches are in row-major order, and so are the patches
    // within a block.
    const int in = static_cast<int>(i % (merge * merge));
    const int block = static_cast<int>(i / (merge * merge));
    const int across = image.columns / merge;
    const int top = (block / across * merge + in / merge) * side;
    const int left = (block % across * merge + in % merge) * side;
    for (int c = 0; c < 3; ++c) {
      for (int t = 0; t < config.temporal_patch_size; ++t) {
        for (int y = top; y < top + side; ++y) {
          const uint8_t* from =
              pixels.rgb.data() + (int64_t{y} * pixels.width + left) * 3 + c;
          for (int x = 0; x < side; ++x, from += 3) {
            *out++ = static_cast<float>((*from / 255.0 - p.mean[c]) /
                                        p.deviation[c]);
          }
        }
      }
    }
  }
  return image;
}

}  // namespace qk
