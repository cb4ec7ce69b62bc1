#include "client/cpp/server_list.h"

#include <sys/stat.h>

#include <filesystem>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/temp_folder.h"

namespace qk::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Problem(const std::string& text) {
  const auto servers = ParseServerList(text, "s.txt");
  if (servers.ok()) return "";
  EXPECT_EQ(servers.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(servers.status().message());
}

TEST(ServerListPath, IsWhatFollowsTheScheme) {
  EXPECT_EQ(ServerListPath("file:///run/servers"), "/run/servers");
  EXPECT_EQ(ServerListPath("127.0.0.1:7461"), std::nullopt);
  EXPECT_EQ(ServerListPath("dns:///file"), std::nullopt);
}

TEST(ServerList, HasAServerPerLine) {
  const auto servers = ParseServerList(
      "# three servers\n\n"
      "gpu1.example:7461\r\n"
      "  127.0.0.1:7462\ta  # the old one\n"
      "[2001:db8::7]:1 b-2\n"
      "gpu1.example:7461",
      "s.txt");
  ASSERT_TRUE(servers.ok()) << servers.status();
  EXPECT_THAT(*servers, ElementsAre(ListedServer{"gpu1.example:7461", ""},
                                    ListedServer{"127.0.0.1:7462", "a"},
                                    ListedServer{"[2001:db8::7]:1", "b-2"}));
  EXPECT_THAT(*ParseServerList("", "s.txt"), IsEmpty());
  EXPECT_THAT(*ParseServerList("# none\n", "s.txt"), IsEmpty());
}

TEST(ServerList, NamesABadLine) {
  EXPECT_EQ(Problem("a:1\nhost\n"),
            "s.txt:2: must be HOST:PORT and perhaps a replica's name, got "
            "'host'");
  for (const char* line :
       {"a:", ":1", "a:0", "a:65536", "a:+1", "a:1x", "a:1 A", "a:1 b c",
        "unix:/run/x:1", "dns:///a:1", "::1:80", "[]:80", "a b:1", "a,b:1",
        "xds:///a:1", "\x1b[2J:1"}) {
    EXPECT_THAT(Problem(line), HasSubstr("s.txt:1: must be HOST:PORT")) << line;
  }
  // What is echoed is short, and does nothing to a terminal.
  EXPECT_EQ(Problem("\x1b[2J").find('\x1b'), std::string::npos);
  EXPECT_LT(Problem(std::string(100'000, 'x')).size(), 200u);
}

TEST(ServerList, AFolderIsAListToo) {
  const testing::TempFolder folder;
  EXPECT_THAT(*ReadServerList(folder.path()), IsEmpty());
  folder.Write("job-2", "b:1 two\n");
  folder.Write("job-1", "a:1 one\n");
  folder.Write("job-3", "a:1 one\n");
  folder.Write(".job-4.part", "half a l");
  const auto servers = ReadServerList(folder.path());
  ASSERT_TRUE(servers.ok()) << servers.status();
  EXPECT_THAT(*servers, ElementsAre(ListedServer{"a:1", "one"},
                                    ListedServer{"b:1", "two"}));
  folder.Write("job-5", "nonsense");
  EXPECT_THAT(ReadServerList(folder.path()).status().message(),
              HasSubstr("/job-5:1: must be HOST:PORT"));
}

TEST(ServerList, WhatCannotBeReadIsAnError) {
  const testing::TempFolder folder;
  const auto missing = ReadServerList(folder.path() + "/none").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(missing.message(), HasSubstr("/none: cannot be read: No such"));
  const std::string fifo = folder.path() + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(ReadServerList(fifo).status().code(),
            absl::StatusCode::kInvalidArgument);
  const std::string large =
      folder.Write("large", std::string((1 << 20) + 1, '\n'));
  EXPECT_EQ(ReadServerList(large).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace qk::client
