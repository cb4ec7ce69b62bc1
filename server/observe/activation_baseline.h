// What a model's activations looked like when an operator said that they are as
// they should be.
#ifndef QKSCOPE_SERVER_OBSERVE_ACTIVATION_BASELINE_H_
#define QKSCOPE_SERVER_OBSERVE_ACTIVATION_BASELINE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/types/model_config.h"
#include "qkscope/v1/spec.pb.h"
#include "server/observe/activation_pattern.h"

namespace qk {

struct ActivationBaseline {
  std::string model;
  std::string weights_sha256;
  absl::Time created;
  MeanPatterns patterns;
};

// The API's name of a matrix.
::qkscope::v1::HookPoint PointOf(ActivationMatrix matrix);

// The shape of a place's matrix in undisrupted arms. {0, 0}: there is none.
std::vector<int> ActivationShape(const ModelConfig& config,
                                 const ActivationPlace& place);

// The content of a baseline's file (baseline.proto).
std::string SerializeBaseline(const ActivationBaseline& baseline);
// Reads that content. It may be anything: DATA_LOSS says what is wrong with it,
// FAILED_PRECONDITION that it belongs to other weights.
absl::StatusOr<ActivationBaseline> ParseBaseline(
    absl::string_view content, const std::string& weights_sha256,
    const ModelConfig& config);

// The folder of the files, one for each model's name. A file is written whole
// or not at all, also if the machine stops. Thread-safe, but one thread may
// write a model's file at a time.
class BaselineFolder {
 public:
  // Creates the folder with mode 0700 if there is none. Errors name it.
  static absl::Status Make(const std::string& path);
  // An empty path: nothing is kept.
  explicit BaselineFolder(std::string path) : path_(std::move(path)) {}

  bool keeps() const { return !path_.empty(); }
  // Errors name the file, without its folder: as ErrnoStatus.
  absl::Status Write(const ActivationBaseline& baseline) const;
  // NOT_FOUND: there is none. Errors as ParseBaseline's, and of reading.
  absl::StatusOr<ActivationBaseline> Read(const std::string& model,
                                          const std::string& weights_sha256,
                                          const ModelConfig& config) const;
  // NOT_FOUND: there is none.
  absl::Status Remove(const std::string& model) const;

 private:
  std::string PathOf(const std::string& model) const;
  absl::Status Sync(const std::string& model) const;

  const std::string path_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_ACTIVATION_BASELINE_H_
