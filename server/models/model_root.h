// Opens models below the folder that LoadModel may read.
#ifndef QKSCOPE_SERVER_MODELS_MODEL_ROOT_H_
#define QKSCOPE_SERVER_MODELS_MODEL_ROOT_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace qk {

// Holds a model's files open. path() keeps leading to these files even if their
// names change: it lies in a private folder of links to the descriptors.
class PinnedModel {
 public:
  PinnedModel() = default;
  PinnedModel(const PinnedModel&) = delete;
  PinnedModel& operator=(const PinnedModel&) = delete;
  // Removes the links. They must no longer be in use.
  ~PinnedModel();

  const std::string& path() const { return path_; }

 private:
  friend class ModelRoot;

  std::string temporary_;  // holds folder_
  std::string folder_;     // of the links
  std::string path_;
  std::vector<std::string> links_;
  std::vector<int> fds_;
};

// Limit on the files of one model; each takes a descriptor.
inline constexpr int kMaxModelFiles = 512;

class ModelRoot {
 public:
  // `max_files`: how many descriptors a model may take, if that is less.
  static absl::StatusOr<std::unique_ptr<ModelRoot>> Open(
      const std::string& directory, int max_files = kMaxModelFiles);
  ~ModelRoot();
  ModelRoot(const ModelRoot&) = delete;
  ModelRoot& operator=(const ModelRoot&) = delete;

  // `path` is that of a LoadModelRequest. PERMISSION_DENIED: the path, or a
  // link on it, leads out of the root. INVALID_ARGUMENT: the path is malformed,
  // or leads to neither a regular file nor a folder, or to a folder that holds
  // something else than a model. NOT_FOUND: it does not exist, or is a folder
  // without config.json.
  absl::StatusOr<std::unique_ptr<PinnedModel>> Pin(
      const std::string& path) const;

 private:
  ModelRoot(int fd, int max_files) : fd_(fd), max_files_(max_files) {}

  // Opens with O_PATH, which has no side effects on devices and FIFOs.
  absl::StatusOr<int> OpenBeneath(const std::string& path) const;
  bool HasFile(const std::string& path) const;
  // Calls `visit` for the names in a folder until it returns an error, and
  // returns that.
  absl::Status ForEachName(
      const std::string& path,
      absl::FunctionRef<absl::Status(absl::string_view name)> visit) const;
  static absl::Status MakeFolder(const std::string& path, PinnedModel* out);
  absl::Status CheckFolder(const std::string& path) const;
  absl::Status PinFile(const std::string& path, PinnedModel* out) const;
  absl::Status PinFolder(const std::string& path, PinnedModel* out) const;

  const int fd_;
  const int max_files_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_MODELS_MODEL_ROOT_H_
