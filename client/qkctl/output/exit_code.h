// The exit codes of qkctl. Scripts rely on the numbers.
#ifndef QKSCOPE_CLIENT_QKCTL_OUTPUT_EXIT_CODE_H_
#define QKSCOPE_CLIENT_QKCTL_OUTPUT_EXIT_CODE_H_

#include "absl/status/status.h"

namespace qk::client {

enum ExitCode {
  kExitOk = 0,
  kExitOther = 1,           // anything else: a bug here or in the server
  kExitUsage = 2,           // wrong flags
  kExitUnavailable = 3,     // no connection, or the server is not serving
  kExitBadRequest = 4,      // the server refused the request's content
  kExitNotFound = 5,        // no such model, request or user
  kExitExhausted = 6,       // over a limit, or the queue is full
  kExitIncomplete = 7,      // the stream broke off or violated the protocol
  kExitCancelled = 8,       // Ctrl-C, or cancelled at the server
  kExitDeadline = 9,        // --timeout, or the server's own limit
  kExitReplayDiffers = 10,  // replay: different bytes
  kExitNotComparable = 11,  // replay: different weights, kernels or backend
  kExitDenied = 12,         // no valid token, or no permission
  kExitFile = 13,           // a local file cannot be read or written
  kExitNonFinite = 14,      // the answer has values that are NaN or infinite
};

ExitCode ExitCodeOf(const absl::Status& status);

// The table of exit codes for --help.
extern const char kExitCodeHelp[];

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_OUTPUT_EXIT_CODE_H_
