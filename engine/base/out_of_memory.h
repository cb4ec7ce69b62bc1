// Turns a failed allocation on the host into a status. Code below these calls
// lets std::bad_alloc pass through: objects clean up after themselves.
#ifndef QKSCOPE_ENGINE_BASE_OUT_OF_MEMORY_H_
#define QKSCOPE_ENGINE_BASE_OUT_OF_MEMORY_H_

#include <new>
#include <type_traits>

#include "absl/status/status.h"

namespace qk {

// RESOURCE_EXHAUSTED. Copying it takes no memory, because there is none.
inline const absl::Status& OutOfMemory() {
  static const auto& status = *new absl::Status(
      absl::StatusCode::kResourceExhausted, "the host is out of memory");
  return status;
}

// Returns what `body` returns (an absl::Status or StatusOr, or OK for void), or
// OutOfMemory() if it throws std::bad_alloc.
template <typename Body>
auto WithoutBadAlloc(const Body& body) {
  constexpr bool kNothing = std::is_void_v<decltype(body())>;
  using Result = std::conditional_t<kNothing, absl::Status, decltype(body())>;
  try {
    if constexpr (kNothing) {
      body();
      return absl::OkStatus();
    } else {
      return body();
    }
  } catch (const std::bad_alloc&) {
    return Result(OutOfMemory());
  }
}

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_OUT_OF_MEMORY_H_
