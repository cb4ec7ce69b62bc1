// Reads preprocessor_config.json of a model that takes images: what
// transformers' Qwen2VLImageProcessor does to a picture.
#ifndef QKSCOPE_ENGINE_ARCHITECTURES_HF_IMAGE_PROCESSOR_H_
#define QKSCOPE_ENGINE_ARCHITECTURES_HF_IMAGE_PROCESSOR_H_

#include "absl/status/statusor.h"
#include "engine/formats/json.h"
#include "engine/types/model_config.h"

namespace qk {

// `vision` is the tower of the model's config.json, which must agree.
// UNIMPLEMENTED: a field, or a value of it, that would make other patches.
absl::StatusOr<ImageProcessing> ReadImageProcessing(const JsonValue& json,
                                                    const VisionConfig& vision);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_ARCHITECTURES_HF_IMAGE_PROCESSOR_H_
