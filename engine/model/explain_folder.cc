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

// Returns the names in the folder `path` that `wanted` accepts, sorted.
std::vector<std::string> Names(
    const FolderLook& look, const std::string& path,
    const std::function<bool(const std::string&)>& wanted) {
  std::vector<std::string> names = look.names(path, kMaxEntries);
  names.erase(std::remove_if(names.begin(), names.end(), std::not_fn(wanted)),
              names.end());
  std::sort(names.begin(), names.end());
  return names;
}

// Returns the names in the folder `path` of folders with a config.json.
std::vector<std::string> ModelsIn(const FolderLook& look,
                                  const std::string& path) {
  return Names(look, path, [&](const std::string& name) {
    return look.has_file(absl::StrCat(path, "/", name, "/config.json"));
  });
}

absl::Status Problem(absl::string_view name, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(name, ": ", problem));
}

}  // namespace

absl::Status ExplainFolder(absl::string_view name, const FolderLook& look) {
  if (look.has_file("adapter_config.json")) {
    return Problem(name,
                   "an adapter (LoRA), not a model: merge it into its base "
                   "model (merge_and_unload of the Python package peft), save "
                   "the result and serve that");
  }
  const std::vector<std::string> snapshots = ModelsIn(look, "snapshots");
  if (!snapshots.empty()) {
    return Problem(name, absl::StrCat("a cache folder of the Hugging Face hub: "
                                      "name the snapshot inside, snapshots/",
                                      Excerpt(snapshots.back())));
  }
  if (look.has_file("model_index.json")) {
    return Problem(name,
                   "a pipeline of several models (model_index.json): name the "
                   "folder of a language model");
  }
  const std::vector<std::string> gguf = Names(
      look, ".",
      [](const std::string& file) { return absl::EndsWith(file, ".gguf"); });
  if (!gguf.empty()) {
    return Problem(name, absl::StrCat("has no config.json, but GGUF files: "
                                      "name the file, ",
                                      Excerpt(gguf.front())));
  }
  const std::vector<std::string> models = ModelsIn(look, ".");
  if (!models.empty()) {
    return Problem(name, absl::StrCat("has no config.json; there is a model in "
                                      "its folder ",
                                      Excerpt(models.front())));
  }
  return absl::NotFoundError(
      absl::StrCat(name, ": has no config.json, so it is no model"));
}

absl::Status ExplainFolder(const std::string& folder) {
  const fs::path path(folder);
  FolderLook look;
  look.has_file = [&](const std::string& file) {
    return FileExists(path / file);
  };
  look.names = [&](const std::string& inner, int most) {
    std::vector<std::string> names;
    std::error_code error;
    for (fs::directory_iterator at(path / inner, error), end;
         !error && at != end && static_cast<int>(names.size()) < most;
         at.increment(error)) {
      names.push_back(at->path().filename().string());
    }
    return names;
  };
  return ExplainFolder(FileNameOf(folder), look);
}

}  // namespace qk
