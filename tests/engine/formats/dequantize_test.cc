// Compares Dequantize with blocks that the Python package gguf dequantised
// (tests/goldens/formats/make_dequant_goldens.py).
#include "engine/formats/dequantize.h"

#include <bit>
#include <cmath>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "tests/engine/formats/testing.h"
#include "tests/engine/formats/weight_types.h"

namespace qk {
namespace {

using testing::ReadFile;

struct Golden {
  int64_t elements;
  std::string blocks;
  std::vector<uint32_t> bits;
};

Golden ReadGolden(DType dtype) {
  const std::string file =
      ReadFile(absl::StrCat(QK_SOURCE_DIR, "/tests/goldens/formats/",
                            absl::AsciiStrToLower(DTypeName(dtype)), ".bin"));
  uint32_t elements;
  std::memcpy(&elements, file.data(), sizeof(elements));
  Golden golden;
  golden.elements = elements;
  golden.blocks =
      file.substr(4, elements / BlockElements(dtype) * BlockBytes(dtype));
  golden.bits.resize(elements);
  EXPECT_EQ(file.size(), 4 + golden.blocks.size() + 4 * elements);
  std::memcpy(golden.bits.data(), file.data() + 4 + golden.blocks.size(),
              4 * elements);
  return golden;
}

// NaN payloads may differ.
uint32_t Canonical(float value) {
  return std::isnan(value) ? 0x7FC00000 : std::bit_cast<uint32_t>(value);
}

class DequantizeTest : public ::testing::TestWithParam<DType> {};

TEST_P(DequantizeTest, EqualsGguf) {
  const Golden golden = ReadGolden(GetParam());
  std::vector<float> values(golden.elements, -1);
  Dequantize(GetParam(), testing::AsBytes(golden.blocks).data(),
             golden.elements, values.data());
  int different = 0;
  int nans = 0;
  for (int64_t i = 0; i < golden.elements; ++i) {
    nans += std::isnan(values[i]);
    if (Canonical(values[i]) == golden.bits[i]) continue;
    if (++different > 5) continue;
    ADD_FAILURE() << "element " << i << ": got " << values[i] << ", expected "
                  << std::bit_cast<float>(golden.bits[i]);
  }
  EXPECT_EQ(different, 0);
  // MXFP4's scale is a power of two: no block is NaN.
  EXPECT_EQ(nans > 0, GetParam() != DType::kMXFP4);
}

TEST_P(DequantizeTest, UnalignedSourceAndExactBounds) {
  const Golden golden = ReadGolden(GetParam());
  const int64_t elements = BlockElements(GetParam());
  const int64_t bytes = BlockBytes(GetParam());
  // The block is at an odd address, with none of our memory behind it.
  std::vector<uint8_t> src(1 + bytes);
  std::memcpy(src.data() + 1, golden.blocks.data(), bytes);
  std::vector<float> values(elements + 1, 12345.0f);
  Dequantize(GetParam(), src.data() + 1, elements, values.data());
  for (int64_t i = 0; i < elements; ++i) {
    EXPECT_EQ(Canonical(values[i]), golden.bits[i]) << i;
  }
  EXPECT_EQ(values[elements], 12345.0f);
  Dequantize(GetParam(), src.data() + 1, 0, nullptr);
}

INSTANTIATE_TEST_SUITE_P(Types, DequantizeTest,
                         ::testing::ValuesIn(testing::kWeightTypes),
                         [](const auto& param) {
                           return std::string(DTypeName(param.param));
                         });

#ifdef __FLT16_MANT_DIG__
TEST(DequantizeHalfTest, EveryValueEqualsTheCompilers) {
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = i;
  std::vector<float> values(halves.size());
  Dequantize(DType::kF16, reinterpret_cast<const uint8_t*>(halves.data()),
             halves.size(), values.data());
  for (const uint16_t half : halves) {
    const float expected = static_cast<float>(std::bit_cast<_Float16>(half));
    ASSERT_EQ(Canonical(values[half]), Canonical(expected)) << half;
  }
}
#endif

}  // namespace
}  // namespace qk
