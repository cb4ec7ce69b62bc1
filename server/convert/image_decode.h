// PNG and JPEG files of clients as pixels.
#ifndef QKSCOPE_SERVER_CONVERT_IMAGE_DECODE_H_
#define QKSCOPE_SERVER_CONVERT_IMAGE_DECODE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace qk {

// Checked before anything is decoded.
inline constexpr int kMaxImageSide = 16384;
inline constexpr int64_t kMaxImagePixels = int64_t{1} << 24;

struct Pixels {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> rgb;  // (height, width, 3)
};

// Pixels as PIL's open(file).convert("RGB") gives them: alpha left out, no
// gamma, EXIF's orientation not looked at. INVALID_ARGUMENT: not such a file,
// damaged, too large. UNIMPLEMENTED: 16-bit grey, CMYK.
absl::StatusOr<Pixels> DecodeImage(absl::string_view file);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONVERT_IMAGE_DECODE_H_
