// The fuzz targets' checks beyond not crashing.
#ifndef QKSCOPE_TESTS_FUZZ_FUZZ_H_
#define QKSCOPE_TESTS_FUZZ_FUZZ_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "engine/base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace qk::fuzz {

// An error about foreign bytes must be fit to print: one short line of ASCII.
inline void CheckMessage(const absl::Status& status) {
  QK_CHECK(!status.ok());
  QK_CHECK(status.code() != absl::StatusCode::kInternal);
  QK_CHECK(status.code() != absl::StatusCode::kUnknown);
  QK_CHECK(!status.message().empty() && status.message().size() <= 1024);
  for (const char c : status.message()) QK_CHECK(c >= 0x20 && c < 0x7F);
}

// Reads every byte, so that sanitizers notice a view past the end.
template <typename Bytes>
void Touch(const Bytes& bytes) {
  volatile uint8_t sink = 0;
  for (const auto byte : bytes) sink = static_cast<uint8_t>(sink ^ byte);
}

}  // namespace qk::fuzz

#endif  // QKSCOPE_TESTS_FUZZ_FUZZ_H_
