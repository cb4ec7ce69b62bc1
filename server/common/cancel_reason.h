// The reasons why a call is cancelled.
#ifndef QKSCOPE_SERVER_COMMON_CANCEL_REASON_H_
#define QKSCOPE_SERVER_COMMON_CANCEL_REASON_H_

namespace qk {

enum class CancelReason { kClient, kDeadline, kStalled, kShutdown };

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_CANCEL_REASON_H_
