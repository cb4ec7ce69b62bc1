// The disruptions of the code published with arXiv:2502.01563, as rules.
#ifndef QKSCOPE_SERVER_CONVERT_PRESETS_H_
#define QKSCOPE_SERVER_CONVERT_PRESETS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/types/model_config.h"
#include "qkscope/v1/spec.pb.h"

namespace qk {

std::vector<std::string> PresetNames();

// Returns the rules of a preset for a model. INVALID_ARGUMENT if the name is
// unknown. `field` is the preset's path.
absl::StatusOr<std::vector<::qkscope::v1::DisruptionRule>> ExpandPreset(
    const ::qkscope::v1::Preset& preset, absl::string_view field,
    const ModelConfig& config);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONVERT_PRESETS_H_
