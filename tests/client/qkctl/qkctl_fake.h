// Runs qkctl's subcommands against a fake, in-process service.
#ifndef QKSCOPE_TESTS_CLIENT_QKCTL_QKCTL_FAKE_H_
#define QKSCOPE_TESTS_CLIENT_QKCTL_QKCTL_FAKE_H_

#include <stdlib.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "client/files/file_io.h"
#include "client/qkctl/command.h"
#include "gtest/gtest.h"
#include "tests/client/cpp/fake_service.h"
#include "tests/client/cpp/fake_stream.h"

namespace qk::client {

class QkctlFakeTest : public ::testing::Test {
 protected:
  QkctlFakeTest() {
    std::string pattern = ::testing::TempDir() + "/qkctl_XXXXXX";
    folder_ = mkdtemp(pattern.data());
    service_.events = FakeStream();
  }
  ~QkctlFakeTest() override {
    for (const std::string& file : files_) unlink(file.c_str());
    rmdir(folder_.c_str());
  }

  // Runs a subcommand on the fake service; its output is in out_ and err_.
  int Qkctl(const Command& command, std::vector<std::string> arguments) {
    Context context;
    context.console = Console(/*color=*/false, /*progress=*/false);
    context.client.server = service_.address();
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    const int code = command.run(arguments, &context);
    out_ = ::testing::internal::GetCapturedStdout();
    err_ = ::testing::internal::GetCapturedStderr();
    return code;
  }

  std::string File(const std::string& name, const std::string& content = "") {
    files_.push_back(folder_ + "/" + name);
    if (!content.empty()) {
      EXPECT_TRUE(WriteFileAtomically(files_.back(), {&content}).ok());
    }
    return files_.back();
  }

  FakeService service_;
  std::string folder_, out_, err_;
  std::vector<std::string> files_;
};

}  // namespace qk::client

#endif  // QKSCOPE_TESTS_CLIENT_QKCTL_QKCTL_FAKE_H_
