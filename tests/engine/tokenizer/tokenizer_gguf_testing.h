// Small GGUF files with a tokenizer.
#ifndef QKSCOPE_TESTS_ENGINE_TOKENIZER_TOKENIZER_GGUF_TESTING_H_
#define QKSCOPE_TESTS_ENGINE_TOKENIZER_TOKENIZER_GGUF_TESTING_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/formats/gguf.h"
#include "engine/tokenizer/tokenizer.h"
#include "gtest/gtest.h"
#include "tests/engine/formats/gguf_testing.h"
#include "tests/engine/tokenizer/tokenizer_testing.h"

namespace qk::testing {

inline std::string Strings(const std::string& key,
                           const std::vector<std::string>& values) {
  std::string encoded;
  for (const std::string& value : values) encoded += GgufString(value);
  return GgufArray(key, GgufType::kString, values.size(), encoded);
}

inline std::string Int32s(const std::string& key,
                          const std::vector<int32_t>& values) {
  std::string encoded;
  for (const int32_t value : values) encoded += Raw(value);
  return GgufArray(key, GgufType::kInt32, values.size(), encoded);
}

inline std::string Floats(const std::string& key,
                          const std::vector<float>& values) {
  std::string encoded;
  for (const float value : values) encoded += Raw(value);
  return GgufArray(key, GgufType::kFloat32, values.size(), encoded);
}

inline std::string Uint32(const std::string& key, uint32_t value) {
  return GgufKey(key, GgufType::kUint32, Raw(value));
}

inline std::string Bool(const std::string& key, bool value) {
  return GgufKey(key, GgufType::kBool, Raw(static_cast<uint8_t>(value)));
}

inline std::string Text(const std::string& key, const std::string& value) {
  return GgufKey(key, GgufType::kString, GgufString(value));
}

// Ids: a b c ab abc 1 2 <s> </s> <user>; the space is U+0120 in "_a" = 10.
struct TinyGguf {
  std::string model = "gpt2";
  std::string pre = "gpt-2";
  std::vector<std::string> tokens = {"a", "b",   "c",    "ab",     "abc", "1",
                                     "2", "<s>", "</s>", "<user>", "12"};
  std::vector<int32_t> types = {1, 1, 1, 1, 1, 1, 1, 3, 3, 4, 1};
  std::vector<std::string> merges = {"a b", "ab c", "1 2"};
  std::vector<std::string> more = {Uint32("tokenizer.ggml.bos_token_id", 7),
                                   Uint32("tokenizer.ggml.eos_token_id", 8)};
  std::string without;  // a key to leave out

  std::string Build() const {
    testing::GgufBuilder builder;
    const std::map<std::string, std::string> keys = {
        {"model", Text("tokenizer.ggml.model", model)},
        {"pre", Text("tokenizer.ggml.pre", pre)},
        {"tokens", Strings("tokenizer.ggml.tokens", tokens)},
        {"token_type", Int32s("tokenizer.ggml.token_type", types)},
        {"merges", Strings("tokenizer.ggml.merges", merges)}};
    for (const auto& [name, key] : keys) {
      if (name != without) builder.keys.push_back(key);
    }
    for (const std::string& key : more) builder.keys.push_back(key);
    return builder.Build();
  }
};

inline absl::StatusOr<std::unique_ptr<Tokenizer>> Load(
    const std::string& bytes) {
  const auto file = GgufFile::Parse("m.gguf", AsBytes(bytes));
  if (!file.ok()) return file.status();
  return TokenizerFromGguf(**file);
}

inline std::unique_ptr<Tokenizer> LoadOrDie(const TinyGguf& gguf) {
  auto tokenizer = Load(gguf.Build());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_TOKENIZER_TOKENIZER_GGUF_TESTING_H_
