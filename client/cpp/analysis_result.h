// The result of an Analyze call as plain data: messages of the API and the
// captured tensors.
#ifndef QKSCOPE_CLIENT_CPP_ANALYSIS_RESULT_H_
#define QKSCOPE_CLIENT_CPP_ANALYSIS_RESULT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "qkscope/v1/analysis.pb.h"

namespace qk::client {

// One captured tensor, assembled from its chunks.
struct Tensor {
  // All fields but the data. `total_bytes` is data.size(), and `crc32c` is that
  // of all data.
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

// The tensor's name: "ARM/layer.3.hook_rot_q", with ".after" appended for
// values read after the disruption, ".decode" for the decode phase and
// ".step.7" for one decode step. In the vision tower:
// "ARM/image.0.vision.3.hook_rot_q".
std::string TensorName(const qkscope::v1::Layer& header);

// The names of the tensor's axes, such as {"head", "dim"} for norms over
// tokens.
std::vector<std::string> TensorAxes(const qkscope::v1::Layer& header);

// The size of one element in bytes.
int ElementBytes(qkscope::v1::RawDtype dtype);

// The number of bytes that `shape` needs, or -1 if an extent is negative or the
// product overflows.
int64_t ShapeBytes(const qkscope::v1::Layer& header);

// Converts the values to float32. INVALID_ARGUMENT if the data are not a whole
// number of elements.
absl::StatusOr<std::vector<float>> TensorValues(qkscope::v1::RawDtype dtype,
                                                const std::string& data);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_CPP_ANALYSIS_RESULT_H_
