#include "server/models/model_root.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/base/check.h"
#include "engine/base/file_error.h"
#include "engine/model/explain_folder.h"
#include "server/common/text.h"

namespace qk {
namespace {

absl::string_view BaseName(absl::string_view path) {
  return path.substr(path.rfind('/') + 1);  // npos + 1 is 0
}

absl::Status OpenError(const std::string& path, int error) {
  const std::string name = Echo(BaseName(path));
  switch (error) {
    case EXDEV:
    case ELOOP:
      return absl::PermissionDeniedError(
          absl::StrCat("path: '", name, "' leads out of the models' root"));
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(
          absl::StrCat("path: '", name, "': permission denied"));
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(
          absl::StrCat("path: '", Echo(path), "': no such file or folder"));
    case EAGAIN:
      return absl::UnavailableError(
          absl::StrCat("path: '", name, "' changed while it was being opened"));
    case ENOSYS:
      return absl::UnimplementedError("LoadModel needs Linux 5.6 or later");
    default:
      return ErrnoStatus(
          error, absl::StrCat("path: '", name, "': ", std::strerror(error)));
  }
}

absl::Status CheckPath(absl::string_view path) {
  const auto bad = [&](absl::string_view problem) {
    return absl::InvalidArgumentError(
        absl::StrCat("path: ", problem, ", got '", Echo(path), "'"));
  };
  if (path.empty()) return bad("must not be empty");
  if (path.find('\0') != absl::string_view::npos) {
    return bad("must not contain NUL");
  }
  if (path.front() == '/') {
    return absl::PermissionDeniedError(absl::StrCat(
        "path: must be relative to the models' root, got '", Echo(path), "'"));
  }
  for (absl::string_view part : absl::StrSplit(path, '/')) {
    if (part.empty()) return bad("must not have an empty component");
    if (part == "..") {
      return absl::PermissionDeniedError(
          absl::StrCat("path: must not have '..', got '", Echo(path), "'"));
    }
  }
  return absl::OkStatus();
}

absl::Status TooManyFiles(int most) {
  if (most == kMaxModelFiles) {
    return absl::InvalidArgumentError(
        absl::StrCat("path: the folder has more than ", most, " model files"));
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "path: the folder has more than ", most,
      " model files, for which this server has no descriptors; raise its limit "
      "on open files (ulimit -n, LimitNOFILE)"));
}

// Whether the loader may read the file of that name.
bool IsModelFile(absl::string_view name) {
  return absl::EndsWith(name, ".json") ||
         absl::EndsWith(name, ".safetensors") ||
         absl::EndsWith(name, ".model") || name == "merges.txt";
}

absl::StatusOr<mode_t> ModeOf(int fd, const std::string& path) {
  struct stat info;
  if (fstat(fd, &info) != 0) return OpenError(path, errno);
  return info.st_mode;
}

}  // namespace

PinnedModel::~PinnedModel() {
  for (const std::string& link : links_) unlink(link.c_str());
  if (!folder_.empty()) rmdir(folder_.c_str());
  if (!temporary_.empty()) rmdir(temporary_.c_str());
  for (int fd : fds_) close(fd);
}

absl::StatusOr<std::unique_ptr<ModelRoot>> ModelRoot::Open(
    const std::string& directory, int max_files) {
  const int fd = open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    const absl::Status status =
        ErrnoStatus(errno, absl::StrCat("model_admin.root: '", directory,
                                        "': ", std::strerror(errno)));
    return IsMachineFault(status)
               ? status
               : absl::InvalidArgumentError(status.message());
  }
  return std::unique_ptr<ModelRoot>(
      new ModelRoot(fd, std::min(max_files, kMaxModelFiles)));
}

ModelRoot::~ModelRoot() { close(fd_); }

absl::StatusOr<int> ModelRoot::OpenBeneath(const std::string& path) const {
  open_how how = {};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  const long fd = syscall(SYS_openat2, fd_, path.c_str(), &how, sizeof(how));
  if (fd < 0) return OpenError(path, errno);
  return static_cast<int>(fd);
}

absl::Status ModelRoot::PinFile(const std::string& path,
                                PinnedModel* out) const {
  QK_ASSIGN_OR_RETURN(const int fd, OpenBeneath(path));
  out->fds_.push_back(fd);
  QK_ASSIGN_OR_RETURN(const mode_t mode, ModeOf(fd, path));
  if (!S_ISREG(mode)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "path: '", Echo(BaseName(path)), "' is not a regular file"));
  }
  const std::string link = absl::StrCat(out->folder_, "/", BaseName(path));
  if (symlink(absl::StrCat("/proc/self/fd/", fd).c_str(), link.c_str()) != 0) {
    return OpenError(path, errno);
  }
  out->links_.push_back(link);
  return absl::OkStatus();
}

bool ModelRoot::HasFile(const std::string& path) const {
  const absl::StatusOr<int> fd = OpenBeneath(path);
  if (!fd.ok()) return false;
  const absl::StatusOr<mode_t> mode = ModeOf(*fd, path);
  close(*fd);
  return mode.ok() && S_ISREG(*mode);
}

absl::Status ModelRoot::ForEachName(
    const std::string& path,
    absl::FunctionRef<absl::Status(absl::string_view name)> visit) const {
  QK_ASSIGN_OR_RETURN(const int fd, OpenBeneath(path));
  const int listed = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const int error = errno;
  close(fd);
  if (listed < 0) return OpenError(path, error);
  DIR* const folder = fdopendir(listed);
  if (folder == nullptr) {
    const absl::Status failed = OpenError(path, errno);
    close(listed);
    return failed;
  }
  absl::Cleanup close_folder = [folder] { closedir(folder); };
  for (;;) {
    errno = 0;
    const dirent* const entry = readdir(folder);
    if (entry == nullptr) break;
    QK_RETURN_IF_ERROR(visit(entry->d_name));
  }
  return errno == 0 ? absl::OkStatus() : OpenError(path, errno);
}

// Says what a folder holds if it is no model.
absl::Status ModelRoot::CheckFolder(const std::string& path) const {
  const absl::StatusOr<int> config = OpenBeneath(path + "/config.json");
  if (config.ok()) close(*config);
  if (!absl::IsNotFound(config.status())) return config.status();
  FolderLook look;
  look.has_file = [&](const std::string& file) {
    return HasFile(absl::StrCat(path, "/", file));
  };
  look.names = [&](const std::string& inner, int most) {
    std::vector<std::string> names;
    ForEachName(absl::StrCat(path, "/", inner), [&](absl::string_view name) {
      if (static_cast<int>(names.size()) == most) {
        return absl::CancelledError();
      }
      if (name != "." && name != "..") names.emplace_back(name);
      return absl::OkStatus();
    }).IgnoreError();
    return names;
  };
  return ExplainFolder(absl::StrCat("path: '", Echo(BaseName(path)), "'"),
                       look);
}

absl::Status ModelRoot::PinFolder(const std::string& path,
                                  PinnedModel* out) const {
  return ForEachName(path, [&](absl::string_view name) -> absl::Status {
    if (!IsModelFile(name)) return absl::OkStatus();
    if (static_cast<int>(out->links_.size()) == max_files_) {
      return TooManyFiles(max_files_);
    }
    const absl::Status status = PinFile(absl::StrCat(path, "/", name), out);
    // A broken link is skipped; if the model needs it, loading fails.
    return absl::IsNotFound(status) ? absl::OkStatus() : status;
  });
}

// The folder of links has the name of the model's own, which errors then show.
absl::Status ModelRoot::MakeFolder(const std::string& path, PinnedModel* out) {
  const auto failed = [](const std::string& problem) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no temporary folder: ", problem));
  };
  std::error_code error;
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path(error);
  if (error) return failed(error.message());
  std::string temporary = folder / "qkscoped_XXXXXX";
  if (mkdtemp(temporary.data()) == nullptr) {
    return failed(std::strerror(errno));
  }
  out->temporary_ = temporary;
  const absl::string_view name = BaseName(path);
  const std::string inner =
      absl::StrCat(temporary, "/", name == "." ? "model" : name);
  if (mkdir(inner.c_str(), 0700) != 0) return failed(std::strerror(errno));
  out->folder_ = inner;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<PinnedModel>> ModelRoot::Pin(
    const std::string& path) const {
  std::string clean = path;
  if (clean.size() > 1 && clean.back() == '/') clean.pop_back();
  QK_RETURN_IF_ERROR(CheckPath(clean));
  QK_ASSIGN_OR_RETURN(const int fd, OpenBeneath(clean));
  const absl::StatusOr<mode_t> mode = ModeOf(fd, clean);
  close(fd);
  if (!mode.ok()) return mode.status();
  if (S_ISDIR(*mode)) QK_RETURN_IF_ERROR(CheckFolder(clean));
  auto out = std::make_unique<PinnedModel>();
  if (S_ISDIR(*mode)) {
    QK_RETURN_IF_ERROR(MakeFolder(clean, out.get()));
    out->path_ = out->folder_;
    QK_RETURN_IF_ERROR(PinFolder(clean, out.get()));
    return out;
  }
  const size_t slash = clean.rfind('/');
  const std::string folder =
      slash == std::string::npos ? "." : clean.substr(0, slash);
  QK_RETURN_IF_ERROR(MakeFolder(folder, out.get()));
  out->path_ = absl::StrCat(out->folder_, "/", BaseName(clean));
  if (absl::EndsWith(clean, ".safetensors") || absl::EndsWith(clean, ".json")) {
    QK_RETURN_IF_ERROR(PinFolder(folder, out.get()));
  } else {
    QK_RETURN_IF_ERROR(PinFile(clean, out.get()));
  }
  return out;
}

}  // namespace qk
