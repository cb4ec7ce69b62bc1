#include "client/qkctl/output/exit_code.h"

#include "client/cpp/analysis_client.h"
#include "client/files/file_io.h"

namespace qk::client {

const char kExitCodeHelp[] =
    "Exit codes:\n"
    "   0 done                      7 the stream was incomplete\n"
    "   1 other failure             8 cancelled (Ctrl-C)\n"
    "   2 wrong usage               9 deadline exceeded\n"
    "   3 server not available     10 replay: the bytes differ\n"
    "   4 invalid request          11 replay: not comparable bit for bit\n"
    "   5 not found                12 permission denied\n"
    "   6 over a limit             13 a file cannot be read or written\n"
    "  14 generate, score, compare: a value is NaN or infinite\n";

ExitCode ExitCodeOf(const absl::Status& status) {
  if (IsFileError(status)) return kExitFile;
  if (IsIncompleteStream(status)) return kExitIncomplete;
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kUnavailable:
      return kExitUnavailable;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kUnimplemented:
      return kExitBadRequest;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kResourceExhausted:
      return kExitExhausted;
    case absl::StatusCode::kCancelled:
      return kExitCancelled;
    case absl::StatusCode::kDeadlineExceeded:
      return kExitDeadline;
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return kExitDenied;
    case absl::StatusCode::kDataLoss:
      return kExitFile;
    default:
      return kExitOther;
  }
}

}  // namespace qk::client
