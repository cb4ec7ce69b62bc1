// Says what a folder without config.json holds in place of a model.
#ifndef QKSCOPE_ENGINE_MODEL_EXPLAIN_FOLDER_H_
#define QKSCOPE_ENGINE_MODEL_EXPLAIN_FOLDER_H_

#include <string>

#include "absl/status/status.h"

namespace qk {

// Returns the error for a folder that is no model, with what to do about it:
// NOT_FOUND, or INVALID_ARGUMENT for an adapter, a cache of the hub, a
// diffusers pipeline, a folder of GGUF files or one with a single model inside.
absl::Status ExplainFolder(const std::string& folder);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_MODEL_EXPLAIN_FOLDER_H_
