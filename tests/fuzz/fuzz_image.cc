#include <zlib.h>

#include <cstdint>
#include <string>

#include "absl/strings/match.h"
#include "server/convert/image_decode.h"
#include "tests/fuzz/fuzz.h"

namespace {

constexpr absl::string_view kPng("\x89PNG\r\n\x1a\n", 8);

uint32_t BigEndian(const std::string& bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) {
    value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  }
  return value;
}

// Gives the chunks of a PNG file the right checksums: with a wrong one, the
// decoder would not look at anything after it.
std::string WithChecksums(std::string file) {
  size_t at = kPng.size();
  while (at + 12 <= file.size()) {
    const size_t size = BigEndian(file, at);
    if (size > file.size() - at - 12) break;
    const size_t end = at + 8 + size;
    const uint32_t crc = static_cast<uint32_t>(
        crc32(0, reinterpret_cast<const Bytef*>(file.data() + at + 4),
              static_cast<uInt>(size + 4)));
    for (size_t i = 0; i < 4; ++i) {
      file[end + i] = static_cast<char>(crc >> (24 - 8 * i));
    }
    at = end + 4;
  }
  return file;
}

void Decode(absl::string_view file) {
  const auto pixels = qk::DecodeImage(file);
  if (!pixels.ok()) {
    qk::fuzz::CheckMessage(pixels.status());
    return;
  }
  QK_CHECK(pixels->width >= 1 && pixels->width <= qk::kMaxImageSide);
  QK_CHECK(pixels->height >= 1 && pixels->height <= qk::kMaxImageSide);
  QK_CHECK(int64_t{pixels->width} * pixels->height <= qk::kMaxImagePixels);
  QK_CHECK(static_cast<int64_t>(pixels->rgb.size()) ==
           int64_t{3} * pixels->width * pixels->height);
  qk::fuzz::Touch(pixels->rgb);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string file(reinterpret_cast<const char*>(data), size);
  Decode(file);
  if (absl::StartsWith(file, kPng)) Decode(WithChecksums(file));
  return 0;
}
