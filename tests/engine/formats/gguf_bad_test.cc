// Tests bad GGUF files, each with the error it must give.
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/formats/gguf.h"
#include "tests/engine/formats/gguf_testing.h"

namespace qk {
namespace {

using testing::AsBytes;
using testing::ExpectError;
using testing::GgufArray;
using testing::GgufBuilder;
using testing::GgufKey;
using testing::GgufString;
using testing::GgufTensor;
using testing::GgufType32;
using testing::Raw;
using testing::TempFolder;

struct BadGguf {
  const char* name;
  std::string file;
  const char* error;
};

BadGguf WithKeys(const char* name, const std::vector<std::string>& keys,
                 const char* error) {
  GgufBuilder file;
  file.keys = keys;
  return {name, file.Build(), error};
}

BadGguf WithTensors(const char* name, const std::vector<std::string>& tensors,
                    const char* error, size_t data_bytes = 256) {
  GgufBuilder file;
  file.tensors = tensors;
  file.data = std::string(data_bytes, 'x');
  return {name, file.Build(), error};
}

BadGguf WithAlignment(const char* name, uint32_t alignment, const char* error) {
  return WithKeys(
      name, {GgufKey("general.alignment", GgufType::kUint32, Raw(alignment))},
      error);
}

GgufBuilder Counts(int64_t keys, int64_t tensors) {
  GgufBuilder file;
  file.key_count = keys;
  file.tensor_count = tensors;
  return file;
}

// Makes counts above 2^63 - 1, which GgufBuilder cannot hold.
std::string RawCounts(uint64_t tensors, uint64_t keys) {
  return "GGUF" + Raw<uint32_t>(3) + Raw(tensors) + Raw(keys) +
         std::string(100, '\0');
}

std::string ManyKeys() {
  GgufBuilder file;
  for (int i = 0; i < 65537; ++i) {
    file.keys.push_back(
        GgufKey(absl::StrCat(i), GgufType::kUint8, std::string(1, 'x')));
  }
  return file.Build();
}

std::string ManyTensors() {
  GgufBuilder file;
  for (int i = 0; i < 65537; ++i) {
    file.tensors.push_back(GgufTensor(absl::StrCat(i), {1}, 0, i * 32));
  }
  return file.Build();
}

std::vector<BadGguf> BadHeaders() {
  const std::string good = GgufBuilder().Build();
  return {
      {"NoBytes", "", "not a GGUF file"},
      {"ThreeBytes", "GGU", "not a GGUF file"},
      {"OtherMagic", "GGML" + good.substr(4), "not a GGUF file"},
      {"LowerCaseMagic", "gguf" + good.substr(4), "not a GGUF file"},
      {"SwappedMagic", "FUGG" + good.substr(4), "not a GGUF file"},
      {"Html", "<html>404</html>", "not a GGUF file"},
      {"OnlyMagic", "GGUF", "header too small"},
      {"Version0", "GGUF" + Raw<uint32_t>(0) + good.substr(8),
       "unsupported version 0; expected 2 or 3"},
      {"Version1", "GGUF" + Raw<uint32_t>(1) + good.substr(8),
       "unsupported version 1"},
      {"Version4", "GGUF" + Raw<uint32_t>(4) + good.substr(8),
       "unsupported version 4"},
      {"BigEndian", "GGUF" + Raw<uint32_t>(0x03000000) + good.substr(8),
       "unsupported version 50331648 (a big-endian file)"},
      {"OnlyVersion", good.substr(0, 8), "header too small"},
      {"OneCount", good.substr(0, 16), "header too small"},
      {"KeysAllOnes", RawCounts(0, UINT64_MAX),
       "n_kv 18446744073709551615 cannot fit in 100 bytes"},
      {"TensorsAllOnes", RawCounts(UINT64_MAX, 0),
       "n_tensors 18446744073709551615 cannot fit in 100 bytes"},
      {"KeysWrapWhenScaled", RawCounts(0, (UINT64_MAX / 14) + 2),
       "cannot fit in 100 bytes"},
      {"KeysOneTooMany", RawCounts(0, 8), "n_kv 8 cannot fit in 100 bytes"},
      {"TensorsOneTooMany", RawCounts(4, 0),
       "n_tensors 4 cannot fit in 100 bytes"},
      {"KeysOverLimit", ManyKeys(), "n_kv 65537, limit 65536"},
      {"TensorsOverLimit", ManyTensors(), "n_tensors 65537, limit 65536"},
      {"CountWithoutKeys", Counts(1, 0).Build(), "n_kv 1 cannot fit in 0"},
      {"CountWithoutTensors", Counts(0, 1).Build(),
       "n_tensors 1 cannot fit in 0"},
  };
}

std::vector<BadGguf> BadKeys() {
  const std::string pad(64, '\0');
  const std::string u8 = std::string(1, '\0');
  return {
      WithKeys("KeyPastEnd", {Raw<uint64_t>(1000) + "abc" + pad},
               "key #0: string of 1000 bytes goes past end (67 left)"),
      WithKeys("KeyLengthAllOnes", {Raw<uint64_t>(UINT64_MAX) + pad},
               "key #0: string of 18446744073709551615 bytes goes past end"),
      WithKeys("KeyEmpty", {GgufKey("", GgufType::kUint8, u8) + pad},
               "key #0: must have 1 to 65535 bytes, got 0"),
      WithKeys("KeyTooLong",
               {GgufKey(std::string(65536, 'k'), GgufType::kUint8, u8)},
               "key #0: must have 1 to 65535 bytes, got 65536"),
      WithKeys("KeyWithNul",
               {GgufKey(std::string("a\0b", 3), GgufType::kUint8, u8)},
               "key #0: NUL in 'a\\000b'"),
      WithKeys("KeyTwice",
               {GgufKey("a", GgufType::kUint8, u8),
                GgufKey("b", GgufType::kUint8, u8),
                GgufKey("a", GgufType::kFloat32, Raw(1.0f))},
               "key #2: duplicate 'a'"),
      WithKeys("TypeUnknown", {GgufKey("a", GgufType{13}, pad)},
               "kv 'a': unknown value type 13"),
      WithKeys("TypeAllOnes", {GgufKey("a", GgufType{UINT32_MAX}, pad)},
               "kv 'a': unknown value type 4294967295"),
      WithKeys("TypeCut", {GgufString("abcdef") + "xx"},
               "kv 'abcdef': file ends before the type"),
      WithKeys("ValueCut",
               {GgufKey("abcdef", GgufType::kUint64, std::string(7, '\0'))},
               "kv 'abcdef': 1 x u64 go past end (7 bytes left)"),
      WithKeys("BoolIsTwo", {GgufKey("a", GgufType::kBool, "\x02")},
               "kv 'a': a bool must be 0 or 1, got 2"),
      WithKeys("BoolInArrayIsTwo",
               {GgufArray("a", GgufType::kBool, 2, std::string("\0\x02", 2))},
               "kv 'a': a bool must be 0 or 1, got 2"),
      WithKeys("StringPastEnd",
               {GgufKey("a", GgufType::kString, Raw<uint64_t>(100) + "xyz")},
               "kv 'a': string of 100 bytes goes past end (3 left)"),
      WithKeys(
          "StringLengthAllOnes",
          {GgufKey("a", GgufType::kString, Raw<uint64_t>(UINT64_MAX) + "xyz")},
          "goes past end"),
      WithKeys("StringLengthWraps",
               {GgufKey("a", GgufType::kString,
                        Raw<uint64_t>(UINT64_MAX - 36) + "xyz")},
               "goes past end"),
      WithKeys("ArrayNested", {GgufArray("a", GgufType::kArray, 1, pad)},
               "kv 'a': arrays of arrays are unsupported"),
      WithKeys("ArrayElementUnknown", {GgufArray("a", GgufType{99}, 1, pad)},
               "kv 'a': unknown value type 99"),
      WithKeys("ArrayCut",
               {GgufKey("abcdef", GgufType::kArray,
                        GgufType32(GgufType::kUint8) + "xx")},
               "kv 'abcdef': file ends in an array"),
      WithKeys("ArrayPastEnd", {GgufArray("a", GgufType::kFloat32, 17, pad)},
               "kv 'a': 17 x f32 go past end (64 bytes left)"),
      WithKeys("ArrayCountAllOnes",
               {GgufArray("a", GgufType::kUint8, UINT64_MAX, pad)},
               "kv 'a': 18446744073709551615 x u8 go past end"),
      WithKeys("ArrayBytesWrap",
               {GgufArray("a", GgufType::kFloat64, uint64_t{1} << 61, pad)},
               "kv 'a': 2305843009213693952 x f64 go past end"),
      WithKeys("ArrayOfStringsCountHuge",
               {GgufArray("a", GgufType::kString, uint64_t{1} << 40, pad)},
               "kv 'a': 1099511627776 x string go past end"),
      WithKeys("ArrayStringPastEnd",
               {GgufArray("a", GgufType::kString, 2,
                          GgufString("ok") + Raw<uint64_t>(50) + "short")},
               "kv 'a': string of 50 bytes goes past end (5 left)"),
      WithKeys(
          "ArrayEndsInString",
          {GgufArray("a", GgufType::kString, 2, GgufString("abcdefgh") + "xx")},
          "kv 'a': file ends in a string"),
      WithAlignment("Alignment0", 0,
                    "general.alignment: must be power of two and at most "
                    "65536, got 0"),
      WithAlignment("Alignment13", 13, "general.alignment: must be power of "),
      WithAlignment("Alignment2To31", 1u << 31,
                    "general.alignment: must be power of two and at most "
                    "65536, got 2147483648"),
      WithKeys(
          "AlignmentIsU64",
          {GgufKey("general.alignment", GgufType::kUint64, Raw<uint64_t>(32))},
          "general.alignment: must be power of two, of type u32, got 32"),
      WithKeys(
          "AlignmentIsString",
          {GgufKey("general.alignment", GgufType::kString, GgufString("32"))},
          "general.alignment: must be power of two, of type u32, got "
          "\"32\""),
      WithKeys(
          "AlignmentTwice",
          {GgufKey("general.alignment", GgufType::kUint32, Raw<uint32_t>(32)),
           GgufKey("general.alignment", GgufType::kUint32, Raw<uint32_t>(32))},
          "key #1: duplicate 'general.alignment'"),
      WithKeys("SplitCountIsString",
               {GgufKey("split.count", GgufType::kString, GgufString("2"))},
               "split.count: must be an integer >= 0"),
      WithKeys("SplitCountNegative",
               {GgufKey("split.count", GgufType::kInt32, Raw<int32_t>(-2))},
               "split.count: must be an integer >= 0"),
      WithKeys("SplitNumberOverCount",
               {GgufKey("split.count", GgufType::kUint16, Raw<uint16_t>(2)),
                GgufKey("split.no", GgufType::kUint16, Raw<uint16_t>(2))},
               "split.no: must be an integer in [0, split.count)"),
  };
}

std::vector<BadGguf> BadTensors() {
  const int64_t big = int64_t{1} << 62;
  return {
      WithTensors("NameEmpty", {GgufTensor("", {1}, 0, 0)},
                  "tensor #0: name must have 1 to 63 bytes and no NUL, got ''"),
      WithTensors("Name64", {GgufTensor(std::string(64, 'n'), {1}, 0, 0)},
                  "tensor #0: name must have 1 to 63 bytes"),
      WithTensors("NameNul", {GgufTensor(std::string("a\0b", 3), {1}, 0, 0)},
                  "tensor #0: name must have 1 to 63 bytes and no NUL, got "
                  "'a\\000b'"),
      WithTensors("NamePastEnd", {Raw<uint64_t>(5000) + std::string(40, 'x')},
                  "tensor #0: string of 5000 bytes goes past end"),
      WithTensors("NameTwice",
                  {GgufTensor("a", {1}, 0, 0), GgufTensor("a", {1}, 0, 32)},
                  "duplicate tensor 'a'"),
      WithTensors("NoDimensions", {GgufTensor("a", {}, 0, 0)},
                  "tensor 'a': must have 1 to 4 dimensions, got 0"),
      WithTensors("FiveDimensions", {GgufTensor("a", {1, 1, 1, 1, 1}, 0, 0)},
                  "tensor 'a': must have 1 to 4 dimensions, got 5"),
      WithTensors(
          "DimensionsAllOnes",
          {GgufString("a") + Raw<uint32_t>(UINT32_MAX) + std::string(40, '\0')},
          "tensor 'a': must have 1 to 4 dimensions, got 4294967295"),
      WithTensors("SizeZero", {GgufTensor("a", {4, 0}, 0, 0)},
                  "tensor 'a': dimension 1 must be at least 1, got 0"),
      WithTensors("SizeNegative", {GgufTensor("a", {-4}, 0, 0)},
                  "tensor 'a': dimension 0 must be at least 1, got -4"),
      WithTensors("ProductOverflow", {GgufTensor("a", {big, 4}, 0, 0)},
                  "tensor 'a': size overflow"),
      WithTensors("ProductWrapsToOne",
                  {GgufTensor("a", {(int64_t{1} << 32) + 1, 1LL << 32}, 0, 0)},
                  "tensor 'a': size overflow"),
      WithTensors("BytesOverflow", {GgufTensor("a", {big}, 0, 0)},
                  "tensor 'a': size overflow"),
      WithTensors("HalfBlock", {GgufTensor("a", {33, 32}, 8, 0)},
                  "tensor 'a': rows of 33 are not a multiple of the 32 of "
                  "Q8_0"),
      WithTensors("HalfKBlock", {GgufTensor("a", {128, 2}, 12, 0)},
                  "tensor 'a': rows of 128 are not a multiple of the 256 of "
                  "Q4_K"),
      WithTensors("TypeAboveCount", {GgufTensor("a", {1}, 999, 0)},
                  "tensor 'a': type number 999 is not implemented"),
      WithTensors("TypeAllOnes", {GgufTensor("a", {1}, UINT32_MAX, 0)},
                  "tensor 'a': type number 4294967295 is not implemented"),
      WithTensors("TypeRemoved", {GgufTensor("a", {32}, 4, 0)},
                  "tensor 'a': type number 4 is not implemented"),
      WithTensors("TypeRemovedRepack", {GgufTensor("a", {32}, 31, 0)},
                  "tensor 'a': type number 31 is not implemented"),
      WithTensors("TypeIq2", {GgufTensor("a", {256}, 16, 0)},
                  "tensor 'a': type IQ2_XXS is not implemented"),
      WithTensors("TypeF64", {GgufTensor("a", {1}, 28, 0)},
                  "tensor 'a': type F64 is not implemented"),
      WithTensors("OffsetUnaligned", {GgufTensor("a", {1}, 0, 33)},
                  "tensor 'a': offset 33 is not a multiple of 32"),
      WithTensors("OffsetAtEnd", {GgufTensor("a", {1}, 0, 256)},
                  "tensor 'a': data [256, 256 + 4) outside file (256 bytes"),
      WithTensors("OffsetPastEnd", {GgufTensor("a", {1}, 0, 1 << 20)},
                  "tensor 'a': data [1048576, 1048576 + 4) outside file"),
      WithTensors("OffsetWraps", {GgufTensor("a", {16}, 0, UINT64_MAX - 31)},
                  "tensor 'a': data [18446744073709551584, "
                  "18446744073709551584 + 64) outside file"),
      WithTensors("DataPastEnd", {GgufTensor("a", {65}, 0, 0)},
                  "tensor 'a': data [0, 0 + 260) outside file"),
      WithTensors("NoData", {GgufTensor("a", {1}, 0, 0)},
                  "tensor 'a': data [0, 0 + 4) outside file (0 bytes", 0),
      WithTensors("Overlap",
                  {GgufTensor("a", {16}, 0, 0), GgufTensor("b", {8}, 0, 32)},
                  "tensor 'b': overlaps 'a'"),
      WithTensors("OverlapUnsorted",
                  {GgufTensor("b", {8}, 0, 32), GgufTensor("a", {16}, 0, 0)},
                  "tensor 'b': overlaps 'a'"),
      WithTensors("SameData",
                  {GgufTensor("a", {1}, 0, 0), GgufTensor("b", {1}, 0, 0)},
                  "tensor 'b': overlaps 'a'"),
      WithTensors("LastRecordCut",
                  {GgufTensor("a", {1}, 0, 0), Raw<uint64_t>(1) + "b"},
                  "tensor 'b': must have 1 to 4 dimensions", 32),
  };
}

class GgufBadTest : public ::testing::TestWithParam<BadGguf> {};

TEST_P(GgufBadTest, IsRefused) {
  ExpectError(GgufFile::Parse("m.gguf", AsBytes(GetParam().file)).status(),
              GetParam().error);
  if (GetParam().file.empty()) return;
  const TempFolder folder;
  ExpectError(GgufFile::Open(folder.Write("m.gguf", GetParam().file)).status(),
              "m.gguf: ");
}

const auto kNameOfBad = [](const auto& param) { return param.param.name; };

INSTANTIATE_TEST_SUITE_P(Headers, GgufBadTest,
                         ::testing::ValuesIn(BadHeaders()), kNameOfBad);
INSTANTIATE_TEST_SUITE_P(Keys, GgufBadTest, ::testing::ValuesIn(BadKeys()),
                         kNameOfBad);
INSTANTIATE_TEST_SUITE_P(Tensors, GgufBadTest,
                         ::testing::ValuesIn(BadTensors()), kNameOfBad);

TEST(GgufTest, ModelInSeveralFilesIsUnimplemented) {
  GgufBuilder file;
  file.keys = {GgufKey("split.count", GgufType::kUint16, Raw<uint16_t>(3)),
               GgufKey("split.no", GgufType::kUint16, Raw<uint16_t>(0))};
  const std::string bytes = file.Build();
  const absl::Status status = GgufFile::Parse("m", AsBytes(bytes)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(status.message(),
            "m: split.count: a model in 3 files is not supported; merge them "
            "into one");
}

}  // namespace
}  // namespace qk
