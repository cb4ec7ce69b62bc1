#include "engine/formats/safetensors.h"

#include <sys/stat.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/flat_hash.h"
#include "engine/base/sha256.h"
#include "engine/formats/excerpt.h"
#include "engine/formats/mapped_file.h"
#include "engine/formats/text_file.h"

namespace qk {
namespace {

constexpr absl::string_view kSingle = "model.safetensors";
constexpr absl::string_view kIndex = "model.safetensors.index.json";

class SafetensorsSource : public TensorSource {
 public:
  // `files` are in the order of their names; `tensors` point into them and have
  // unique names.
  SafetensorsSource(std::vector<std::unique_ptr<MappedFile>> files,
                    std::vector<TensorInfo> tensors)
      : files_(std::move(files)), tensors_(std::move(tensors)) {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      by_name_.emplace(tensors_[i].name, i);
    }
  }

  absl::Span<const TensorInfo> tensors() const override { return tensors_; }

  const TensorInfo* Find(absl::string_view name) const override {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : &tensors_[found->second];
  }

  void DropPages() override {
    for (const auto& file : files_) file->DropPages();
  }

  absl::Status ReadStatus() const override {
    for (const auto& file : files_) QK_RETURN_IF_ERROR(file->ReadStatus());
    return absl::OkStatus();
  }

  std::string Sha256Hex() const override {
    Sha256 sha;
    for (const auto& file : files_) {
      sha.Update(file->bytes().data(), file->bytes().size());
    }
    return sha.FinishHex();
  }

  int64_t file_bytes() const override {
    int64_t sum = 0;
    for (const auto& file : files_) sum += file->size();
    return sum;
  }

 private:
  std::vector<std::unique_ptr<MappedFile>> files_;
  std::vector<TensorInfo> tensors_;
  FlatHashMap<absl::string_view, size_t> by_name_;
};

absl::StatusOr<SafetensorsContents> Parse(const MappedFile& file) {
  absl::StatusOr<SafetensorsContents> contents =
      ParseSafetensors(file.name(), file.bytes());
  if (!contents.ok()) return file.Explain(contents.status());
  return contents;
}

absl::StatusOr<std::unique_ptr<TensorSource>> OpenSingle(
    const std::string& path) {
  std::vector<std::unique_ptr<MappedFile>> files(1);
  QK_ASSIGN_OR_RETURN(files[0], MappedFile::Open(path));
  QK_ASSIGN_OR_RETURN(SafetensorsContents contents, Parse(*files[0]));
  return std::make_unique<SafetensorsSource>(std::move(files),
                                             std::move(contents.tensors));
}

// Compares what the shards hold with what the index claims.
class ShardMatcher {
 public:
  ShardMatcher(absl::string_view index_name, const ShardIndex& index)
      : index_name_(index_name), index_(index) {
    for (const auto& [tensor, file] : index.tensors) {
      expected_.emplace(tensor, file);
    }
  }

  absl::Status Add(size_t file, absl::string_view tensor) {
    const auto expected = expected_.find(tensor);
    if (expected == expected_.end()) {
      return Fail(tensor, "is not listed, but is in ", file);
    }
    const auto [first, inserted] = seen_.emplace(expected->first, file);
    if (!inserted) {
      return Fail(tensor,
                  absl::StrCat("is in two shards: ",
                               Excerpt(index_.files[first->second]), " and "),
                  file);
    }
    return absl::OkStatus();
  }

  // Call this after all shards.
  absl::Status Finish() const {
    for (const auto& [tensor, file] : index_.tensors) {
      const auto seen = seen_.find(tensor);
      if (seen == seen_.end()) return Fail(tensor, "is missing from ", file);
      if (seen->second != file) {
        return Fail(tensor,
                    absl::StrCat("is in ", Excerpt(index_.files[seen->second]),
                                 ", expected in "),
                    file);
      }
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Fail(absl::string_view tensor, absl::string_view problem,
                    size_t file) const {
    return absl::InvalidArgumentError(
        absl::StrCat(index_name_, ": tensor '", Excerpt(tensor), "' ", problem,
                     Excerpt(index_.files[file])));
  }

  absl::string_view index_name_;
  const ShardIndex& index_;
  FlatHashMap<absl::string_view, size_t> expected_;
  FlatHashMap<absl::string_view, size_t> seen_;
};

absl::StatusOr<std::unique_ptr<TensorSource>> OpenSharded(
    const std::string& path) {
  const std::string name = FileNameOf(path);
  QK_ASSIGN_OR_RETURN(const std::string text, ReadModelText(path));
  QK_ASSIGN_OR_RETURN(const ShardIndex index, ParseShardIndex(name, text));
  const std::string folder = path.substr(0, path.rfind('/') + 1);
  std::vector<std::unique_ptr<MappedFile>> files;
  std::vector<TensorInfo> tensors;
  ShardMatcher matcher(name, index);
  for (size_t i = 0; i < index.files.size(); ++i) {
    QK_ASSIGN_OR_RETURN(auto file, MappedFile::Open(folder + index.files[i]));
    QK_ASSIGN_OR_RETURN(SafetensorsContents shard, Parse(*file));
    for (TensorInfo& tensor : shard.tensors) {
      QK_RETURN_IF_ERROR(matcher.Add(i, tensor.name));
      tensors.push_back(std::move(tensor));
    }
    for (const std::string& other : shard.others) {
      QK_RETURN_IF_ERROR(matcher.Add(i, other));
    }
    files.push_back(std::move(file));
  }
  QK_RETURN_IF_ERROR(matcher.Finish());
  return std::make_unique<SafetensorsSource>(std::move(files),
                                             std::move(tensors));
}

bool IsFolder(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorSource>> OpenSafetensors(
    const std::string& path) {
  if (absl::EndsWith(path, ".index.json")) return OpenSharded(path);
  if (!IsFolder(path)) return OpenSingle(path);
  const std::string single = absl::StrCat(path, "/", kSingle);
  if (FileExists(single)) return OpenSingle(single);
  const std::string index = absl::StrCat(path, "/", kIndex);
  if (FileExists(index)) return OpenSharded(index);
  const bool pickled =
      FileExists(absl::StrCat(path, "/pytorch_model.bin")) ||
      FileExists(absl::StrCat(path, "/pytorch_model.bin.index.json"));
  return absl::NotFoundError(absl::StrCat(
      FileNameOf(path), ": has neither ", kSingle, " nor ", kIndex,
      pickled ? ", but pytorch_model.bin, which holds Python code and is never "
                "read: load it with transformers and save it as safetensors"
              : ""));
}

}  // namespace qk
