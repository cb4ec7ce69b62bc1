#include "engine/architectures/architecture.h"

#include "absl/strings/str_cat.h"
#include "engine/check.h"

namespace qk {

absl::StatusOr<Architecture> ArchitectureFromConfig(const JsonValue& config) {
  for (const char* field : {"auto_map", "quantization_config"}) {
    if (config.Find(field).has_value()) {
      return absl::UnimplementedError(
          absl::StrCat("config: ", field, ": not implemented"));
    }
  }
  QK_ASSIGN_OR_RETURN(const absl::string_view type,
                      config.GetString("model_type"));
  if (type == "llama" || type == "mistral") {
    return LlamaFromConfig(config, type);
  }
  return absl::UnimplementedError(
      absl::StrCat("config: model_type: '", type,
                   "' is not implemented (implemented: llama, mistral)"));
}

absl::StatusOr<Architecture> ArchitectureFromGguf(const GgufFile& file) {
  QK_ASSIGN_OR_RETURN(const absl::string_view type,
                      file.GetString("general.architecture"));
  if (type == "llama") return LlamaFromGguf(file);
  return absl::UnimplementedError(
      absl::StrCat("general.architecture: '", type,
                   "' is not implemented (implemented: llama)"));
}

}  // namespace qk
