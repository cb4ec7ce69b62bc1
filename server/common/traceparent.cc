#include "server/common/traceparent.h"

#include <algorithm>

namespace qk {
namespace {

// Version, trace id, parent id and flags, with dashes between them.
constexpr size_t kLength = 2 + 1 + 32 + 1 + 16 + 1 + 2;

bool IsHex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
  });
}

bool IsId(absl::string_view text) {
  return IsHex(text) && text.find_first_not_of('0') != absl::string_view::npos;
}

}  // namespace

std::optional<TraceParent> ParseTraceParent(absl::string_view header) {
  if (header.size() < kLength) return std::nullopt;
  const absl::string_view version = header.substr(0, 2);
  const absl::string_view trace_id = header.substr(3, 32);
  const absl::string_view parent_id = header.substr(36, 16);
  const absl::string_view flags = header.substr(53, 2);
  const bool dashes = header[2] == '-' && header[35] == '-' &&
                      header[52] == '-' &&
                      (header.size() == kLength || header[kLength] == '-');
  const bool sized = version != "00" || header.size() == kLength;
  if (!dashes || !sized || !IsHex(version) || version == "ff" ||
      !IsId(trace_id) || !IsId(parent_id) || !IsHex(flags)) {
    return std::nullopt;
  }
  // The flags' lowest bit.
  const char last = flags[1];
  const int digit = last <= '9' ? last - '0' : last - 'a' + 10;
  return TraceParent{std::string(trace_id), std::string(parent_id),
                     digit % 2 == 1};
}

}  // namespace qk
