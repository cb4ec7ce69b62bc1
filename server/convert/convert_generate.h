// Converts the settings of generation: length, sampling, stops.
#ifndef QKSCOPE_SERVER_CONVERT_CONVERT_GENERATE_H_
#define QKSCOPE_SERVER_CONVERT_CONVERT_GENERATE_H_

#include "absl/status/statusor.h"
#include "engine/types/spec.h"
#include "qkscope/v1/spec.pb.h"
#include "server/convert/convert.h"

namespace qk {

struct ConvertedGenerate {
  GenerateSpec spec;
  pb::GenerateSpec expanded;
};

absl::StatusOr<ConvertedGenerate> ConvertGenerateSpec(
    const pb::GenerateSpec& generate, const ModelView& model, int prompt_tokens,
    const Limits& limits);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONVERT_CONVERT_GENERATE_H_
