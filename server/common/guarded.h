// Turns exceptions that leave the standard library or a third one into
// statuses: an exception that leaves a thread or a gRPC callback would end the
// process, or leave a call without an answer.
#ifndef QKSCOPE_SERVER_COMMON_GUARDED_H_
#define QKSCOPE_SERVER_COMMON_GUARDED_H_

#include <exception>
#include <new>
#include <type_traits>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "engine/base/out_of_memory.h"

namespace qk {

// Returns what `body` returns (an absl::Status, or OK for void). If it throws:
// RESOURCE_EXHAUSTED for std::bad_alloc, and INTERNAL `WHERE: exception: WHAT`
// for everything else. clang does not check the locks that `body` needs.
template <typename Body>
absl::Status Guarded(const char* where,
                     const Body& body) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  try {
    if constexpr (std::is_void_v<decltype(body())>) {
      body();
      return absl::OkStatus();
    } else {
      return body();
    }
  } catch (const std::bad_alloc&) {
    return OutOfMemory();
  } catch (const std::exception& error) {
    return absl::InternalError(
        absl::StrCat(where, ": exception: ", error.what()));
  } catch (...) {
    return absl::InternalError(absl::StrCat(where, ": unknown exception"));
  }
}

// The value that `make` returns (an absl::StatusOr<T>), or what it throws, as
// Guarded has it.
template <typename Make>
auto GuardedValue(const char* where, const Make& make) -> decltype(make()) {
  decltype(make()) value = absl::InternalError(where);
  const absl::Status thrown = Guarded(where, [&] { value = make(); });
  if (!thrown.ok()) return thrown;
  return value;
}

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_GUARDED_H_
