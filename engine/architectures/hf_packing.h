// Reads "quantization_config" of a config.json.
#ifndef QKSCOPE_ENGINE_ARCHITECTURES_HF_PACKING_H_
#define QKSCOPE_ENGINE_ARCHITECTURES_HF_PACKING_H_

#include "absl/status/statusor.h"
#include "engine/architectures/architecture.h"
#include "engine/formats/json.h"

namespace qk {

// Returns Packing::Method::kNone if the config has none. UNIMPLEMENTED names a
// method, or a member that changes the numbers, that the engine does not have.
absl::StatusOr<Packing> ReadPacking(const JsonValue& config);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_ARCHITECTURES_HF_PACKING_H_
