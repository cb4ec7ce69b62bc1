// Reads the vision tower of a config.json, "vision_config".
#ifndef QKSCOPE_ENGINE_ARCHITECTURES_HF_VISION_H_
#define QKSCOPE_ENGINE_ARCHITECTURES_HF_VISION_H_

#include "absl/status/status.h"
#include "engine/architectures/architecture.h"
#include "engine/formats/json.h"

namespace qk {

// Reads "vision_config" and "image_token_id" and adds the tower and its weights
// to a text model. Without "vision_config" there is no tower. UNIMPLEMENTED
// names a member that the engine does not have.
absl::Status AddVision(const JsonValue& config, Architecture* architecture);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_ARCHITECTURES_HF_VISION_H_
