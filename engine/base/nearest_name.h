// "Did you mean": suggestions for flags, keys of configurations and rules.
#ifndef QKSCOPE_ENGINE_BASE_NEAREST_NAME_H_
#define QKSCOPE_ENGINE_BASE_NEAREST_NAME_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace qk {

// Returns the candidate that `word` is most likely a slip of, the first among
// equals; empty if none is near.
std::string NearestName(absl::string_view word,
                        const std::vector<std::string>& candidates);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_NEAREST_NAME_H_
