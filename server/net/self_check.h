// Checks that this process still answers, with a health call over a new
// connection to its own listener.
#ifndef QKSCOPE_SERVER_NET_SELF_CHECK_H_
#define QKSCOPE_SERVER_NET_SELF_CHECK_H_

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/net/acceptor.h"

namespace qk {

// OK if the server answers, whether SERVING or not.
absl::Status CheckSelf(Acceptor* acceptor, absl::Duration timeout);

}  // namespace qk

#endif  // QKSCOPE_SERVER_NET_SELF_CHECK_H_
