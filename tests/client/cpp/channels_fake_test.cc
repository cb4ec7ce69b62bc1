// Tests which of several servers a call goes to: lists in files, and targets of
// several addresses.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/analysis_client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/cpp/fake_service.h"
#include "tests/client/cpp/fake_stream.h"
#include "tests/server/await.h"
#include "tests/temp_folder.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

// An address of which connections are refused, as long as the object lives.
class DeadAddress {
 public:
  DeadAddress() : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    text_ = absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
  }
  ~DeadAddress() { close(fd_); }
  DeadAddress(const DeadAddress&) = delete;
  DeadAddress& operator=(const DeadAddress&) = delete;

  const std::string& text() const { return text_; }

 private:
  const int fd_;
  std::string text_;
};

class ChannelsTest : public ::testing::Test {
 protected:
  ChannelsTest() {
    int i = 0;
    for (FakeService& service : services_) {
      service.replica = std::string(1, "abc"[i++]);
      service.events = FakeStream();
    }
  }

  void Write(const std::string& list) {
    folder_.Write(".new", list);
    std::filesystem::rename(folder_.path() + "/.new", path_);
  }
  static std::unique_ptr<AnalysisClient> Connect(const std::string& server) {
    ClientOptions options;
    options.server = server;
    return AnalysisClient::Create(options);
  }
  std::unique_ptr<AnalysisClient> ConnectToList() {
    return Connect("file://" + path_);
  }
  // The name of the server that answers, or the error.
  static std::string Ask(AnalysisClient* client) {
    const auto info = client->GetServerInfo();
    return info.ok() ? info->replica() : std::string(info.status().message());
  }
  // Asks until exactly these servers have answered the last 20 calls.
  static bool OnlyTheseAnswer(AnalysisClient* client,
                              const std::set<std::string>& names) {
    return testing::Await(
        [&] {
          std::set<std::string> seen;
          for (int i = 0; i < 20; ++i) seen.insert(Ask(client));
          return seen == names;
        },
        absl::Minutes(5));
  }

  FakeService services_[3];
  const testing::TempFolder folder_;
  const std::string path_ = folder_.path() + "/servers.txt";
};

TEST_F(ChannelsTest, CallsTakeTurnsOnTheServersOfAList) {
  Write(absl::StrCat("# two\n", services_[0].address(), "\n\n",
                     services_[1].address(), " b\n"));
  const auto client = ConnectToList();
  EXPECT_TRUE(OnlyTheseAnswer(client.get(), {"a", "b"}));
}

TEST_F(ChannelsTest, R21_ADeadServerOfAListLosesNoCall) {
  const DeadAddress dead;
  Write(absl::StrCat(services_[0].address(), "\n", dead.text(), "\n"));
  for (int i = 0; i < 4; ++i) {
    const auto client = ConnectToList();
    for (int call = 0; call < 20; ++call) EXPECT_EQ(Ask(client.get()), "a");
  }
}

TEST_F(ChannelsTest, R21_ADeadAddressOfATargetLosesNoCall) {
  const DeadAddress dead;
  const std::string target =
      absl::StrCat("ipv4:", dead.text(), ",", services_[0].address(), ",",
                   services_[1].address());
  std::set<std::string> seen;
  const auto client = Connect(target);
  for (int call = 0; call < 20; ++call) seen.insert(Ask(client.get()));
  EXPECT_TRUE(seen.contains("a") || seen.contains("b"));
  seen.erase("a");
  seen.erase("b");
  EXPECT_TRUE(seen.empty()) << *seen.begin();
  EXPECT_TRUE(OnlyTheseAnswer(client.get(), {"a", "b"}));
}

TEST_F(ChannelsTest, AChangedListIsReadAgain) {
  Write(services_[0].address());
  const auto client = ConnectToList();
  EXPECT_EQ(Ask(client.get()), "a");
  Write(absl::StrCat(services_[0].address(), "\n", services_[1].address()));
  EXPECT_TRUE(OnlyTheseAnswer(client.get(), {"a", "b"}));
  Write(services_[2].address());
  EXPECT_TRUE(OnlyTheseAnswer(client.get(), {"c"}));
  // What cannot be read changes nothing, once the list was read. A list is read
  // again after a second.
  Write("nonsense");
  absl::SleepFor(absl::Milliseconds(1100));
  EXPECT_EQ(Ask(client.get()), "c");
  std::filesystem::remove(path_);
  absl::SleepFor(absl::Milliseconds(1100));
  EXPECT_EQ(Ask(client.get()), "c");
  Write("# nobody\n");
  EXPECT_TRUE(OnlyTheseAnswer(client.get(), {path_ + ": lists no server"}));
  Write(services_[1].address());
  EXPECT_TRUE(OnlyTheseAnswer(client.get(), {"b"}));
}

TEST_F(ChannelsTest, AFolderIsAList) {
  const auto client = Connect("file://" + folder_.path());
  EXPECT_EQ(client->GetServerInfo().status().code(),
            absl::StatusCode::kUnavailable);
  folder_.Write("one", services_[0].address());
  folder_.Write("two", services_[1].address());
  EXPECT_TRUE(OnlyTheseAnswer(client.get(), {"a", "b"}));
  std::filesystem::remove(folder_.path() + "/one");
  EXPECT_TRUE(OnlyTheseAnswer(client.get(), {"b"}));
}

TEST_F(ChannelsTest, ABadListIsAnErrorOfTheCall) {
  const auto missing = ConnectToList()->GetServerInfo().status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(missing.message(),
              HasSubstr("servers.txt: cannot be read: No such file"));
  Write("nonsense");
  const auto client = ConnectToList();
  const auto bad = client->GetServerInfo().status();
  EXPECT_EQ(bad.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(bad.message(), HasSubstr("servers.txt:1: must be HOST:PORT"));
  // Streams say the same.
  EXPECT_EQ(client->Analyze({}).status(), bad);
  EXPECT_EQ(client->FetchResult("0123456789abcdef").status(), bad);
  EXPECT_EQ(client->Detach({}).status(), bad);
  EXPECT_EQ(client->Generate({}, nullptr).status(), bad);
  EXPECT_EQ(client->AnalyzeMany({}, {}, {}).status(), bad);
  EXPECT_EQ(client->LoadModel({}, nullptr).status(), bad);
  EXPECT_EQ(client->CheckHealth(""), bad);
}

TEST_F(ChannelsTest, AResultIsAskedForAtTheReplicaThatHasIt) {
  Write(absl::StrCat(services_[0].address(), " a\n", services_[1].address(),
                     " b\n", services_[2].address(), " c\n"));
  const auto client = ConnectToList();
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(client->FetchResult("0123456789abcdef-b").ok());
    ASSERT_TRUE(client->Cancel("0123456789abcdef-b").ok());
  }
  EXPECT_EQ(services_[1].calls().size(), 20u);
  const auto unknown = client->Cancel("0123456789abcdef-z").status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(unknown.message(), path_ + ": lists no replica 'z'");
  // A server that is listed without a name may be that replica.
  Write(absl::StrCat(services_[0].address(), " a\n", services_[2].address()));
  EXPECT_TRUE(
      testing::Await([&] { return client->Cancel("0123456789abcdef-z").ok(); },
                     absl::Minutes(5)));
  EXPECT_EQ(services_[2].calls().size(), 1u);
  EXPECT_EQ(services_[0].calls().size(), 0u);
}

TEST_F(ChannelsTest, AServerThatDoesNotServeGetsNoCalls) {
  const std::string a = services_[0].address(), b = services_[1].address();
  Write(absl::StrCat(a, "\n", b));
  for (const std::string& server :
       {"file://" + path_, absl::StrCat("ipv4:", a, ",", b)}) {
    services_[0].SetServing(true);
    const auto client = Connect(server);
    EXPECT_TRUE(OnlyTheseAnswer(client.get(), {"a", "b"}));
    services_[0].SetServing(false);
    EXPECT_TRUE(OnlyTheseAnswer(client.get(), {"b"}));
    services_[0].SetServing(true);
    EXPECT_TRUE(OnlyTheseAnswer(client.get(), {"a", "b"}));
  }
}

TEST_F(ChannelsTest, NobodyWaitsForeverForAServer) {
  const DeadAddress dead;
  Write(dead.text());
  const auto client = ConnectToList();
  EXPECT_EQ(client->GetServerInfo().status().code(),
            absl::StatusCode::kUnavailable);
  CallOptions options;
  options.timeout = absl::Milliseconds(1);
  const auto code = client->GetServerInfo(options).status().code();
  EXPECT_TRUE(code == absl::StatusCode::kUnavailable ||
              code == absl::StatusCode::kDeadlineExceeded);
  Cancellation cancellation;
  cancellation.Cancel();
  options.timeout = absl::InfiniteDuration();
  options.cancellation = &cancellation;
  EXPECT_EQ(client->GetServerInfo(options).status().code(),
            absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace qk::client
