// model.safetensors.index.json says which tensor lies in which file.
#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/flat_hash.h"
#include "engine/formats/excerpt.h"
#include "engine/formats/json.h"
#include "engine/formats/safetensors.h"

namespace qk {
namespace {

constexpr size_t kMaxShards = 1024;
constexpr int64_t kMaxTensors = 1 << 20;
constexpr size_t kMaxNameBytes = 255;  // of a Linux file name

// Accepts a bare file name only: nothing may lead out of the model's folder. An
// index is refused, so that indexes cannot form a cycle.
bool IsShardName(absl::string_view file) {
  if (file.size() > kMaxNameBytes || !absl::EndsWith(file, ".safetensors") ||
      file.front() == '.') {
    return false;
  }
  return std::all_of(file.begin(), file.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
  });
}

}  // namespace

absl::StatusOr<ShardIndex> ParseShardIndex(absl::string_view name,
                                           absl::string_view json) {
  JsonLimits limits;
  limits.max_depth = 8;
  QK_ASSIGN_OR_RETURN(const JsonDocument document,
                      JsonDocument::Parse(name, json, limits));
  QK_ASSIGN_OR_RETURN(const JsonValue map,
                      document.root().GetObject("weight_map"));
  const int64_t count = map.size();
  if (count == 0 || count > kMaxTensors) {
    return map.Error(
        absl::StrCat("must list 1 to ", kMaxTensors, " tensors, got ", count));
  }
  ShardIndex index;
  FlatHashMap<absl::string_view, size_t> files;
  QK_RETURN_IF_ERROR(
      map.ForEachMember([&](absl::string_view tensor, JsonValue value) {
        QK_ASSIGN_OR_RETURN(const absl::string_view file, value.AsString());
        if (!IsShardName(file)) {
          return value.Error(absl::StrCat(
              "must be the name of a .safetensors file in the same folder "
              "([A-Za-z0-9._-]), got \"",
              Excerpt(file), "\""));
        }
        const size_t number = files.emplace(file, files.size()).first->second;
        if (number == kMaxShards) {
          return map.Error(absl::StrCat("more than ", kMaxShards, " shards"));
        }
        index.tensors.emplace_back(std::string(tensor), number);
        return absl::OkStatus();
      }));

  for (const auto& [file, number] : files) index.files.emplace_back(file);
  std::sort(index.files.begin(), index.files.end());
  std::vector<size_t> place(files.size());  // in the order of appearance
  for (size_t i = 0; i < index.files.size(); ++i) {
    place[files.at(index.files[i])] = i;
  }
  for (auto& [tensor, file] : index.tensors) file = place[file];
  std::sort(index.tensors.begin(), index.tensors.end());
  return index;
}

}  // namespace qk
