// The files of baselines.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/file_error.h"
#include "engine/base/small_file.h"
#include "engine/base/write_file.h"
#include "server/common/delay_point.h"
#include "server/observe/activation_baseline.h"

namespace qk {
namespace {

constexpr char kSuffix[] = ".baseline";
// What a file may have beside the matrices of its model, bytes.
constexpr int64_t kFileOverhead = int64_t{1} << 20;

// All that a baseline of the model may need, bytes.
int64_t LargestFile(const ModelConfig& config) {
  int64_t floats = 0;
  for (const LayerConfig& layer : config.layers) {
    floats += 2 * layer.attention.q_size() + 3 * layer.attention.kv_size();
  }
  return kFileOverhead + floats * static_cast<int64_t>(sizeof(float));
}

absl::Status Failed(const std::string& model, const char* what) {
  const int error = errno;
  return ErrnoStatus(error, absl::StrCat(model, kSuffix, ": cannot ", what,
                                         ": ", std::strerror(error)));
}

}  // namespace

absl::Status BaselineFolder::Make(const std::string& path) {
  struct stat found = {};
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, absl::StrCat("baseline_dir: ", path, ": ",
                                           std::strerror(errno)));
  }
  if (stat(path.c_str(), &found) != 0 || !S_ISDIR(found.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("baseline_dir: ", path, ": is no folder"));
  }
  if (access(path.c_str(), R_OK | W_OK | X_OK) != 0) {
    return ErrnoStatus(errno, absl::StrCat("baseline_dir: ", path, ": ",
                                           std::strerror(errno)));
  }
  return absl::OkStatus();
}

std::string BaselineFolder::PathOf(const std::string& model) const {
  return absl::StrCat(path_, "/", model, kSuffix);
}

absl::Status BaselineFolder::Write(const ActivationBaseline& baseline) const {
  const std::string path = PathOf(baseline.model);
  const std::string part = path + ".part";
  const int fd =
      open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
           0600);
  if (fd < 0) return Failed(baseline.model, "be written");
  absl::Cleanup remove_part = [&part] { unlink(part.c_str()); };
  {
    const absl::Cleanup close_fd = [fd] { close(fd); };
    if (!WriteAll(fd, SerializeBaseline(baseline))) {
      return Failed(baseline.model, "be written");
    }
    DelayPoint("baseline.sync");
    if (fsync(fd) != 0) return Failed(baseline.model, "be synced");
  }
  DelayPoint("baseline.rename");
  if (rename(part.c_str(), path.c_str()) != 0) {
    return Failed(baseline.model, "be renamed");
  }
  std::move(remove_part).Cancel();
  return Sync(baseline.model);
}

absl::StatusOr<ActivationBaseline> BaselineFolder::Read(
    const std::string& model, const std::string& weights_sha256,
    const ModelConfig& config) const {
  SmallFileOptions options;
  options.max_bytes = LargestFile(config);
  QK_ASSIGN_OR_RETURN(const std::string content,
                      ReadSmallFile(PathOf(model), options));
  return ParseBaseline(content, weights_sha256, config);
}

absl::Status BaselineFolder::Remove(const std::string& model) const {
  if (unlink(PathOf(model).c_str()) != 0) return Failed(model, "be removed");
  return Sync(model);
}

absl::Status BaselineFolder::Sync(const std::string& model) const {
  return SyncFolder(path_) ? absl::OkStatus() : Failed(model, "be synced");
}

}  // namespace qk
