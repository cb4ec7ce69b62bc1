// Answers long lists in parts that every client accepts.
#ifndef QKSCOPE_SERVER_CALLS_PAGES_H_
#define QKSCOPE_SERVER_CALLS_PAGES_H_

#include <cstdint>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/repeated_field.h"
#include "server/common/bad_field.h"
#include "server/common/limits.h"

namespace qk {

inline absl::Status CheckOffset(int offset) {
  if (offset >= 0) return absl::OkStatus();
  return BadField("offset", absl::StrCat("must be >= 0, got ", offset));
}

// Adds entries [offset, ...) of a list of `size` to `out`, as many as one
// answer may hold; `make(i)` makes entry i. Returns the offset of the first
// that does not fit, nullopt if all do.
template <typename Entry, typename Make>
std::optional<int> FillPage(int size, int offset, const Make& make,
                            google::protobuf::RepeatedPtrField<Entry>* out) {
  constexpr int64_t kHeader = 6;  // the entry's tag and length
  int64_t bytes = 0;
  for (int i = offset; i < size; ++i) {
    Entry entry = make(i);
    bytes += kHeader + static_cast<int64_t>(entry.ByteSizeLong());
    if (bytes > kMaxAnswerBytes && i > offset) return i;
    *out->Add() = std::move(entry);
  }
  return std::nullopt;
}

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_PAGES_H_
