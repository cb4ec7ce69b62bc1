// Tests the files of --out and --manifest.
#include <dirent.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "client/cpp/stream_checker.h"
#include "client/files/file_io.h"
#include "client/files/saved_analysis.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "tests/client/cpp/fake_stream.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;
using google::protobuf::util::MessageDifferencer;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class FilesTest : public ::testing::Test {
 protected:
  FilesTest() {
    std::string pattern = ::testing::TempDir() + "/qkctl_files_XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~FilesTest() override {
    for (const std::string& name : Names()) unlink(Path(name).c_str());
    rmdir(folder_.c_str());
  }

  std::string Path(const std::string& name) { return folder_ + "/" + name; }

  std::vector<std::string> Names() {
    std::vector<std::string> names;
    DIR* folder = opendir(folder_.c_str());
    while (const dirent* entry = readdir(folder)) {
      if (entry->d_name[0] != '.') names.push_back(entry->d_name);
    }
    closedir(folder);
    return names;
  }

  std::string folder_;
};

AnalysisResult Result(const FakeStreamOptions& options = {}) {
  AnalysisResult result;
  StreamChecker checker;
  for (v1::AnalyzeEvent& event : FakeStream(options)) {
    auto tensor = checker.Add(&event);
    EXPECT_TRUE(tensor.ok()) << tensor.status();
    if (tensor->has_value()) result.tensors.push_back(**tensor);
    if (event.has_comparison()) {
      result.comparisons.push_back(event.comparison());
    }
    if (event.has_finished()) result.finished = event.finished();
  }
  return result;
}

TEST_F(FilesTest, SafetensorsKeepEverything) {
  FakeStreamOptions options;
  options.images = 2;
  const AnalysisResult result = Result(options);
  ASSERT_TRUE(WriteSafetensors(result, Path("a.safetensors")).ok());
  EXPECT_THAT(Names(), ElementsAre("a.safetensors"));
  const auto saved = ReadSavedAnalysis(Path("a.safetensors"));
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_TRUE(
      MessageDifferencer::Equals(saved->manifest, result.finished.manifest()));
  ASSERT_EQ(result.comparisons.size(), 2u);
  ASSERT_EQ(saved->comparisons.size(), 2u);
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(MessageDifferencer::Equals(saved->comparisons[i],
                                           result.comparisons[i]));
  }
  ASSERT_EQ(result.tensors.size(), 24u);
  ASSERT_EQ(saved->tensors.size(), 24u);
  for (const Tensor& tensor : result.tensors) {
    bool found = false;
    for (const Tensor& other : saved->tensors) {
      if (TensorName(other.header) != TensorName(tensor.header)) continue;
      found = true;
      EXPECT_EQ(other.data, tensor.data);
      EXPECT_TRUE(MessageDifferencer::Equals(other.header, tensor.header));
    }
    EXPECT_TRUE(found) << TensorName(tensor.header);
  }
}

TEST_F(FilesTest, ManifestComesBack) {
  const v1::Manifest manifest = Result().finished.manifest();
  ASSERT_TRUE(WriteManifest(manifest, Path("m.json")).ok());
  const auto saved = ReadSavedAnalysis(Path("m.json"));
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_TRUE(MessageDifferencer::Equals(saved->manifest, manifest));
  EXPECT_THAT(saved->tensors, IsEmpty());
}

TEST_F(FilesTest, EveryTruncationIsAnErrorOrTheWholeFile) {
  ASSERT_TRUE(WriteSafetensors(Result(), Path("a")).ok());
  const std::string whole = *ReadFile(Path("a"));
  for (size_t bytes = 0; bytes < whole.size(); bytes += 7) {
    const std::string part = whole.substr(0, bytes);
    ASSERT_TRUE(WriteFileAtomically(Path("b"), {&part}).ok());
    EXPECT_FALSE(ReadSavedAnalysis(Path("b")).ok()) << bytes;
  }
}

TEST_F(FilesTest, OtherFilesAreRefused) {
  for (const std::string content :
       {"", "{}", "[]", "hello", "{\"model\": 3", "\1\0\0\0\0\0\0\0{"}) {
    ASSERT_TRUE(WriteFileAtomically(Path("x"), {&content}).ok());
    EXPECT_FALSE(ReadSavedAnalysis(Path("x")).ok()) << content;
  }
}

TEST_F(FilesTest, AFailedWriteLeavesTheOldFileAndNoOther) {
  const std::string old = "old";
  ASSERT_TRUE(WriteFileAtomically(Path("a"), {&old}).ok());
  // A folder cannot be replaced by a file: the rename fails.
  ASSERT_EQ(mkdir(Path("folder").c_str(), 0700), 0);
  const absl::Status status = WriteFileAtomically(Path("folder"), {&old});
  EXPECT_TRUE(IsFileError(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("cannot write"));
  EXPECT_EQ(rmdir(Path("folder").c_str()), 0);
  EXPECT_THAT(Names(), ElementsAre("a"));
  EXPECT_EQ(*ReadFile(Path("a")), "old");
}

// Calls CheckWritable as a user without privileges; root may write everything.
bool WritableForNobody(const std::string& path) {
  const pid_t child = fork();
  if (child == 0) {
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) _exit(2);
    _exit(CheckWritable(path).ok() ? 0 : 1);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) < 2) << status;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST_F(FilesTest, ReadOnlyPlacesAreNotWritable) {
  const std::string file = Path("file");
  ASSERT_TRUE(WriteFileAtomically(file, {&file}).ok());
  chmod(folder_.c_str(), 0777);
  chmod(file.c_str(), 0666);
  EXPECT_TRUE(WritableForNobody(file));
  EXPECT_TRUE(WritableForNobody(Path("new")));
  chmod(file.c_str(), 0444);
  EXPECT_FALSE(WritableForNobody(file));
  chmod(file.c_str(), 0666);
  chmod(folder_.c_str(), 0555);
  EXPECT_FALSE(WritableForNobody(file));
  EXPECT_FALSE(WritableForNobody(Path("new")));
  chmod(folder_.c_str(), 0777);
  EXPECT_THAT(Names(), ElementsAre("file"));
}

TEST_F(FilesTest, MissingFilesAndFoldersAreFileErrors) {
  EXPECT_TRUE(IsFileError(ReadFile(Path("none")).status()));
  EXPECT_TRUE(IsFileError(ReadFile(folder_).status()));
  const std::string text = "x";
  EXPECT_TRUE(IsFileError(WriteFileAtomically(Path("none/a"), {&text})));
}

}  // namespace
}  // namespace qk::client
