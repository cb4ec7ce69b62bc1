// Each family has a pair of functions; architecture.cc chooses by name. `type`
// is the name in the file, for files that serve several families.
#ifndef QKSCOPE_ENGINE_ARCHITECTURES_FAMILIES_H_
#define QKSCOPE_ENGINE_ARCHITECTURES_FAMILIES_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/architectures/architecture.h"

namespace qk {

using FromConfig = absl::StatusOr<Architecture>(const JsonValue& config,
                                                absl::string_view type);
using FromGguf = absl::StatusOr<Architecture>(const GgufFile& file,
                                              absl::string_view type);

FromConfig GemmaFromConfig;
FromConfig Gpt2FromConfig;
FromConfig GptNeoFromConfig;
FromConfig GptNeoxFromConfig;
FromConfig JambaFromConfig;
FromConfig LlamaFromConfig;
FromConfig OptFromConfig;
FromConfig Phi3FromConfig;
FromConfig QwenFromConfig;
FromConfig QwenVlFromConfig;

FromGguf GemmaFromGguf;
FromGguf Gpt2FromGguf;
FromGguf GptNeoxFromGguf;
FromGguf LlamaFromGguf;
FromGguf Phi3FromGguf;
FromGguf QwenFromGguf;

}  // namespace qk

#endif  // QKSCOPE_ENGINE_ARCHITECTURES_FAMILIES_H_
