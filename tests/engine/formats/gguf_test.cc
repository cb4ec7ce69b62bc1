// Tests good GGUF files. gguf_bad_test.cc tests bad ones.
#include "engine/formats/gguf.h"

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/sha256.h"
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
using testing::Raw;
using testing::TempFolder;

GgufBuilder Good(uint32_t version) {
  GgufBuilder file;
  file.version = version;
  file.keys = {
      GgufKey("u8", GgufType::kUint8, Raw<uint8_t>(200)),
      GgufKey("i8", GgufType::kInt8, Raw<int8_t>(-100)),
      GgufKey("u16", GgufType::kUint16, Raw<uint16_t>(60000)),
      GgufKey("i16", GgufType::kInt16, Raw<int16_t>(-30000)),
      GgufKey("u32", GgufType::kUint32, Raw<uint32_t>(4000000000)),
      GgufKey("i32", GgufType::kInt32, Raw<int32_t>(-2000000000)),
      GgufKey("u64", GgufType::kUint64, Raw<uint64_t>(INT64_MAX)),
      GgufKey("u64.huge", GgufType::kUint64, Raw<uint64_t>(UINT64_MAX)),
      GgufKey("i64", GgufType::kInt64, Raw<int64_t>(INT64_MIN)),
      GgufKey("f32", GgufType::kFloat32, Raw(0.1f)),
      GgufKey("f64", GgufType::kFloat64, Raw(0.1)),
      GgufKey("f32.nan", GgufType::kFloat32, Raw(std::nanf(""))),
      GgufKey("yes", GgufType::kBool, Raw<uint8_t>(1)),
      GgufKey("name", GgufType::kString, GgufString("llama")),
      GgufKey("empty", GgufType::kString, GgufString("")),
      GgufArray("strings", GgufType::kString, 3,
                GgufString("a") + GgufString("") +
                    GgufString(std::string("b\0c", 3))),
      GgufArray("ints", GgufType::kInt32, 2,
                Raw<int32_t>(-1) + Raw<int32_t>(7)),
      GgufArray("floats", GgufType::kFloat32, 2, Raw(1.5f) + Raw(-0.0f)),
      GgufArray("none", GgufType::kFloat32, 0, ""),
  };
  file.tensors = {GgufTensor("w", {32, 2}, 8, 0),  // Q8_0: 68 bytes
                  GgufTensor("b", {3}, 0, 96)};    // F32: 12 bytes
  for (int i = 0; i < 108; ++i) file.data += static_cast<char>(i);
  return file;
}

class GgufVersionTest : public ::testing::TestWithParam<uint32_t> {};

TEST_P(GgufVersionTest, ReadsTensors) {
  const std::string bytes = Good(GetParam()).Build();
  const auto file = GgufFile::Parse("m", AsBytes(bytes));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->version(), GetParam());
  ASSERT_EQ((*file)->tensors().size(), 2u);
  const TensorInfo* w = (*file)->Find("w");
  ASSERT_NE(w, nullptr);
  EXPECT_EQ(w->dtype, DType::kQ8_0);
  EXPECT_EQ(w->shape, (std::vector<int64_t>{2, 32}));  // outermost first
  EXPECT_EQ(w->data.size(), 68u);
  EXPECT_EQ(w->data[1], 1);
  const TensorInfo* b = (*file)->Find("b");
  EXPECT_EQ(b->data.size(), 12u);
  EXPECT_EQ(b->data[0], 96);
  EXPECT_EQ((*file)->Find("x"), nullptr);
}

TEST_P(GgufVersionTest, ReadsMetadata) {
  const std::string bytes = Good(GetParam()).Build();
  const auto parsed = GgufFile::Parse("m", AsBytes(bytes));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const GgufFile& file = **parsed;
  EXPECT_EQ(file.keys().size(), 19u);
  EXPECT_EQ(file.keys()[0], "u8");
  EXPECT_EQ(*file.GetInt64("u8"), 200);
  EXPECT_EQ(*file.GetInt64("i8"), -100);
  EXPECT_EQ(*file.GetInt64("u16"), 60000);
  EXPECT_EQ(*file.GetInt64("i16"), -30000);
  EXPECT_EQ(*file.GetInt64("u32"), 4000000000);
  EXPECT_EQ(*file.GetInt64("i32"), -2000000000);
  EXPECT_EQ(*file.GetInt64("u64"), INT64_MAX);
  EXPECT_EQ(*file.GetInt64("i64"), INT64_MIN);
  EXPECT_EQ(*file.GetDouble("f32"), 0.1f);
  EXPECT_EQ(*file.GetDouble("f64"), 0.1);
  EXPECT_TRUE(*file.GetBool("yes"));
  EXPECT_EQ(*file.GetString("name"), "llama");
  EXPECT_EQ(*file.GetString("empty"), "");
  EXPECT_TRUE(file.IsArray("ints"));
  EXPECT_FALSE(file.IsArray("u8"));
  EXPECT_FALSE(file.IsArray("missing"));
  const auto strings = *file.GetStrings("strings");
  EXPECT_EQ(strings, (std::vector<absl::string_view>{
                         "a", "", absl::string_view("b\0c", 3)}));
  EXPECT_GE(strings[0].data(), bytes.data());  // a view, not a copy
  EXPECT_LT(strings[0].data(), bytes.data() + bytes.size());
  EXPECT_EQ(*file.GetInt64s("ints"), (std::vector<int64_t>{-1, 7}));
  EXPECT_EQ(*file.GetFloats("floats"), (std::vector<float>{1.5f, -0.0f}));
  EXPECT_TRUE(file.GetFloats("none")->empty());
  EXPECT_EQ(*file.GetInt64Or("missing", 5), 5);
  EXPECT_EQ(*file.GetInt64InRangeOr("missing", 1, 2, 5), 5);
  EXPECT_EQ(*file.GetDoubleOr("missing", 0.5), 0.5);
  EXPECT_TRUE(*file.GetBoolOr("missing", true));
  EXPECT_EQ(*file.GetStringOr("missing", "x"), "x");
  EXPECT_EQ(*file.GetInt64Or("u8", 5), 200);
}

TEST_P(GgufVersionTest, MetadataErrorsNameKeyGotAndExpected) {
  const std::string bytes = Good(GetParam()).Build();
  const auto parsed = GgufFile::Parse("m.gguf", AsBytes(bytes));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const GgufFile& file = **parsed;
  ExpectError(file.GetInt64("gpt2.head_count").status(),
              "m.gguf: gpt2.head_count: missing");
  ExpectError(file.GetInt64("name").status(),
              "m.gguf: name: must be an integer, got \"llama\"");
  ExpectError(file.GetInt64("f32").status(), "must be an integer, got 0.1");
  ExpectError(file.GetInt64("u64.huge").status(),
              "must be an integer, got 18446744073709551615");
  ExpectError(file.GetInt64("ints").status(),
              "ints: must be an integer, got an array of 2 i32");
  ExpectError(file.GetInt64Or("yes", 1).status(), "an integer, got true");
  ExpectError(file.GetInt64InRange("i8", 0, 9).status(),
              "m.gguf: i8: must be in [0, 9], got -100");
  ExpectError(file.GetDouble("u8").status(), "a finite f32 or f64, got 200");
  ExpectError(file.GetDouble("f32.nan").status(), "a finite f32 or f64, got");
  ExpectError(file.GetDouble("floats").status(), "got an array of 2 f32");
  ExpectError(file.GetBool("u8").status(), "u8: must be a bool, got 200");
  ExpectError(file.GetString("strings").status(),
              "must be a string, got an array of 3 string");
  ExpectError(file.GetStrings("name").status(), "must be an array, got");
  ExpectError(file.GetStrings("ints").status(), "an array of strings, got");
  ExpectError(file.GetInt64s("floats").status(), "an array of integers, got");
  ExpectError(file.GetFloats("ints").status(), "an array of f32 or f64, got");
  ExpectError(file.Error("a.b", "too odd"), "m.gguf: a.b: too odd");
}

TEST_P(GgufVersionTest, OpensAFile) {
  const TempFolder folder;
  const std::string bytes = Good(GetParam()).Build();
  const auto file = GgufFile::Open(folder.Write("m.gguf", bytes));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->name(), "m.gguf");
  EXPECT_EQ((*file)->file_bytes(), static_cast<int64_t>(bytes.size()));
  Sha256 sha;
  sha.Update(bytes.data(), bytes.size());
  EXPECT_EQ((*file)->Sha256Hex(), sha.FinishHex());
  (*file)->DropPages();
  EXPECT_EQ((*file)->Find("w")->data[7], 7);
  EXPECT_EQ(*(*file)->GetString("name"), "llama");
}

TEST_P(GgufVersionTest, TruncatedOrFlippedNeverCrashes) {
  const std::string good = Good(GetParam()).Build();
  ASSERT_LE(good.size(), 4096u);
  testing::TruncateAndFlip(good, good.size(), [](const std::string& bytes) {
    const auto file = GgufFile::Parse("m", AsBytes(bytes));
    if (!file.ok()) return file.status();
    for (const TensorInfo& tensor : (*file)->tensors()) {
      EXPECT_GE(tensor.data.data(), AsBytes(bytes).data());
      EXPECT_LE(tensor.data.end(), AsBytes(bytes).end());
    }
    for (const absl::string_view key : (*file)->keys()) {
      (void)(*file)->GetInt64(key);
      (void)(*file)->GetDouble(key);
      (void)(*file)->GetString(key);
      (void)(*file)->GetStrings(key);
      (void)(*file)->GetInt64s(key);
      (void)(*file)->GetFloats(key);
    }
    return absl::OkStatus();
  });
}

INSTANTIATE_TEST_SUITE_P(Versions, GgufVersionTest, ::testing::Values(2, 3));

TEST(GgufTest, OddButValidFiles) {
  GgufBuilder empty;
  EXPECT_TRUE(GgufFile::Parse("m", AsBytes(empty.Build())).ok());

  GgufBuilder aligned;
  aligned.alignment = 64;
  aligned.keys = {
      GgufKey("general.alignment", GgufType::kUint32, Raw<uint32_t>(64))};
  aligned.tensors = {GgufTensor("b", {1}, 0, 64), GgufTensor("a", {1}, 0, 0)};
  aligned.data = std::string(68, 'x');
  const std::string bytes = aligned.Build();
  const auto file = GgufFile::Parse("m", AsBytes(bytes));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->Find("a")->data.data() + 64,
            (*file)->Find("b")->data.data());

  aligned.data += "trailing padding";
  EXPECT_TRUE(GgufFile::Parse("m", AsBytes(aligned.Build())).ok());

  GgufBuilder one_part;
  one_part.keys = {GgufKey("split.count", GgufType::kUint16, Raw<uint16_t>(1)),
                   GgufKey("split.no", GgufType::kUint16, Raw<uint16_t>(0))};
  EXPECT_TRUE(GgufFile::Parse("m", AsBytes(one_part.Build())).ok());
}

TEST(GgufTest, MissingFileIsNotFound) {
  EXPECT_EQ(GgufFile::Open("/nowhere/m.gguf").status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace qk
