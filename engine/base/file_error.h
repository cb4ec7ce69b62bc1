// Says what went wrong with a file, or another thing of the system's, as a
// status whose code tells who has to do something about it.
#ifndef QKSCOPE_ENGINE_BASE_FILE_ERROR_H_
#define QKSCOPE_ENGINE_BASE_FILE_ERROR_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace qk {

// The status for an errno; `message` is the whole message. NOT_FOUND,
// PERMISSION_DENIED and INVALID_ARGUMENT: the path is wrong, or leads to the
// wrong kind of file. RESOURCE_EXHAUSTED (descriptors, memory, disk space) and
// UNAVAILABLE (everything else, such as EIO): the machine cannot do it now.
absl::Status ErrnoStatus(int error, absl::string_view message);

// Whether the machine failed, rather than what it was told to do: the same may
// succeed later.
bool IsMachineFault(const absl::Status& status);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_FILE_ERROR_H_
