// Limits on requests. Every value is > 0 and enforced.
#ifndef QKSCOPE_SERVER_COMMON_LIMITS_H_
#define QKSCOPE_SERVER_COMMON_LIMITS_H_

#include <cstdint>

namespace qk {

struct Limits {
  int64_t max_text_bytes = int64_t{1} << 20;
  int max_arms = 64;
  int max_rules_per_arm = 64;
  int max_list_entries = 65536;  // layers, heads, positions, explicit entries
  int max_new_tokens = 4096;
  int max_queued_requests = 256;
  int64_t max_response_bytes = int64_t{2} << 30;  // of one request
  int64_t max_deadline_ms = 600'000;
  int max_score_pairs = 1024;
  int max_rows_per_pass = 4096;
  int64_t kv_cache_bytes = int64_t{1} << 30;      // per model
  int64_t max_buffered_bytes = int64_t{1} << 30;  // of all streams together
  int write_stall_timeout_ms = 30'000;
};

// Payload bytes of one Layer event. With one write in flight per stream, a
// reader that has stopped reading costs about two chunks inside gRPC.
inline constexpr int kMaxChunkBytes = 256 * 1024;

// Of one AnalyzeMany stream, which remembers the id of each.
inline constexpr int64_t kMaxManyPrompts = int64_t{1} << 20;

// Strings and tokens that end a generation: how many of each, and the bytes of
// one string.
inline constexpr int kMaxStops = 64;
inline constexpr int kMaxStopBytes = 1024;

// The largest answer of a unary call. gRPC clients accept messages of up to
// 4 MiB by default; the margin is for field headers.
inline constexpr int64_t kMaxAnswerBytes = (4 << 20) - (64 << 10);

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_LIMITS_H_
