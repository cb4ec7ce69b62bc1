// Saves and reads an analysis as a .safetensors file
// (huggingface.co/docs/safetensors), which any library for that format can
// read.
//
// Tensors have the names that TensorName returns: `clean/layer.3.hook_rot_q`.
// The file's `__metadata__` holds `format`: "qkscope" and, as JSON text:
//   manifest     the Manifest, in protobuf's JSON mapping
//   axes         {tensor name: [axis names]}
//   layers       {tensor name: Layer without data}
//   comparisons  [Comparison]
#ifndef QKSCOPE_CLIENT_FILES_SAVED_ANALYSIS_H_
#define QKSCOPE_CLIENT_FILES_SAVED_ANALYSIS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/analysis_result.h"

namespace qk::client {

struct SavedAnalysis {
  std::vector<Tensor> tensors;
  std::vector<qkscope::v1::Comparison> comparisons;
  qkscope::v1::Manifest manifest;
};

// The files are written completely or not at all.
absl::Status WriteSafetensors(const AnalysisResult& result,
                              const std::string& path);
absl::Status WriteManifest(const qkscope::v1::Manifest& manifest,
                           const std::string& path);

// Reads either kind of file. A manifest has no tensors. DATA_LOSS says what is
// wrong with the file.
absl::StatusOr<SavedAnalysis> ReadSavedAnalysis(const std::string& path);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_FILES_SAVED_ANALYSIS_H_
