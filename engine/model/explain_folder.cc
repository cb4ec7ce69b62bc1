#include "engine/model/explain_folder.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/formats/excerpt.h"
#include "engine/formats/mapped_file.h"

namespace qk {
namespace {

namespace fs = std::filesystem;

// A folder with more entries is not searched to its end.
constexpr int kMaxEntries = 1000;

// Returns the names in the folder that `wanted` accepts, sorted.
std::vector<std::string> NamesIn(
    const fs::path& folder,
    const std::function<bool(const fs::path&)>& wanted) {
  std::vector<std::string> names;
  std::error_code error;
  int entries = 0;
  for (fs::directory_iterator at(folder, error), end;
       !error && at != end && entries < kMaxEntries;
       at.increment(error), ++entries) {
    if (wanted(at->path())) names.push_back(at->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool IsModelFolder(const fs::path& path) {
  return FileExists(path / "config.json");
}

absl::Status Problem(const std::string& name, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(name, ": ", problem));
}

}  // namespace

absl::Status ExplainFolder(const std::string& folder) {
  const fs::path path(folder);
  const std::string name = FileNameOf(folder);
  if (FileExists(path / "adapter_config.json")) {
    return Problem(name,
                   "an adapter (LoRA), not a model: merge it into its base "
                   "model (merge_and_unload of the Python package peft), save "
                   "the result and serve that");
  }
  const std::vector<std::string> snapshots =
      NamesIn(path / "snapshots", IsModelFolder);
  if (!snapshots.empty()) {
    return Problem(name, absl::StrCat("a cache folder of the Hugging Face hub: "
                                      "name the snapshot inside, snapshots/",
                                      Excerpt(snapshots.back())));
  }
  if (FileExists(path / "model_index.json")) {
    return Problem(name,
                   "a pipeline of several models (model_index.json): name the "
                   "folder of a language model");
  }
  const std::vector<std::string> gguf = NamesIn(
      path, [](const fs::path& file) { return file.extension() == ".gguf"; });
  if (!gguf.empty()) {
    return Problem(name, absl::StrCat("has no config.json, but GGUF files: "
                                      "name the file, ",
                                      Excerpt(gguf.front())));
  }
  const std::vector<std::string> models = NamesIn(path, IsModelFolder);
  if (!models.empty()) {
    return Problem(name, absl::StrCat("has no config.json; there is a model in "
                                      "its folder ",
                                      Excerpt(models.front())));
  }
  return absl::NotFoundError(
      absl::StrCat(name, ": has no config.json, so it is no model"));
}

}  // namespace qk
