// The two priority classes of requests.
#ifndef QKSCOPE_SERVER_COMMON_PRIORITY_H_
#define QKSCOPE_SERVER_COMMON_PRIORITY_H_

namespace qk {

// Batch requests give way to interactive requests.
enum class Priority { kInteractive, kBatch };
inline constexpr int kNumPriorities = 2;

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_PRIORITY_H_
