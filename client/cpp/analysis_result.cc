#include "client/cpp/analysis_result.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

static_assert(std::endian::native == std::endian::little,
              "payloads are little-endian and are read without conversion");

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

float HalfToFloat(uint16_t half) {
  const int sign = (half & 0x8000) != 0 ? -1 : 1;
  const int exponent = (half >> 10) & 0x1f;
  const int mantissa = half & 0x3ff;
  if (exponent == 0x1f) {
    return mantissa == 0 ? sign * std::numeric_limits<float>::infinity()
                         : std::numeric_limits<float>::quiet_NaN();
  }
  if (exponent == 0)
    return sign * std::ldexp(static_cast<float>(mantissa), -24);
  return sign * std::ldexp(static_cast<float>(mantissa + 0x400), exponent - 25);
}

float BfloatToFloat(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

}  // namespace

std::string TensorName(const v1::Layer& header) {
  std::string name = absl::StrCat(header.arm(), "/");
  if (header.has_image()) {
    absl::StrAppend(&name, "image.", header.image(), ".vision.");
  } else {
    absl::StrAppend(&name, "layer.");
  }
  absl::StrAppend(&name, header.layer(), ".",
                  absl::AsciiStrToLower(v1::HookPoint_Name(header.point())));
  if (header.stage() == v1::AFTER) absl::StrAppend(&name, ".after");
  if (header.phase() == v1::DECODE) absl::StrAppend(&name, ".decode");
  if (header.has_step()) absl::StrAppend(&name, ".step.", header.step());
  return name;
}

std::vector<std::string> TensorAxes(const v1::Layer& header) {
  if (header.form() == v1::NORM_OVER_TOKENS) return {"head", "dim"};
  const char* row = header.has_image() ? "patch" : "position";
  if (header.form() == v1::NORM_PER_TOKEN) return {row, "head"};
  if (header.point() == v1::HOOK_PATTERN) return {row, "head", "key"};
  return {row, "head", "dim"};
}

int ElementBytes(v1::RawDtype dtype) {
  return dtype == v1::F16 || dtype == v1::BF16 ? 2 : 4;
}

int64_t ShapeBytes(const v1::Layer& header) {
  int64_t bytes = ElementBytes(header.dtype());
  for (const int32_t extent : header.shape()) {
    if (extent < 0 || __builtin_mul_overflow(bytes, extent, &bytes)) return -1;
  }
  return bytes;
}

absl::StatusOr<std::vector<float>> TensorValues(v1::RawDtype dtype,
                                                const std::string& data) {
  const int width = ElementBytes(dtype);
  if (data.size() % width != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(data.size(), " bytes are not a whole number of ", width,
                     "-byte elements"));
  }
  std::vector<float> values(data.size() / width);
  if (width == 4) {
    if (!data.empty()) std::memcpy(values.data(), data.data(), data.size());
    return values;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, data.data() + 2 * i, sizeof(bits));
    values[i] = dtype == v1::F16 ? HalfToFloat(bits) : BfloatToFloat(bits);
  }
  return values;
}

}  // namespace qk::client
