// Parses the `traceparent` header of W3C Trace Context.
#ifndef QKSCOPE_SERVER_COMMON_TRACEPARENT_H_
#define QKSCOPE_SERVER_COMMON_TRACEPARENT_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace qk {

struct TraceParent {
  std::string trace_id;   // 32 lower-case hex digits, not all 0
  std::string parent_id;  // 16 lower-case hex digits, not all 0
  // Whether the caller may have recorded its part of the trace.
  bool sampled = false;
};

// Returns nullopt unless the header is valid by section 3.2 of the
// recommendation. Versions after 00 may have more at the end.
std::optional<TraceParent> ParseTraceParent(absl::string_view header);

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_TRACEPARENT_H_
