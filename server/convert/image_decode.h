// Decodes PNG and JPEG files from clients.
#ifndef QKSCOPE_SERVER_CONVERT_IMAGE_DECODE_H_
#define QKSCOPE_SERVER_CONVERT_IMAGE_DECODE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace qk {

// Limits that are checked before anything is decoded.
inline constexpr int kMaxImageSide = 16384;
inline constexpr int64_t kMaxImagePixels = int64_t{1} << 24;

struct Pixels {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> rgb;  // (height, width, 3)
};

// Decodes pixels as PIL's open(file).convert("RGB") does: drops alpha, applies
// no gamma, ignores EXIF orientation. INVALID_ARGUMENT: the file is neither PNG
// nor JPEG, damaged or too large. UNIMPLEMENTED: 16-bit grey, CMYK.
absl::StatusOr<Pixels> DecodeImage(absl::string_view file);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONVERT_IMAGE_DECODE_H_
