// Tests which wrong packed layers are refused, and the messages.
#include "tests/engine/model/packed_testing.h"

namespace qk::testing {
namespace {

struct Bad {
  const char* name;
  Int4Format format;
  std::function<void(FileTensors&)> change;
  const char* error;
};

auto Erase(const char* name) {
  return [=](FileTensors& file) { file.erase(name); };
}

// Changes the shape; the number of elements may change too.
auto Reshape(const char* name, std::vector<int64_t> shape) {
  return [=](FileTensors& file) {
    FileTensor& tensor = file[name];
    const int64_t bytes = tensor.dtype == "F16" ? 2 : 4;
    int64_t n = bytes;
    for (const int64_t dim : shape) n *= dim;
    tensor.shape = shape;
    tensor.data.resize(n);
  };
}

// Declares the same bytes as another type of the same size.
auto Retype(const char* name, const char* dtype) {
  return [=](FileTensors& file) { file[name].dtype = dtype; };
}

auto SetIndex(int64_t at, int32_t value) {
  return [=](FileTensors& file) {
    std::memcpy(file["m.g_idx"].data.data() + 4 * at, &value, 4);
  };
}

auto Nothing() {
  return [](FileTensors&) {};
}

Int4Format WithGroup(Int4Format format, int64_t size) {
  format.group_size = size;
  return format;
}

std::vector<Bad> BadLayers() {
  return {
      {"NoWords", kAwq, Erase("m.qweight"),
       "missing 'm.qweight'; expected [64,2]"},
      {"NoWordsGptq", kGptq, Erase("m.qweight"),
       "missing 'm.qweight'; expected [8,16]"},
      {"NoZeros", kAwq, Erase("m.qzeros"),
       "missing 'm.qzeros'; expected [2,2]"},
      {"NoZerosSym", kGptq, Erase("m.qzeros"),
       "missing 'm.qzeros'; expected [2,2]"},
      {"NoScales", kAwq, Erase("m.scales"),
       "missing 'm.scales'; expected [2,16]"},
      {"NoScalesGptq", kGptq, Erase("m.scales"),
       "missing 'm.scales'; expected [2,16]"},
      {"NoIndexWithActOrder", kActOrder, Erase("m.g_idx"),
       "missing 'm.g_idx'; expected [64]"},
      {"WordsFloat", kAwq, Retype("m.qweight", "F32"),
       "'m.qweight': expected I32, got F32"},
      {"WordsUnsigned", kAwq, Retype("m.qweight", "U32"),
       "missing 'm.qweight'"},
      {"ZerosFloat", kGptq, Retype("m.qzeros", "F32"),
       "'m.qzeros': expected I32, got F32"},
      {"ScalesInteger", kAwq,
       [](FileTensors& file) {
         file["m.scales"] =
             MakeTensor("I32", {2, kOut}, std::vector<int32_t>(2 * kOut));
       },
       "'m.scales': expected F16, BF16 or F32, got I32"},
      {"ScalesInt16", kAwq, Retype("m.scales", "I16"), "missing 'm.scales'"},
      {"IndexFloat", kGptq, Retype("m.g_idx", "F32"),
       "'m.g_idx': expected I32, got F32"},
      {"WordsTransposed", kAwq, Reshape("m.qweight", {2, 64}),
       "'m.qweight': expected [64,2], got [2,64]"},
      {"WordsOfTheOtherMethod", kAwq, Reshape("m.qweight", {8, 16}),
       "'m.qweight': expected [64,2], got [8,16]"},
      {"GptqReadAsAwq", kGptq, Reshape("m.qweight", {64, 2}),
       "'m.qweight': expected [8,16], got [64,2]"},
      {"ThreeBitWords", kGptq, Reshape("m.qweight", {6, 16}),
       "'m.qweight': expected [8,16], got [6,16]"},
      {"EightBitWords", kGptq, Reshape("m.qweight", {16, 16}),
       "'m.qweight': expected [8,16], got [16,16]"},
      {"WordsFlat", kAwq, Reshape("m.qweight", {128}),
       "'m.qweight': expected [64,2], got [128]"},
      {"WordsEmpty", kAwq, Reshape("m.qweight", {0, 2}),
       "'m.qweight': expected [64,2], got [0,2]"},
      {"ZerosOfOneGroup", kAwq, Reshape("m.qzeros", {1, 2}),
       "'m.qzeros': expected [2,2], got [1,2]"},
      {"ZerosUnpacked", kGptq, Reshape("m.qzeros", {2, 16}),
       "'m.qzeros': expected [2,2], got [2,16]"},
      {"ScalesOfOtherGroups", kGptq, Reshape("m.scales", {4, 16}),
       "'m.scales': expected [2,16], got [4,16]"},
      {"ScalesTransposed", kAwq, Reshape("m.scales", {16, 2}),
       "'m.scales': expected [2,16], got [16,2]"},
      {"IndexShort", kGptq, Reshape("m.g_idx", {63}),
       "'m.g_idx': expected [64], got [63]"},
      {"IndexOfMatrixShape", kActOrder, Reshape("m.g_idx", {1, 64}),
       "'m.g_idx': expected [64], got [1,64]"},
      {"IndexTooLarge", kGptq, SetIndex(63, 2),
       "'m.g_idx'[63]: must be in [0, 1], got 2"},
      {"IndexNegative", kActOrder, SetIndex(5, -1),
       "'m.g_idx'[5]: must be in [0, 1], got -1"},
      {"IndexHuge", kActOrder, SetIndex(0, INT32_MIN),
       "'m.g_idx'[0]: must be in [0, 1], got -2147483648"},
      {"GroupDoesNotDivide", WithGroup(kAwq, 48), Nothing(),
       "'m': 64 inputs are not a whole number of groups of 48"},
      {"GroupOverWidth", WithGroup(kGptq, 128), Nothing(),
       "'m': 64 inputs are not a whole number of groups of 128"},
      {"GroupOfOtherSize", WithGroup(kAwq, 64), Nothing(),
       "'m.qzeros': expected [1,2], got [2,2]"},
      {"GroupOfWholeRow", WithGroup(kGptq, -1), Nothing(),
       "'m.qzeros': expected [1,2], got [2,2]"},
  };
}

class BadLayersTest : public ::testing::TestWithParam<Bad> {};

TEST_P(BadLayersTest, IsRefused) {
  FileTensors file = Good(WithGroup(GetParam().format, 32));
  GetParam().change(file);
  const MemorySource source(file);
  ExpectError(
      PackedInt4::Open(source, "m", kOut, kIn, GetParam().format).status(),
      GetParam().error);
}

INSTANTIATE_TEST_SUITE_P(All, BadLayersTest, ::testing::ValuesIn(BadLayers()),
                         [](const auto& info) { return info.param.name; });

TEST(BadLayerTest, OutputsMustFillWords) {
  const MemorySource source(Good(kAwq));
  ExpectError(PackedInt4::Open(source, "m", 12, kIn, kAwq).status(),
              "'m': a packed layer must have multiples of 8, got [12,64]");
  ExpectError(
      PackedInt4::Open(source, "m", 16, 60, WithGroup(kGptq, -1)).status(),
      "'m': a packed layer must have multiples of 8, got [16,60]");
}

}  // namespace
}  // namespace qk::testing
