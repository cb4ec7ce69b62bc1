// Says what a folder without config.json holds in place of a model.
#ifndef QKSCOPE_ENGINE_MODEL_EXPLAIN_FOLDER_H_
#define QKSCOPE_ENGINE_MODEL_EXPLAIN_FOLDER_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace qk {

// A folder that may be no model. Paths are relative to it.
struct FolderLook {
  std::function<bool(const std::string& path)> has_file;
  // The first names in a folder, in any order; "." is the folder itself. Empty
  // if there is no such folder.
  std::function<std::vector<std::string>(const std::string& path, int most)>
      names;
};

// Returns the error for a folder that is no model, with what to do about it:
// NOT_FOUND, or INVALID_ARGUMENT for an adapter, a cache of the hub, a
// diffusers pipeline, a folder of GGUF files or one with a model inside.
absl::Status ExplainFolder(absl::string_view name, const FolderLook& look);

// The same for a folder of the file system.
absl::Status ExplainFolder(const std::string& folder);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_MODEL_EXPLAIN_FOLDER_H_
