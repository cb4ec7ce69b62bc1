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

// For a message.
std::string Quoted(absl::string_view text);

// The steps of a member: none if it is missing, those of `list` if it is a
// Sequence (which must hold no other Sequence), else itself.
absl::StatusOr<std::vector<JsonValue>> Steps(const JsonValue& root,
                                             absl::string_view member,
                                             absl::string_view list);

// `unsupported WHAT "TYPE"`
absl::Status Unsupported(const JsonValue& step, absl::string_view what,
                         absl::string_view type);

// The String of the step's `pattern`, which must be one and not empty.
absl::StatusOr<std::string> StringPattern(const JsonValue& step,
                                          absl::string_view what);

// A short text member; an error if it is over 16 bytes or, unless allowed,
// empty.
absl::StatusOr<std::string> ShortText(const JsonValue& step,
                                      absl::string_view key, bool may_be_empty);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_JSON_STEPS_H_
