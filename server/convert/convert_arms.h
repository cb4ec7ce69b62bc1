// Converts the arms of a request: names, rules, presets and model variants.
#ifndef QKSCOPE_SERVER_CONVERT_CONVERT_ARMS_H_
#define QKSCOPE_SERVER_CONVERT_CONVERT_ARMS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/types/spec.h"
#include "qkscope/v1/spec.pb.h"
#include "server/convert/convert.h"

namespace qk {

struct ConvertedArm {
  ModelView model;  // the arm's
  ArmSpec spec;
  pb::Arm expanded;
};

// Converts one arm. `field`: the arm's path for errors, such as "arms[1]".
absl::StatusOr<ConvertedArm> ConvertArm(const pb::Arm& arm,
                                        absl::string_view field,
                                        const ModelView& model,
                                        int prompt_tokens,
                                        const ConvertContext& context);

// Converts all arms of an Analyze. Without arms, makes one arm `clean`.
absl::StatusOr<std::vector<ConvertedArm>> ConvertArms(
    const google::protobuf::RepeatedPtrField<pb::Arm>& arms,
    const ModelView& model, int prompt_tokens, const ConvertContext& context);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONVERT_CONVERT_ARMS_H_
