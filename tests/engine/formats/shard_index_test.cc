#include <sys/stat.h>
#include <unistd.h>

#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/sha256.h"
#include "engine/formats/safetensors.h"
#include "tests/engine/formats/testing.h"

namespace qk {
namespace {

using testing::ExpectError;
using testing::Raw;
using testing::TempFolder;

constexpr char kIndex[] = "model.safetensors.index.json";

// Returns a file with float16 tensors of one element each.
std::string Shard(const std::vector<std::string>& names,
                  const char* dtype = "F16") {
  std::string header = "{";
  for (size_t i = 0; i < names.size(); ++i) {
    absl::StrAppend(
        &header, i == 0 ? "" : ",", "\"", names[i], "\":{\"dtype\":\"", dtype,
        "\",\"shape\":[1],\"data_offsets\":[", 2 * i, ",", 2 * i + 2, "]}");
  }
  header += "}";
  return Raw<uint64_t>(header.size()) + header +
         std::string(2 * names.size(), 'x');
}

std::string Index(const std::map<std::string, std::string>& files) {
  std::string json = R"({"metadata":{"total_size":6},"weight_map":{)";
  for (const auto& [tensor, file] : files) {
    absl::StrAppend(&json, json.back() == '{' ? "" : ",", "\"", tensor, "\":\"",
                    file, "\"");
  }
  return json + "}}";
}

constexpr char kFirst[] = "model-00001-of-00002.safetensors";
constexpr char kSecond[] = "model-00002-of-00002.safetensors";

std::string GoodIndex() {
  return Index({{"a", kSecond}, {"b", kFirst}, {"c", kSecond}});
}

void WriteGood(const TempFolder& folder) {
  folder.Write(kFirst, Shard({"b"}));
  folder.Write(kSecond, Shard({"c", "a"}));
  folder.Write(kIndex, GoodIndex());
}

TEST(ShardIndexTest, OpensAllShards) {
  const TempFolder folder;
  WriteGood(folder);
  for (const std::string& path :
       {folder.path(), folder.path() + "/" + kIndex}) {
    const auto source = OpenSafetensors(path);
    ASSERT_TRUE(source.ok()) << source.status();
    std::string order;
    for (const TensorInfo& tensor : (*source)->tensors()) order += tensor.name;
    EXPECT_EQ(order, "bca");
    EXPECT_EQ((*source)->Find("a")->data.size(), 2u);
    const std::string bytes = Shard({"b"}) + Shard({"c", "a"});
    EXPECT_EQ((*source)->file_bytes(), static_cast<int64_t>(bytes.size()));
    Sha256 sha;
    sha.Update(bytes.data(), bytes.size());
    EXPECT_EQ((*source)->Sha256Hex(), sha.FinishHex());
  }
}

TEST(ShardIndexTest, IntegerTensorsMayBeListed) {
  const TempFolder folder;
  WriteGood(folder);
  folder.Write(kFirst, Shard({"b"}, "I16"));
  const auto source = OpenSafetensors(folder.path());
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->Find("b"), nullptr);
}

struct BadIndex {
  const char* name;
  std::string json;
  const char* error;
};

std::string MapTo(const std::string& file) { return Index({{"a", file}}); }

std::string ManyShards() {
  std::map<std::string, std::string> files;
  for (int i = 0; i < 10000; ++i) {
    files[absl::StrCat("t", i)] = absl::StrCat("m", i, ".safetensors");
  }
  return Index(files);
}

const char kBadName[] = "weight_map.a: must be the name of a .safetensors";

class ShardIndexBadTest : public ::testing::TestWithParam<BadIndex> {};

TEST_P(ShardIndexBadTest, IsRefused) {
  ExpectError(ParseShardIndex(kIndex, GetParam().json).status(),
              absl::StrCat("model.safetensors.index.json: ", GetParam().error));
}

INSTANTIATE_TEST_SUITE_P(
    Indexes, ShardIndexBadTest,
    ::testing::ValuesIn(std::vector<BadIndex>{
        {"Empty", "", "empty"},
        {"NotJson", "weights", "not valid JSON at byte 0"},
        {"Array", "[]", "must be an object, got an array"},
        {"NoMap", R"({"metadata":{}})", "weight_map: missing"},
        {"NullMap", R"({"weight_map":null})", "weight_map: missing"},
        {"MapIsArray", R"({"weight_map":["a"]})",
         "weight_map: must be an object, got an array"},
        {"MapIsEmpty", R"({"weight_map":{}})",
         "weight_map: must list 1 to 1048576 tensors, got 0"},
        {"FileIsNumber", R"({"weight_map":{"a":1}})",
         "weight_map.a: must be a string, got 1"},
        {"FileIsNull", R"({"weight_map":{"a":null}})",
         "weight_map.a: must be a string, got null"},
        {"TensorTwice",
         R"({"weight_map":{"a":"x.safetensors","a":"y.safetensors"}})",
         "duplicate key \"a\""},
        {"MapTwice", R"({"weight_map":{},"weight_map":{}})",
         "duplicate key \"weight_map\""},
        {"DotDot", MapTo("../m.safetensors"), kBadName},
        {"DotDotOnly", MapTo(".."), kBadName},
        {"HiddenFile", MapTo(".m.safetensors"), kBadName},
        {"Absolute", MapTo("/etc/m.safetensors"), kBadName},
        {"Folder", MapTo("sub/m.safetensors"), kBadName},
        {"DoubleSlash", MapTo("//m.safetensors"), kBadName},
        {"Backslash", MapTo(R"(..\\m.safetensors)"), kBadName},
        {"NulInName", MapTo(R"(m\u0000.safetensors)"), kBadName},
        {"EmptyName", MapTo(""), kBadName},
        {"NoExtension", MapTo("model.bin"), kBadName},
        {"Cycle", MapTo(kIndex), kBadName},
        {"LongName", MapTo(std::string(300, 'm') + ".safetensors"), kBadName},
        {"NotUtf8", "{\"weight_map\":{\"a\":\"\xff\"}}", "invalid UTF-8"},
        {"TooDeep", R"({"metadata":[[[[[[[[1]]]]]]]],"weight_map":{}})",
         "nested deeper than 8 levels"},
        {"ManyShards", ManyShards(), "weight_map: more than 1024 shards"},
    }),
    [](const auto& param) { return param.param.name; });

TEST(ShardIndexTest, MissingShard) {
  const TempFolder folder;
  WriteGood(folder);
  ASSERT_EQ(unlink((folder.path() + "/" + kSecond).c_str()), 0);
  const absl::Status status = OpenSafetensors(folder.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "model-00002-of-00002.safetensors: no such file");
}

TEST(ShardIndexTest, ShardsThatDisagreeWithTheIndex) {
  const TempFolder folder;
  const std::string prefix = "model.safetensors.index.json: tensor ";
  const auto open = [&] { return OpenSafetensors(folder.path()).status(); };
  WriteGood(folder);
  folder.Write(kFirst, Shard({"b", "a"}));
  ExpectError(open(),
              prefix + "'a' is in two shards: " + kFirst + " and " + kSecond);
  folder.Write(kFirst, Shard({"b", "d"}));
  ExpectError(open(), prefix + "'d' is not listed, but is in " + kFirst);
  folder.Write(kFirst, Shard({}));
  ExpectError(open(), prefix + "'b' is missing from " + kFirst);
  folder.Write(kFirst, Shard({"b", "a"}));
  folder.Write(kSecond, Shard({"c"}));
  ExpectError(open(),
              prefix + "'a' is in " + kFirst + ", expected in " + kSecond);
}

TEST(ShardIndexTest, ShardsThatAreNoModelFiles) {
  const TempFolder folder;
  const std::string shard = folder.path() + "/" + kSecond;
  const auto open = [&] { return OpenSafetensors(folder.path()).status(); };
  WriteGood(folder);
  folder.Write(kSecond, Shard({"c", "a"}) + "x");
  ExpectError(open(), "model-00002-of-00002.safetensors: extra data: 1 bytes");
  folder.Write(kSecond, "");
  ExpectError(open(), "model-00002-of-00002.safetensors: empty file");
  ASSERT_EQ(unlink(shard.c_str()), 0);
  ASSERT_EQ(mkdir(shard.c_str(), 0700), 0);
  ExpectError(open(), "model-00002-of-00002.safetensors: not a regular file");
  ASSERT_EQ(rmdir(shard.c_str()), 0);
  ASSERT_EQ(mkfifo(shard.c_str(), 0600), 0);
  ExpectError(open(), "model-00002-of-00002.safetensors: not a regular file");
}

TEST(ShardIndexTest, TruncatedOrFlippedNeverCrashes) {
  const std::string good = GoodIndex();
  testing::TruncateAndFlip(good, good.size(), [](const std::string& json) {
    const auto index = ParseShardIndex("index", json);
    if (!index.ok()) return index.status();
    for (const auto& [tensor, file] : index->tensors) {
      EXPECT_LT(file, index->files.size());
    }
    return absl::OkStatus();
  });
}

}  // namespace
}  // namespace qk
