// W3C Trace Context's `traceparent` header.
#ifndef QKSCOPE_SERVER_COMMON_TRACEPARENT_H_
#define QKSCOPE_SERVER_COMMON_TRACEPARENT_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace qk {

struct TraceParent {
  std::string trace_id;   // 32 lower-case hex digits, not all 0
  std::string parent_id;  // 16, not all 0
};

// Absent for anything but what the recommendation's section 3.2 allows.
// Versions after 00 may carry more at the end.
std::optional<TraceParent> ParseTraceParent(absl::string_view header);

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_TRACEPARENT_H_
