// QK_CHECK stops the process when one of our own invariants is broken. It is
// never for input: bad input gets an absl::Status.
#ifndef QKSCOPE_ENGINE_BASE_CHECK_H_
#define QKSCOPE_ENGINE_BASE_CHECK_H_

#include <cstdlib>
#include <cstring>

#include "engine/base/bounded_stderr.h"

namespace qk {

[[noreturn]] inline void CheckFailed(const char* message) {
  WriteStderr(message, std::strlen(message));
  std::abort();
}

}  // namespace qk

#define QK_CHECK(condition)                              \
  do {                                                   \
    if (!(condition)) [[unlikely]] {                     \
      ::qk::CheckFailed(__FILE__ ":" QK_STRING_(         \
          __LINE__) ": check failed: " #condition "\n"); \
    }                                                    \
  } while (false)
#define QK_STRING_INNER_(text) #text
#define QK_STRING_(text) QK_STRING_INNER_(text)

// Returns from the caller with the status of an expression that failed.
#define QK_RETURN_IF_ERROR(expression)       \
  do {                                       \
    absl::Status qk_status_ = (expression);  \
    if (!qk_status_.ok()) return qk_status_; \
  } while (false)

#define QK_CONCAT_INNER_(a, b) a##b
#define QK_CONCAT_(a, b) QK_CONCAT_INNER_(a, b)

// QK_ASSIGN_OR_RETURN(auto x, ExpressionOfStatusOr());
#define QK_ASSIGN_OR_RETURN(lhs, expression) \
  QK_ASSIGN_OR_RETURN_IMPL_(QK_CONCAT_(qk_or_, __LINE__), lhs, expression)
// lhs may be a declaration, which parentheses would break.
// NOLINTBEGIN(bugprone-macro-parentheses)
#define QK_ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expression) \
  auto tmp = (expression);                              \
  if (!tmp.ok()) return tmp.status();                   \
  lhs = *std::move(tmp)
// NOLINTEND(bugprone-macro-parentheses)

#endif  // QKSCOPE_ENGINE_BASE_CHECK_H_
