// Small tokenizers for tests.
#ifndef QKSCOPE_TESTS_ENGINE_TOKENIZER_TOKENIZER_TESTING_H_
#define QKSCOPE_TESTS_ENGINE_TOKENIZER_TOKENIZER_TESTING_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_replace.h"
#include "engine/tokenizer/tokenizer.h"
#include "gtest/gtest.h"
#include "tests/engine/formats/testing.h"

namespace qk::testing {

// A tokenizer.json with every member. The ids are a b c ab abc, and <s> = 5,
// which the template puts in front.
inline std::string TinyJson() {
  return R"({
"version": "1.0",
"truncation": null,
"padding": null,
"added_tokens": [{"id": 5, "content": "<s>", "single_word": false,
  "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
"normalizer": null,
"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false,
  "trim_offsets": true, "use_regex": true},
"post_processor": {"type": "TemplateProcessing",
  "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
             {"Sequence": {"id": "A", "type_id": 0}}],
  "pair": [],
  "special_tokens": {"<s>": {"id": "<s>", "ids": [5], "tokens": ["<s>"]}}},
"decoder": {"type": "ByteLevel"},
"model": {"type": "BPE", "dropout": null, "unk_token": null,
  "continuing_subword_prefix": null, "end_of_word_suffix": null,
  "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
  "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4},
  "merges": ["a b", ["ab", "c"]]}
})";
}

// Returns TinyJson with `from`, which must occur, replaced.
inline std::string TinyJsonWith(const std::string& from,
                                const std::string& to) {
  const std::string json = TinyJson();
  const std::string changed = absl::StrReplaceAll(json, {{from, to}});
  EXPECT_NE(json, changed) << from;
  return changed;
}

inline std::unique_ptr<Tokenizer> LoadJson(const std::string& json,
                                           const std::string& config = "") {
  auto tokenizer = TokenizerFromJson(json, {.config = config});
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

inline std::string TokenizerPath(const std::string& name) {
  return std::string(QK_SOURCE_DIR) + "/tests/goldens/tokenizer/" + name;
}

// Loads one of the trained tokenizers of tests/goldens/tokenizer.
inline std::unique_ptr<Tokenizer> LoadGolden(const std::string& family) {
  return LoadJson(ReadFile(TokenizerPath(family + ".json")));
}

// Loads the same from its tokenizer.model.
inline std::unique_ptr<Tokenizer> LoadGoldenModel(const std::string& family) {
  const std::string path = TokenizerPath(family + ".model");
  auto tokenizer = TokenizerFromSentencePiece(
      ReadFile(path), {.config = ReadFile(path + ".config.json")});
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

inline std::vector<TokenSpan> EncodeOrDie(const Tokenizer& tokenizer,
                                          absl::string_view text,
                                          const EncodeOptions& options = {}) {
  auto tokens = tokenizer.Encode(text, options);
  EXPECT_TRUE(tokens.ok()) << tokens.status();
  return tokens.ok() ? *std::move(tokens) : std::vector<TokenSpan>();
}

inline std::vector<int32_t> Ids(const std::vector<TokenSpan>& tokens) {
  std::vector<int32_t> ids;
  for (const TokenSpan& token : tokens) ids.push_back(token.id);
  return ids;
}

// Returns id, begin and end of each token, one after another.
inline std::vector<int64_t> Flat(const std::vector<TokenSpan>& tokens) {
  std::vector<int64_t> flat;
  for (const TokenSpan& token : tokens) {
    flat.insert(flat.end(), {token.id, token.begin, token.end});
  }
  return flat;
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_TOKENIZER_TOKENIZER_TESTING_H_
