// The folder that LoadModel takes models from.
#ifndef QKSCOPE_SERVER_MODELS_MODEL_ROOT_H_
#define QKSCOPE_SERVER_MODELS_MODEL_ROOT_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace qk {

// A model's files, held open: whatever happens to their names afterwards,
// path() leads to these. It is a private folder of links to the descriptors.
class PinnedModel {
 public:
  PinnedModel() = default;
  PinnedModel(const PinnedModel&) = delete;
  PinnedModel& operator=(const PinnedModel&) = delete;
  // Removes the links, which must no longer be in use.
  ~PinnedModel();

  const std::string& path() const { return path_; }

 private:
  friend class ModelRoot;

  std::string folder_;
  std::string path_;
  std::vector<std::string> links_;
  std::vector<int> fds_;
};

class ModelRoot {
 public:
  static absl::StatusOr<std::unique_ptr<ModelRoot>> Open(
      const std::string& directory);
  ~ModelRoot();
  ModelRoot(const ModelRoot&) = delete;
  ModelRoot& operator=(const ModelRoot&) = delete;

  // `path` as in LoadModelRequest. PERMISSION_DENIED: it, or a link that it
  // meets, leads out of the root. INVALID_ARGUMENT: not a path, or neither
  // regular file nor folder. NOT_FOUND.
  absl::StatusOr<std::unique_ptr<PinnedModel>> Pin(
      const std::string& path) const;

 private:
  explicit ModelRoot(int fd) : fd_(fd) {}

  // O_PATH: opening has no effect on what it is.
  absl::StatusOr<int> OpenBeneath(const std::string& path) const;
  absl::Status PinFile(const std::string& path, PinnedModel* out) const;
  absl::Status PinFolder(const std::string& path, PinnedModel* out) const;

  const int fd_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_MODELS_MODEL_ROOT_H_
