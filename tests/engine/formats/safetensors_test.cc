#include "engine/formats/safetensors.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/sha256.h"
#include "tests/engine/formats/testing.h"

namespace qk {
namespace {

using testing::AsBytes;
using testing::ExpectError;
using testing::Raw;
using testing::TempFolder;

std::string File(const std::string& header, size_t data_bytes) {
  std::string data(data_bytes, '\0');
  for (size_t i = 0; i < data_bytes; ++i) data[i] = static_cast<char>(i);
  return Raw<uint64_t>(header.size()) + header + data;
}

// `a` is F32 (2, 3), `b` BF16 (4), `c` an I64 scalar; the header's order is not
// the file's.
const char kGood[] =
    R"({"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},)"
    R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
    R"("c":{"dtype":"I64","shape":[],"data_offsets":[32,40]},)"
    R"("__metadata__":{"format":"pt"}}   )";

// Returns a header with one tensor `t`.
std::string One(const std::string& dtype, const std::string& shape,
                const std::string& offsets) {
  return absl::StrCat(R"({"t":{"dtype":)", dtype, R"(,"shape":)", shape,
                      R"(,"data_offsets":)", offsets, "}}");
}

TEST(SafetensorsTest, ReadsTensorsInFileOrder) {
  const std::string file = File(kGood, 40);
  const auto contents = ParseSafetensors("m", AsBytes(file));
  ASSERT_TRUE(contents.ok()) << contents.status();
  ASSERT_EQ(contents->tensors.size(), 2u);
  const TensorInfo& a = contents->tensors[0];
  EXPECT_EQ(a.name, "a");
  EXPECT_EQ(a.dtype, DType::kF32);
  EXPECT_EQ(a.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(a.data.size(), 24u);
  EXPECT_EQ(a.data[5], 5);
  const TensorInfo& b = contents->tensors[1];
  EXPECT_EQ(b.name, "b");
  EXPECT_EQ(b.dtype, DType::kBF16);
  EXPECT_EQ(b.data[0], 24);
  EXPECT_EQ(contents->others, (std::vector<std::string>{"c"}));
}

TEST(SafetensorsTest, OddButValidFiles) {
  for (const auto& [header, bytes] :
       std::vector<std::pair<std::string, size_t>>{
           {"{}", 0},
           {One("\"F16\"", "[]", "[0,2]"), 2},
           {One("\"F16\"", "[0,5]", "[0,0]"), 0},
           {One("\"F16\"", "[1,1,1,1,1,1,1,1]", "[0,2]"), 2},
           {R"({"__metadata__":{}})", 0},
           // An empty tensor may be at the border between two others.
           {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
            R"("e":{"dtype":"F32","shape":[0],"data_offsets":[1,1]},)"
            R"("b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
            2},
       }) {
    const std::string file = File(header, bytes);
    EXPECT_TRUE(ParseSafetensors("m", AsBytes(file)).ok()) << header;
  }
}

struct BadFile {
  const char* name;
  std::string file;
  const char* error;
};

BadFile BadHeader(const char* name, const std::string& header,
                  const char* error, size_t data_bytes = 4) {
  return {name, File(header, data_bytes), error};
}

BadFile BadOne(const char* name, const std::string& dtype,
               const std::string& shape, const std::string& offsets,
               const char* error, size_t data_bytes = 4) {
  return BadHeader(name, One(dtype, shape, offsets), error, data_bytes);
}

std::string Two(const std::string& a, const std::string& b) {
  return absl::StrCat(R"({"a":{"dtype":"F16","shape":[2],"data_offsets":)", a,
                      R"(},"b":{"dtype":"F16","shape":[2],"data_offsets":)", b,
                      "}}");
}

std::string ManyTensors(int count) {
  std::vector<std::string> tensors;
  for (int i = 0; i < count; ++i) {
    tensors.push_back(absl::StrCat(
        "\"", i, R"(":{"dtype":"F16","shape":[0],"data_offsets":[0,0]})"));
  }
  return absl::StrCat("{", absl::StrJoin(tensors, ","), "}");
}

std::vector<BadFile> BadFraming() {
  return {
      {"NoBytes", "", "header too small: the file has 0 bytes"},
      {"SevenBytes", "1234567", "header too small: the file has 7 bytes"},
      {"OnlyLength", Raw<uint64_t>(2), "invalid header length: 2"},
      {"ZeroLength", Raw<uint64_t>(0) + "{}", "invalid header length: 0"},
      {"LengthOverFile", Raw<uint64_t>(3) + "{}",
       "invalid header length: 3, expected 1 to 2"},
      {"LengthOverLimit", Raw<uint64_t>((32u << 20) + 1) + "{}",
       "header too large: 33554433 bytes, limit 33554432"},
      {"LengthAllOnes", Raw<uint64_t>(UINT64_MAX) + "{}", "header too large"},
      {"LengthTopBit", Raw<uint64_t>(uint64_t{1} << 63) + "{}",
       "header too large"},
      BadHeader("EmptyJson", " ", "invalid header: must start with '{'"),
      BadHeader("LeadingSpace", " {}", "invalid header: must start with '{'"),
      BadHeader("Array", "[1]", "invalid header: must start with '{', got '['"),
      BadHeader("Pickle", "\x80\x02}q", "must start with '{', got '\\200'"),
      BadHeader("NotJson", "{nope}", "invalid header: not valid JSON"),
      BadHeader("CutJson", R"({"t":{"dtype":"F32")", "invalid header: not"),
      BadHeader("NotUtf8", "{\"\xff\":1}", "invalid header: invalid UTF-8"),
      BadHeader("NulPadding", std::string("{}\0", 3), "invalid header: not"),
      BadHeader("TwoValues", "{}{}", "invalid header: not valid JSON at byte"),
      BadHeader("TooDeep", R"({"t":{"shape":[[[1]]]}})",
                "invalid header: nested deeper than 4 levels"),
      BadHeader("DuplicateTensor",
                R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                R"("t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                "invalid header: duplicate key \"t\""),
      BadHeader("DuplicateField",
                R"({"t":{"dtype":"F32","dtype":"F16","shape":[1],)"
                R"("data_offsets":[0,4]}})",
                "invalid header: duplicate key \"dtype\""),
      BadHeader("TooManyTensors", ManyTensors(65537),
                "invalid header: 65537 tensors, limit 65536"),
      BadHeader("MetadataArray", R"({"__metadata__":["x"]})",
                "invalid metadata: must be an object, got an array"),
      BadHeader("MetadataNumber", R"({"__metadata__":{"x":1}})",
                "invalid metadata: 'x' must be a string, got 1"),
      BadHeader("MetadataNested", R"({"__metadata__":{"x":{"y":"z"}}})",
                "invalid metadata: 'x' must be a string, got an object"),
      BadHeader("MetadataNull", R"({"__metadata__":null})",
                "invalid metadata: must be an object, got null"),
  };
}

std::vector<BadFile> BadTensors() {
  return {
      BadHeader("TensorNumber", R"({"t":1})",
                "invalid header: t: must be an object, got 1"),
      BadHeader("NoDtype", R"({"t":{"shape":[1],"data_offsets":[0,4]}})",
                "invalid header: t.dtype: missing"),
      BadHeader("NoShape", R"({"t":{"dtype":"F32","data_offsets":[0,4]}})",
                "invalid header: t.shape: missing"),
      BadHeader("NoOffsets", R"({"t":{"dtype":"F32","shape":[1]}})",
                "invalid header: t.data_offsets: missing"),
      BadOne("DtypeNumber", "5", "[1]", "[0,4]",
             "t.dtype: must be a string, got 5"),
      BadOne("DtypeUnknown", "\"F99\"", "[1]", "[0,4]",
             "unsupported dtype 'F99' of tensor 't'"),
      BadOne("DtypeLowerCase", "\"f32\"", "[1]", "[0,4]",
             "unsupported dtype 'f32'"),
      BadOne("DtypeF64", "\"F64\"", "[1]", "[0,8]", "unsupported dtype 'F64'",
             8),
      BadOne("DtypeF8", "\"F8_E4M3\"", "[4]", "[0,4]",
             "unsupported dtype 'F8_E4M3'"),
      BadOne("DtypeSubByteMisaligned", "\"F4\"", "[3]", "[0,2]",
             "unsupported dtype 'F4'", 2),
      BadOne("ShapeString", "\"F32\"", "\"1\"", "[0,4]",
             "t.shape: must be an array"),
      BadOne("ShapeFraction", "\"F32\"", "[1.5]", "[0,4]",
             "t.shape[0]: must be an integer, got 1.5"),
      BadOne("ShapeNegative", "\"F32\"", "[1,-1]", "[0,4]",
             "t.shape[1]: must be at least 0, got -1"),
      BadOne("ShapeTooLong", "\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]",
             "t.shape[8]: at most 8 dimensions"),
      BadOne("ShapeProductOverflow", "\"F32\"", "[4294967296,4294967296]",
             "[0,4]", "validation overflow: shape of tensor 't'"),
      BadOne("ShapeBytesOverflow", "\"F32\"", "[4611686018427387904]", "[0,4]",
             "validation overflow: shape of tensor 't'"),
      BadOne("ShapeOver63Bits", "\"F32\"", "[9223372036854775808]", "[0,4]",
             "validation overflow: shape of tensor 't'"),
      BadOne("ShapeOver64Bits", "\"F32\"", "[99999999999999999999]", "[0,4]",
             "invalid header: not valid JSON: a number is out of range"),
      BadOne("ShapeWrapsToFour", "\"F32\"", "[4611686018427387905]", "[0,4]",
             "validation overflow: shape of tensor 't'"),
      BadOne("OffsetsOne", "\"F32\"", "[1]", "[0]",
             "t.data_offsets: must hold 2 numbers, got 1"),
      BadOne("OffsetsThree", "\"F32\"", "[1]", "[0,4,8]",
             "t.data_offsets: must hold 2 numbers, got 3"),
      BadOne("OffsetsNegative", "\"F32\"", "[1]", "[-4,0]",
             "t.data_offsets[0]: must be at least 0, got -4"),
      BadOne("OffsetsStrings", "\"F32\"", "[1]", R"(["0","4"])",
             "t.data_offsets[0]: must be an integer"),
      BadOne("BeginAfterEnd", "\"F32\"", "[1]", "[4,0]",
             "invalid offset for tensor 't': [4, 0) must hold 4 bytes"),
      BadOne("SizeUnderShape", "\"F32\"", "[2]", "[0,4]",
             "invalid offset for tensor 't': [0, 4) must hold 8 bytes of F32 "
             "[2]"),
      BadOne("SizeOverShape", "\"F16\"", "[1]", "[0,4]",
             "invalid offset for tensor 't': [0, 4) must hold 2 bytes"),
      BadOne("OffsetsHuge", "\"F32\"", "[1]",
             "[18446744073709551612,18446744073709551615]",
             "invalid offset for tensor 't'"),
      BadOne("GapAtStart", "\"F32\"", "[1]", "[4,8]",
             "invalid offset for tensor 't': starts at 4, expected 0", 8),
      BadHeader("Gap", Two("[0,4]", "[8,12]"),
                "invalid offset for tensor 'b': starts at 8, expected 4", 12),
      BadHeader("Overlap", Two("[0,4]", "[2,6]"),
                "invalid offset for tensor 'b': starts at 2, expected 4", 6),
      BadHeader("SameBytes", Two("[0,4]", "[0,4]"),
                "invalid offset for tensor 'b': starts at 0, expected 4", 4),
      BadHeader("UnsortedGap", Two("[8,12]", "[0,4]"),
                "invalid offset for tensor 'a': starts at 8, expected 4", 12),
      BadOne("DataMissing", "\"F32\"", "[1]", "[0,4]",
             "incomplete data: the tensors need 4 bytes, the file has 3", 3),
      BadOne("DataExtra", "\"F32\"", "[1]", "[0,4]",
             "extra data: 1 bytes after the last tensor", 5),
      BadHeader("OnlyData", "{}", "extra data: 9 bytes", 9),
      BadOne("EmptyTensorOutside", "\"F32\"", "[0]", "[4,4]",
             "invalid offset for tensor 't': starts at 4, expected 0", 4),
      BadHeader("LongNameIsCut",
                absl::StrCat("{\"", std::string(5000, 'n'),
                             R"(":{"dtype":"X","shape":[],)"
                             R"("data_offsets":[0,0]}})"),
                "unsupported dtype 'X' of tensor 'nnn"),
      BadHeader("NameIsEscaped",
                R"({"a\nb\u0000":{"dtype":"X","shape":[],)"
                R"("data_offsets":[0,0]}})",
                "unsupported dtype 'X' of tensor 'a\\nb\\000'"),
  };
}

class SafetensorsBadTest : public ::testing::TestWithParam<BadFile> {};

TEST_P(SafetensorsBadTest, IsRefused) {
  ExpectError(
      ParseSafetensors("model.safetensors", AsBytes(GetParam().file)).status(),
      GetParam().error);
  const TempFolder folder;
  if (GetParam().file.empty()) return;
  folder.Write("model.safetensors", GetParam().file);
  ExpectError(OpenSafetensors(folder.path()).status(),
              absl::StrCat("model.safetensors: "));
}

const auto kNameOfBad = [](const auto& param) { return param.param.name; };

INSTANTIATE_TEST_SUITE_P(Framing, SafetensorsBadTest,
                         ::testing::ValuesIn(BadFraming()), kNameOfBad);
INSTANTIATE_TEST_SUITE_P(Tensors, SafetensorsBadTest,
                         ::testing::ValuesIn(BadTensors()), kNameOfBad);

TEST(SafetensorsTest, TruncatedOrFlippedNeverCrashes) {
  testing::TruncateAndFlip(
      File(kGood, 40), 8 + sizeof(kGood) - 1, [](const std::string& bytes) {
        const auto contents = ParseSafetensors("m", AsBytes(bytes));
        if (!contents.ok()) return contents.status();
        for (const TensorInfo& tensor : contents->tensors) {
          EXPECT_GE(tensor.data.data(), AsBytes(bytes).data());
          EXPECT_LE(tensor.data.end(), AsBytes(bytes).end());
        }
        return absl::OkStatus();
      });
}

TEST(SafetensorsTest, OpensAFolder) {
  const TempFolder folder;
  const std::string file = File(kGood, 40);
  const std::string path = folder.Write("model.safetensors", file);
  for (const std::string& opened : {folder.path(), path}) {
    const auto source = OpenSafetensors(opened);
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_EQ((*source)->tensors().size(), 2u);
    ASSERT_NE((*source)->Find("b"), nullptr);
    EXPECT_EQ((*source)->Find("b")->shape[0], 4);
    EXPECT_EQ((*source)->Find("c"), nullptr);
    EXPECT_EQ((*source)->file_bytes(), static_cast<int64_t>(file.size()));
    Sha256 sha;
    sha.Update(file.data(), file.size());
    EXPECT_EQ((*source)->Sha256Hex(), sha.FinishHex());
    (*source)->DropPages();
    EXPECT_EQ((*source)->Find("a")->data[7], 7);
  }
}

TEST(SafetensorsTest, FolderWithoutModel) {
  const TempFolder folder;
  const absl::Status status = OpenSafetensors(folder.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              ::testing::HasSubstr("has neither model.safetensors nor "
                                   "model.safetensors.index.json"));
  testing::ExpectGoodMessage(status);
}

}  // namespace
}  // namespace qk
