// Compares the ids of tokens that stand in any of a folder's files with those
// of AutoTokenizer (tests/goldens/tokenizer/make_added_token_goldens.py).
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "engine/formats/json.h"
#include "engine/tokenizer/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/formats/testing.h"
#include "tests/engine/tokenizer/tokenizer_testing.h"

namespace qk {
namespace {

void WriteFiles(const JsonValue& files, testing::TempFolder* folder) {
  const absl::Status status =
      files.ForEachMember([&](absl::string_view name, JsonValue value) {
        std::string bytes(value.AsString().value());
        if (name == "tokenizer.model") {
          std::string decoded;
          EXPECT_TRUE(absl::Base64Unescape(bytes, &decoded));
          bytes = decoded;
        }
        folder->Write(std::string(name), bytes);
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
}

std::vector<int32_t> Ids(const JsonValue& list) {
  std::vector<int32_t> ids;
  const absl::Status status = list.ForEachElement([&](JsonValue value) {
    ids.push_back(static_cast<int32_t>(value.AsInt64().value()));
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  return ids;
}

void CheckCase(const JsonValue& one, const JsonValue& vocabularies) {
  testing::TempFolder folder;
  WriteFiles(vocabularies.Get(*one.GetString("vocabulary")).value(), &folder);
  WriteFiles(one.Get("files").value(), &folder);
  const auto tokenizer = TokenizerFromFolder(folder.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ASSERT_NE(*tokenizer, nullptr);
  EncodeOptions options;
  options.add_special_tokens = false;
  options.parse_special = true;
  int texts = 0;
  const absl::Status status =
      one.GetArray("texts")->ForEachElement([&](JsonValue text) {
        const std::string input(text.GetString("text").value());
        EXPECT_THAT(
            testing::Ids(testing::EncodeOrDie(**tokenizer, input, options)),
            ::testing::ElementsAreArray(Ids(text.Get("ids").value())))
            << input;
        ++texts;
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(texts, 5);
  const auto eos = one.Find("eos");
  if (eos.has_value()) {
    EXPECT_THAT((*tokenizer)->stop_ids(),
                ::testing::ElementsAre(eos->AsInt64().value()));
  } else {
    EXPECT_THAT((*tokenizer)->stop_ids(), ::testing::IsEmpty());
  }
}

TEST(AddedTokenFilesTest, EqualAutoTokenizer) {
  const auto goldens = JsonDocument::Parse(
      "goldens", testing::ReadFile(testing::TokenizerPath("added_tokens.json")),
      {});
  ASSERT_TRUE(goldens.ok()) << goldens.status();
  const JsonValue vocabularies = goldens->root().Get("vocabularies").value();
  int cases = 0;
  const absl::Status status =
      goldens->root().GetArray("cases")->ForEachElement([&](JsonValue one) {
        SCOPED_TRACE(std::string(one.GetString("name").value()));
        CheckCase(one, vocabularies);
        ++cases;
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(cases, 128);
}

}  // namespace
}  // namespace qk
