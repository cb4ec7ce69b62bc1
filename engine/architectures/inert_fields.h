// The members of a config.json that change no number of the forward pass.
#ifndef QKSCOPE_ENGINE_ARCHITECTURES_INERT_FIELDS_H_
#define QKSCOPE_ENGINE_ARCHITECTURES_INERT_FIELDS_H_

#include "absl/strings/string_view.h"
#include "engine/formats/json.h"

namespace qk {

// Returns whether no number of any family depends on the member: `transformers`
// does not read it in a forward pass, or does what it does without it. null
// counts as missing.
bool IsInertField(absl::string_view key, const JsonValue& value);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_ARCHITECTURES_INERT_FIELDS_H_
