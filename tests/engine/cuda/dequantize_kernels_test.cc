// Compares weights that the device converts with those that engine/formats
// gives, which are compared with the Python package gguf and with checkpoints
// of other programs: bit for bit, but for a NaN's payload.
#include <array>
#include <bit>
#include <random>

#include "absl/strings/str_cat.h"
#include "engine/cuda/dequantize.h"
#include "engine/formats/dequantize.h"
#include "tests/engine/cuda/kernel_testing.h"
#include "tests/engine/formats/weight_types.h"
#include "tests/engine/model/packed_testing.h"

namespace qk::testing {
namespace {

std::vector<uint32_t> BitsOf(const std::vector<float>& values) {
  std::vector<uint32_t> bits;
  for (const float x : values) {
    bits.push_back(std::isnan(x) ? 0x7FC00000u : std::bit_cast<uint32_t>(x));
  }
  return bits;
}

std::vector<uint16_t> BitsOf(std::vector<uint16_t> values) {
  for (uint16_t& x : values) {
    if (std::isnan(FromBF16(x))) x = 0x7FC0;
  }
  return values;
}

// Runs convert(out) with both types of output, and compares with `want`.
template <typename Convert>
void ExpectConverts(const std::vector<float>& want, const std::string& what,
                    const Convert& convert) {
  const std::vector<float> wide = InEveryOrder(what, [&] {
    const Array<float> out(want.size());
    convert(ComputeType::kF32, out.data());
    return out.Read();
  });
  ExpectSame(BitsOf(wide), BitsOf(want), what + " as f32");
  const std::vector<uint16_t> narrow = InEveryOrder(what, [&] {
    const Array<uint16_t> out(want.size());
    convert(ComputeType::kBF16, out.data());
    return out.Read();
  });
  ExpectSame(BitsOf(narrow), BitsOf(ToBf16(want)), what + " as bf16");
}

// The blocks lie at `offset` in memory that ends with them.
void ExpectDequantizes(DType type, const std::vector<uint8_t>& blocks,
                       size_t offset) {
  const int64_t elements = static_cast<int64_t>(blocks.size()) /
                           BlockBytes(type) * BlockElements(type);
  std::vector<float> want(elements);
  Dequantize(type, blocks.data(), elements, want.data());
  std::vector<uint8_t> bytes(offset, uint8_t{0x5A});
  bytes.insert(bytes.end(), blocks.begin(), blocks.end());
  const Array<uint8_t> device(bytes);
  ExpectConverts(want,
                 absl::StrCat(std::string(DTypeName(type)), " x ", elements,
                              " at ", offset),
                 [&](ComputeType compute, void* out) {
                   cuda::Dequantize(type, device.data() + offset, elements,
                                    compute, out, kStream);
                 });
}

// Where a type's blocks have numbers of 16 bits.
std::vector<size_t> HalvesOf(DType type) {
  switch (type) {
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, 2};
    case DType::kQ2_K:
      return {80, 82};
    case DType::kQ3_K:
      return {108};
    case DType::kQ6_K:
      return {208};
    case DType::kMXFP4:
      return {};  // its scale is a byte
    default:
      return {0};
  }
}

class DequantizeKernelTest : public ::testing::TestWithParam<DType> {};

TEST_P(DequantizeKernelTest, RandomBlocks) {
  const DType type = GetParam();
  std::mt19937 random(static_cast<uint32_t>(type) + 1);
  for (const int64_t elements : {1, 257, 1024, 2000, 7777}) {
    if (kSanitized && elements > 2000) continue;
    const int64_t n = BlockElements(type);
    std::vector<uint8_t> blocks((elements + n - 1) / n * BlockBytes(type));
    for (uint8_t& byte : blocks) byte = static_cast<uint8_t>(random());
    ExpectDequantizes(type, blocks, elements % 4);
  }
}

TEST_P(DequantizeKernelTest, ScalesOfEveryKind) {
  // 0, subnormal, least normal, ordinary, largest, infinite, NaN.
  constexpr uint16_t kHalves[] = {0x0000, 0x0001, 0x03FF, 0x0400, 0x3555,
                                  0x7BFF, 0x7C00, 0x7E00, 0x7C01, 0x8000,
                                  0x8001, 0x83FF, 0xBC00, 0xFBFF, 0xFC00};
  const DType type = GetParam();
  const std::vector<size_t> places = HalvesOf(type);
  std::mt19937 random(static_cast<uint32_t>(type) + 100);
  std::vector<uint8_t> blocks;
  for (const uint16_t first : kHalves) {
    for (const uint16_t second : {0x0001, 0x3555, 0x7C00, 0x7E00, 0x8000}) {
      std::vector<uint8_t> block(BlockBytes(type));
      for (uint8_t& byte : block) byte = static_cast<uint8_t>(random());
      for (size_t i = 0; i < places.size(); ++i) {
        const uint16_t half = i == 0 ? first : second;
        std::memcpy(&block[places[i]], &half, 2);
      }
      blocks.insert(blocks.end(), block.begin(), block.end());
      if (places.size() < 2 || kSanitized) break;
    }
  }
  ExpectDequantizes(type, blocks, 1);
}

INSTANTIATE_TEST_SUITE_P(Types, DequantizeKernelTest,
                         ::testing::ValuesIn(kWeightTypes),
                         [](const auto& param) {
                           return std::string(DTypeName(param.param));
                         });

template <typename T>
std::vector<uint8_t> BytesOfAll(const std::vector<T>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

TEST(DequantizePlainKernelTest, EveryNumberOf16Bits) {
  std::vector<uint16_t> all;
  for (uint32_t i = 0; i < 65536; i += kSanitized ? 13 : 1) {
    all.push_back(static_cast<uint16_t>(i));
  }
  ExpectDequantizes(DType::kF16, BytesOfAll(all), 1);
  ExpectDequantizes(DType::kBF16, BytesOfAll(all), 1);
}

TEST(DequantizePlainKernelTest, F32ThatIsHardToRound) {
  // Ties, what rounds to infinity, subnormal numbers, NaNs.
  ExpectDequantizes(
      DType::kF32,
      BytesOfAll(std::vector<uint32_t>{
          0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001, 0xBF808000,
          0xBF818000, 0x7F7FFFFF, 0x7F7F8000, 0x7F7F7FFF, 0x7F800000,
          0xFF800000, 0x7F800001, 0x7FC00000, 0xFFFFFFFF, 0x00000000,
          0x80000000, 0x00000001, 0x00007FFF, 0x00008000, 0x00018000}),
      3);
}

TEST(DequantizePlainKernelTest, TheExponentOfMxfp4) {
  std::vector<uint8_t> blocks;
  for (int exponent = 0; exponent < 256; ++exponent) {
    blocks.push_back(static_cast<uint8_t>(exponent));
    for (int i = 0; i < 8; ++i) {
      blocks.push_back(static_cast<uint8_t>(0x10 + 0x22 * i));
    }
    for (int i = 0; i < 8; ++i) {
      blocks.push_back(static_cast<uint8_t>(0x01 + 0x22 * i));
    }
  }
  ExpectDequantizes(DType::kMXFP4, blocks, 0);
}

using Method = Int4Format::Method;

// Some outputs of a layer, as the loader lays them out.
void ExpectUnpacks(const PackedInt4& packed, int64_t begin, int64_t end,
                   const std::string& what) {
  const int64_t n = end - begin, in = packed.in_features();
  const int64_t lines = packed.words_of_inputs() ? in / 8 : in;
  const int64_t columns = packed.words_of_inputs() ? n : n / 8;
  std::vector<uint32_t> words(lines * columns);
  packed.CopyWords(begin, n, 0, lines, columns, words.data());
  std::vector<uint8_t> zeros(packed.groups() * n);
  std::vector<float> scales(zeros.size());
  packed.ReadGroups(begin, n, 0, packed.groups(), n, zeros.data(),
                    scales.data());
  const Array<uint32_t> device_words(words);
  const Array<uint8_t> device_zeros(zeros);
  const Array<float> device_scales(scales);
  const Array<int32_t> group_of(
      std::vector<int32_t>(packed.group_of().begin(), packed.group_of().end()));
  cuda::Int4Part part;
  part.words_of_inputs = packed.words_of_inputs();
  part.words = device_words.data();
  part.scales = device_scales.data();
  part.zeros = device_zeros.data();
  if (group_of.size() > 0) part.group_of = group_of.data();
  part.group_size = static_cast<int>(packed.group_size());
  part.outputs = static_cast<int>(n);
  part.in = static_cast<int>(in);
  std::vector<float> want(n * in);
  packed.Read(begin, end, want.data());
  ExpectConverts(want, what, [&](ComputeType type, void* out) {
    cuda::UnpackInt4(part, type, out, kStream);
  });
}

// Shapes of less than a tile, of several, and with parts of one.
TEST(Int4KernelTest, AnyOutputsOfAnyShape) {
  struct Shape {
    int64_t out, in, group_size;
  };
  uint32_t seed = 0;
  for (const Shape& s :
       {Shape{8, 8, 8}, Shape{40, 1096, -1}, Shape{136, 72, 24},
        Shape{72, 192, 64}, Shape{64, 128, 128}, Shape{16, 36, 12}}) {
    for (const Int4Format& format :
         {Int4Format{Method::kAwq, s.group_size, false, false},
          Int4Format{Method::kGptq, s.group_size, false, true},
          Int4Format{Method::kGptq, s.group_size, true, true},
          Int4Format{Method::kGptq, s.group_size, true, false}}) {
      if (format.method == Method::kGptq && s.in % 8 != 0) continue;
      const RandomLayer layer(s.out, s.in, format, ++seed);
      FileTensors file;
      layer.Put("m", &file);
      const MemorySource source(file);
      const auto packed = PackedInt4::Open(source, "m", s.out, s.in, format);
      ASSERT_TRUE(packed.ok()) << packed.status();
      for (const auto& [begin, end] : std::vector<std::pair<int64_t, int64_t>>{
               {0, s.out}, {8, s.out}, {s.out - 8, s.out}}) {
        if (begin >= end || (kSanitized && begin == 8)) continue;
        ExpectUnpacks(*packed, begin, end,
                      absl::StrCat("layer ", seed, ": ", s.out, " x ", s.in,
                                   ", outputs from ", begin));
      }
    }
  }
}

TEST(Int4KernelTest, ScalesThatAreNotNumbers) {
  for (const Int4Format& format : {kAwq, kGptq, kActOrder}) {
    FileTensors file = Good(format);
    const std::array<uint16_t, 6> scales = {0x7E00, 0x7C00, 0xFC00,
                                            0x0001, 0x8000, 0x7BFF};
    std::memcpy(file["m.scales"].data.data() + 2 * (kOut + 3), scales.data(),
                2 * scales.size());
    const MemorySource source(file);
    const auto packed = PackedInt4::Open(source, "m", kOut, kIn, format);
    ASSERT_TRUE(packed.ok()) << packed.status();
    ExpectUnpacks(*packed, 0, kOut, "scales");
  }
}

// Whose products are not exact in float32.
TEST(Int4KernelTest, ScalesOfF32) {
  for (const Int4Format& format : {kAwq, kActOrder}) {
    FileTensors file = Good(format);
    file["m.scales"] = MakeTensor("F32", {2, kOut}, Random(9).Normal(2 * kOut));
    const MemorySource source(file);
    const auto packed = PackedInt4::Open(source, "m", kOut, kIn, format);
    ASSERT_TRUE(packed.ok()) << packed.status();
    ExpectUnpacks(*packed, 0, kOut, "scales of F32");
  }
}

}  // namespace
}  // namespace qk::testing
