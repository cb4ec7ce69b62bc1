// What the readers of tokenizer.json's pipeline share.
#ifndef QKSCOPE_ENGINE_TOKENIZER_JSON_STEPS_H_
#define QKSCOPE_ENGINE_TOKENIZER_JSON_STEPS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/formats/json.h"

namespace qk {

// The step's type, for a message.
std::string Quoted(absl::string_view text);

// Returns the steps of a member: none if it is missing, the members of `list`
// if it is a Sequence (which must not contain another Sequence), else the
// member itself.
absl::StatusOr<std::vector<JsonValue>> Steps(const JsonValue& root,
                                             absl::string_view member,
                                             absl::string_view list);

// Returns the error `unsupported WHAT "TYPE"`.
absl::Status Unsupported(const JsonValue& step, absl::string_view what,
                         absl::string_view type);

// Returns the String of the step's `pattern`, which must be a String and not
// empty.
absl::StatusOr<std::string> StringPattern(const JsonValue& step,
                                          absl::string_view what);

// Returns a short text member. It is an error if the text is over 16 bytes or,
// unless allowed, empty.
absl::StatusOr<std::string> ShortText(const JsonValue& step,
                                      absl::string_view key, bool may_be_empty);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_JSON_STEPS_H_
