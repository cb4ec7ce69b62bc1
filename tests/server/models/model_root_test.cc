// Tests which files LoadModel may open, and that they stay the same.
#include "server/models/model_root.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/common/descriptors.h"
#include "tests/temp_folder.h"

namespace qk {
namespace {

namespace fs = std::filesystem;
using absl::StatusCode;

std::string Read(const fs::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

class ModelRootTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(top_ / "root/folder");
    Write("outside.gguf", "outside");
    Write("root/a.gguf", "inside");
    Write("root/folder/config.json", "{}");
    Write("root/folder/model.safetensors", "weights");
    Write("root/folder/notes.txt", "not for the loader");
    auto root = ModelRoot::Open(top_ / "root");
    ASSERT_TRUE(root.ok()) << root.status();
    root_ = *std::move(root);
  }

  void Write(const std::string& name, const std::string& text) {
    std::ofstream(top_ / name) << text;
  }
  StatusCode CodeOf(const std::string& path) {
    return root_->Pin(path).status().code();
  }

  const testing::TempFolder folder_;
  const fs::path top_ = folder_.path();
  std::unique_ptr<ModelRoot> root_;
};

TEST_F(ModelRootTest, S8_PinsFilesAndFolders) {
  std::string left;
  {
    const auto file = root_->Pin("a.gguf");
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(fs::path((*file)->path()).filename(), "a.gguf");
    EXPECT_EQ(Read((*file)->path()), "inside");
    left = fs::path((*file)->path()).parent_path();
    EXPECT_TRUE(fs::exists(left));
  }
  EXPECT_FALSE(fs::exists(left));
  for (const char* path : {"folder", "folder/", "./folder"}) {
    const auto folder = root_->Pin(path);
    ASSERT_TRUE(folder.ok()) << folder.status();
    EXPECT_EQ(Read((*folder)->path() + "/model.safetensors"), "weights");
    EXPECT_EQ(Read((*folder)->path() + "/config.json"), "{}");
    EXPECT_FALSE(fs::exists((*folder)->path() + "/notes.txt"));
    // Errors show the last part of a path.
    EXPECT_EQ(fs::path((*folder)->path()).filename(), "folder");
  }
  const auto whole = root_->Pin("folder/.");
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(fs::path((*whole)->path()).filename(), "model");
  const auto weights = root_->Pin("folder/model.safetensors");
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(Read((*weights)->path()), "weights");
  EXPECT_EQ(Read(fs::path((*weights)->path()).parent_path() / "config.json"),
            "{}");
}

TEST_F(ModelRootTest, S8_RefusesPathsThatLeadOut) {
  const std::string outside = top_ / "outside.gguf";
  EXPECT_EQ(CodeOf(outside), StatusCode::kPermissionDenied);
  EXPECT_EQ(CodeOf(top_ / "root/a.gguf"), StatusCode::kPermissionDenied);
  EXPECT_EQ(CodeOf("../outside.gguf"), StatusCode::kPermissionDenied);
  EXPECT_EQ(CodeOf("folder/../../outside.gguf"), StatusCode::kPermissionDenied);
  EXPECT_EQ(CodeOf("folder/../a.gguf"), StatusCode::kPermissionDenied);
  fs::create_symlink("../outside.gguf", top_ / "root/link.gguf");
  fs::create_symlink(outside, top_ / "root/absolute.gguf");
  fs::create_directory_symlink("..", top_ / "root/up");
  EXPECT_EQ(CodeOf("link.gguf"), StatusCode::kPermissionDenied);
  EXPECT_EQ(CodeOf("absolute.gguf"), StatusCode::kPermissionDenied);
  EXPECT_EQ(CodeOf("up/outside.gguf"), StatusCode::kPermissionDenied);
  // A link that stays inside the root behaves like the file.
  fs::create_symlink("../a.gguf", top_ / "root/folder/link.gguf");
  const auto inside = root_->Pin("folder/link.gguf");
  ASSERT_TRUE(inside.ok()) << inside.status();
  EXPECT_EQ(Read((*inside)->path()), "inside");
  // The same holds within a folder.
  fs::create_symlink(outside, top_ / "root/folder/tokenizer.json");
  EXPECT_EQ(CodeOf("folder"), StatusCode::kPermissionDenied);
  EXPECT_EQ(CodeOf("folder/model.safetensors"), StatusCode::kPermissionDenied);
}

TEST_F(ModelRootTest, AFolderThatIsNoModelIsExplained) {
  const auto message = [&](const std::string& path) {
    return std::string(root_->Pin(path).status().message());
  };
  fs::create_directories(top_ / "root/hub/snapshots/1f3a");
  Write("root/hub/snapshots/1f3a/config.json", "{}");
  EXPECT_EQ(message("hub"),
            "path: 'hub': a cache folder of the Hugging Face hub: name the "
            "snapshot inside, snapshots/1f3a");
  EXPECT_TRUE(root_->Pin("hub/snapshots/1f3a").ok());
  fs::create_directories(top_ / "root/files");
  Write("root/files/q8.gguf", "inside");
  EXPECT_EQ(message("files/"),
            "path: 'files': has no config.json, but GGUF files: name the file, "
            "q8.gguf");
  fs::create_directories(top_ / "root/lora");
  Write("root/lora/adapter_config.json", "{}");
  EXPECT_NE(message("lora").find("an adapter (LoRA)"), std::string::npos);
  EXPECT_EQ(CodeOf("lora"), StatusCode::kInvalidArgument);
  EXPECT_EQ(message("."),
            "path: '.': has no config.json, but GGUF files: name the file, "
            "a.gguf");
  fs::create_directories(top_ / "root/empty");
  EXPECT_EQ(message("empty"),
            "path: 'empty': has no config.json, so it is no model");
  EXPECT_EQ(CodeOf("empty"), StatusCode::kNotFound);
}

TEST_F(ModelRootTest, AnExplanationNamesNothingOutside) {
  fs::create_directories(top_ / "outside/secret");
  Write("outside/secret/config.json", "{}");
  fs::create_directories(top_ / "root/hub");
  fs::create_directory_symlink(top_ / "outside", top_ / "root/hub/snapshots");
  fs::create_directory_symlink(top_ / "outside/secret", top_ / "root/hub/x");
  EXPECT_EQ(root_->Pin("hub").status().message(),
            "path: 'hub': has no config.json, so it is no model");
  fs::create_symlink(top_ / "outside/secret/config.json",
                     top_ / "root/hub/config.json");
  EXPECT_EQ(CodeOf("hub"), StatusCode::kPermissionDenied);
}

TEST_F(ModelRootTest, S8_RefusesWhatIsNoPath) {
  EXPECT_EQ(CodeOf(""), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf("folder//config.json"), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(std::string("a.gguf\0x", 8)), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(std::string(5000, 'a')), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf("none.gguf"), StatusCode::kNotFound);
  EXPECT_EQ(CodeOf("a.gguf/b"), StatusCode::kNotFound);
  EXPECT_EQ(CodeOf("/"), StatusCode::kPermissionDenied);
}

TEST_F(ModelRootTest, S8_RefusesWhatIsNoFile) {
  ASSERT_EQ(mkfifo((top_ / "root/fifo.gguf").c_str(), 0600), 0);
  EXPECT_EQ(CodeOf("fifo.gguf"), StatusCode::kInvalidArgument);
  ASSERT_EQ(mkfifo((top_ / "root/folder/x.json").c_str(), 0600), 0);
  EXPECT_EQ(CodeOf("folder"), StatusCode::kInvalidArgument);
  const fs::path device = top_ / "root/device.gguf";
  if (mknod(device.c_str(), S_IFCHR | 0600, makedev(1, 3)) == 0) {
    EXPECT_EQ(CodeOf("device.gguf"), StatusCode::kInvalidArgument);
  }
}

TEST_F(ModelRootTest, S8_WhatIsPinnedCannotBeSwapped) {
  const auto file = root_->Pin("a.gguf");
  const auto folder = root_->Pin("folder");
  ASSERT_TRUE(file.ok() && folder.ok());
  fs::remove(top_ / "root/a.gguf");
  fs::create_symlink(top_ / "outside.gguf", top_ / "root/a.gguf");
  fs::rename(top_ / "root/folder", top_ / "root/old");
  fs::create_directory(top_ / "root/folder");
  Write("root/folder/model.safetensors", "other");
  EXPECT_EQ(Read((*file)->path()), "inside");
  EXPECT_EQ(Read((*folder)->path() + "/model.safetensors"), "weights");
  EXPECT_EQ(CodeOf("a.gguf"), StatusCode::kPermissionDenied);
}

TEST_F(ModelRootTest, R22_AModelKeepsToItsShareOfDescriptors) {
  const auto pin = [this](int max_files) {
    return (*ModelRoot::Open(top_ / "root", max_files))->Pin("folder").status();
  };
  EXPECT_EQ(pin(2), absl::OkStatus());
  const absl::Status refused = pin(1);
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()),
              ::testing::HasSubstr("raise its limit on open files"));
}

TEST(DescriptorsTest, R22_EveryKindHasAShare) {
  for (const int limit : {64, 300, 1024, 16384, 1 << 20}) {
    const DescriptorShares shares = ShareDescriptors(limit);
    EXPECT_GE(shares.results, 2) << limit;
    EXPECT_GE(shares.models, 4) << limit;
    EXPECT_GE(shares.own, 8) << limit;
    EXPECT_GE(shares.connections_end, limit / 2) << limit;
    EXPECT_EQ(
        shares.results + shares.models + shares.own + shares.connections_end,
        limit);
  }
}

TEST(DescriptorsTest, R22_TheLimitIsRaisedAsFarAsItMay) {
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit less = before;
  less.rlim_cur = std::min<rlim_t>(200, before.rlim_max);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &less), 0);
  const rlim_t most =
      std::min<rlim_t>(before.rlim_max, std::numeric_limits<int>::max());
  EXPECT_EQ(static_cast<rlim_t>(RaiseDescriptorLimit()), most);
  rlimit after = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &after), 0);
  EXPECT_EQ(after.rlim_cur, before.rlim_max);
  setrlimit(RLIMIT_NOFILE, &before);
}

TEST_F(ModelRootTest, TheRootMustBeAFolder) {
  EXPECT_EQ(ModelRoot::Open(top_ / "none").status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(ModelRoot::Open(top_ / "outside.gguf").status().code(),
            StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace qk
