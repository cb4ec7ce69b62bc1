// Checks the images of an input and makes the engine's of them.
#ifndef QKSCOPE_SERVER_CONVERT_CONVERT_IMAGE_H_
#define QKSCOPE_SERVER_CONVERT_CONVERT_IMAGE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "engine/types/spec.h"
#include "qkscope/v1/analysis.pb.h"
#include "server/convert/convert.h"

namespace qk {

inline constexpr int kMaxImages = 16;

struct ConvertedImages {
  std::vector<Image> images;
  // The prompt with as many placeholders as the images have rows.
  std::vector<int32_t> tokens;
  std::vector<pb::Image> expanded;  // sha256 in place of the bytes
};

// `tokens`: the prompt's, with a placeholder for each image or for each row of
// the images. FAILED_PRECONDITION: the model takes no images.
absl::StatusOr<ConvertedImages> ConvertImages(const pb::Input& input,
                                              std::vector<int32_t> tokens,
                                              const ModelView& model);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONVERT_CONVERT_IMAGE_H_
