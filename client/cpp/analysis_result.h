// What a call of Analyze gives back, as plain data: messages of the API and the
// captured tensors, whole.
#ifndef QKSCOPE_CLIENT_CPP_ANALYSIS_RESULT_H_
#define QKSCOPE_CLIENT_CPP_ANALYSIS_RESULT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "qkscope/v1/analysis.pb.h"

namespace qk::client {

// One captured tensor, put together from its chunks.
struct Tensor {
  // Everything but the data; `total_bytes` is data.size() and `crc32c` is of
  // all of it.
  qkscope::v1::Layer header;
  std::string data;  // Row-major, little-endian; shape and dtype in `header`.
};

struct AnalysisResult {
  std::string request_id;
  qkscope::v1::Started started;
  std::vector<Tensor> tensors;  // In order of arrival.
  std::vector<qkscope::v1::Applied> applied;
  std::vector<qkscope::v1::Token> tokens;
  std::vector<qkscope::v1::Comparison> comparisons;
  std::vector<qkscope::v1::Logits> logits;
  qkscope::v1::Finished finished;
};

// "ARM/layer.3.hook_rot_q", with ".after" for values read after the disruption,
// ".decode" for the decode phase and ".step.7" for one of its steps; of a
// vision tower "ARM/image.0.vision.3.hook_rot_q".
std::string TensorName(const qkscope::v1::Layer& header);

// Axes of the tensor's shape: {"head", "dim"} for norms over tokens, and so on.
std::vector<std::string> TensorAxes(const qkscope::v1::Layer& header);

// Bytes of one element.
int ElementBytes(qkscope::v1::RawDtype dtype);

// The product of `shape` in bytes, or -1 when an extent is negative or the
// product does not fit.
int64_t ShapeBytes(const qkscope::v1::Layer& header);

// The values as float32, whatever the dtype. INVALID_ARGUMENT when the data are
// not a whole number of elements.
absl::StatusOr<std::vector<float>> TensorValues(qkscope::v1::RawDtype dtype,
                                                const std::string& data);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_CPP_ANALYSIS_RESULT_H_
