// Makes small model files for the tests of engine/formats.
#ifndef QKSCOPE_TESTS_ENGINE_FORMATS_TESTING_H_
#define QKSCOPE_TESTS_ENGINE_FORMATS_TESTING_H_

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/temp_folder.h"

namespace qk::testing {

inline absl::Span<const uint8_t> AsBytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

template <typename T>
std::string Raw(T value) {
  std::string raw(sizeof(T), '\0');
  std::memcpy(raw.data(), &value, sizeof(T));
  return raw;
}

inline std::string ReadFile(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  EXPECT_TRUE(stream.good()) << path;
  std::stringstream content;
  content << stream.rdbuf();
  return content.str();
}

// A message is one line without a path or pointer (reliability.md, S10).
inline void ExpectGoodMessage(const absl::Status& status) {
  const std::string message(status.message());
  EXPECT_THAT(message, ::testing::Not(::testing::HasSubstr("\n")));
  EXPECT_THAT(message, ::testing::Not(::testing::HasSubstr("/tmp")));
  EXPECT_FALSE(message.empty());
  EXPECT_LE(message.size(), 512u) << message;
  for (const char c : message) {
    EXPECT_TRUE(c >= 0x20 && c < 0x7F) << message;
  }
}

inline void ExpectError(const absl::Status& status,
                        const std::string& expected) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(expected));
  ExpectGoodMessage(status);
}

// Calls load(bytes) with every proper prefix of `good`, then with every single
// bit of its first `header_bytes` bytes flipped. `load` returns the status;
// whatever it is, the process must survive.
inline void TruncateAndFlip(
    const std::string& good, size_t header_bytes,
    const std::function<absl::Status(const std::string&)>& load) {
  ASSERT_TRUE(load(good).ok()) << load(good);
  for (size_t size = 0; size < good.size(); ++size) {
    // The copy has the exact size, so that ASan sees a read past the end.
    const absl::Status status = load(std::string(good.data(), size));
    if (!status.ok()) ExpectGoodMessage(status);
  }
  for (size_t bit = 0; bit < header_bytes * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
    const absl::Status status = load(bad);
    if (!status.ok()) ExpectGoodMessage(status);
  }
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_FORMATS_TESTING_H_
