// Tests who is let in, without gRPC: users, tokens, files, traceparent.
#include "server/access/identity.h"

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "engine/base/sha256.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/access/users_config.h"
#include "server/common/file_watch.h"
#include "server/common/traceparent.h"

namespace qk {
namespace {

using ::testing::HasSubstr;

constexpr char kGood[] = "qks_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

std::string Sha(const std::string& text) {
  Sha256 sha256;
  sha256.Update(text.data(), text.size());
  return sha256.FinishHex();
}

UserEntry Entry(const std::string& alias, const std::string& token,
                const std::string& subject) {
  UserEntry entry;
  entry.user.alias = alias;
  if (!token.empty()) entry.token_sha256 = Sha(token);
  entry.subject = subject;
  entry.where = alias;
  return entry;
}

std::unique_ptr<Identity> Known() {
  auto identity = Identity::Create([] {
    return std::vector<UserEntry>{Entry("ada", kGood, ""),
                                  Entry("bob", "other", "bob's machine")};
  });
  EXPECT_TRUE(identity.ok());
  return *std::move(identity);
}

// Returns the user's alias, or the error.
std::string Who(const Identity& identity,
                std::vector<absl::string_view> headers,
                std::optional<std::string> subject = std::nullopt) {
  const auto user = identity.Authenticate({std::move(headers), subject});
  if (user.ok()) return (*user)->alias;
  EXPECT_TRUE(absl::IsUnauthenticated(user.status()));
  return std::string(user.status().message());
}

TEST(IdentityTest, WithoutUsersEverybodyIsAnonymous) {
  const auto identity = Identity::Anonymous();
  EXPECT_FALSE(identity->requires_credentials());
  for (const auto& header : {"", "Bearer x", "nonsense"}) {
    const auto user = identity->Authenticate({{header}, "some subject"});
    ASSERT_TRUE(user.ok());
    EXPECT_EQ((*user)->alias, "anonymous");
    EXPECT_EQ((*user)->role, UserRole::kUser);
  }
}

TEST(IdentityTest, Tokens) {
  const auto identity = Known();
  const std::string good = absl::StrCat("Bearer ", kGood);
  constexpr char kNo[] = "missing or invalid token";
  EXPECT_EQ(Who(*identity, {good}), "ada");
  EXPECT_EQ(Who(*identity, {"Bearer other"}), "bob");
  for (const char* scheme : {"bearer ", "BEARER ", "bEaReR "}) {
    EXPECT_EQ(Who(*identity, {absl::StrCat(scheme, kGood)}), "ada") << scheme;
  }
  EXPECT_EQ(Who(*identity, {}), kNo);
  EXPECT_EQ(Who(*identity, {""}), kNo);
  EXPECT_EQ(Who(*identity, {good, good}), kNo);
  EXPECT_EQ(Who(*identity, {good, "Bearer other"}), kNo);
  // The stored digest does not work as a token.
  EXPECT_EQ(Who(*identity, {absl::StrCat("Bearer ", Sha(kGood))}), kNo);
  const std::string long_token(8192, 'a');
  for (const std::string& bad :
       {std::string("Bearer"), std::string("Bearer "), std::string(kGood),
        absl::StrCat("Basic ", kGood), absl::StrCat("Bearer\t", kGood),
        absl::StrCat("Bearer  ", kGood), absl::StrCat(good, " "),
        absl::StrCat(" ", good), absl::StrCat(good, "x"),
        good.substr(0, good.size() - 1), absl::StrCat(good, "\xc3\xa9"),
        absl::StrCat(good, std::string(1, '\0')), absl::StrCat(good, "\n"),
        absl::StrCat("Bearer ", long_token), absl::StrCat(good, ",", good),
        std::string("Bearer wrong")}) {
    EXPECT_EQ(Who(*identity, {bad}), kNo) << bad;
  }
}

TEST(IdentityTest, Subjects) {
  const auto identity = Known();
  constexpr char kNo[] = "missing or invalid token";
  EXPECT_EQ(Who(*identity, {}, "bob's machine"), "bob");
  EXPECT_EQ(Who(*identity, {}, "bob's machin"), kNo);
  EXPECT_EQ(Who(*identity, {}, ""), kNo);  // ada has no subject
  // A token takes precedence over the subject, and must be right.
  const std::string good = absl::StrCat("Bearer ", kGood);
  EXPECT_EQ(Who(*identity, {good}, "bob's machine"), "ada");
  EXPECT_EQ(Who(*identity, {"Bearer x"}, "bob's machine"), kNo);
}

TEST(IdentityTest, ReloadTakesNewUsersAndKeepsOldOnesOnFailure) {
  absl::StatusOr<std::vector<UserEntry>> next =
      std::vector<UserEntry>{Entry("ada", "a", "")};
  auto identity = Identity::Create([&] { return next; });
  ASSERT_TRUE(identity.ok());
  const auto before = (*identity)->Authenticate({{"Bearer a"}, std::nullopt});
  next = std::vector<UserEntry>{Entry("bob", "b", "")};
  EXPECT_TRUE((*identity)->Reload().ok());
  EXPECT_EQ(Who(**identity, {"Bearer b"}), "bob");
  EXPECT_NE(Who(**identity, {"Bearer a"}), "ada");
  EXPECT_EQ((*before)->alias, "ada");
  next = absl::InvalidArgumentError("u.conf:3: broken");
  EXPECT_EQ((*identity)->Reload().message(), "u.conf:3: broken");
  EXPECT_EQ(Who(**identity, {"Bearer b"}), "bob");
  // Nobody can call once the last user is gone.
  next = std::vector<UserEntry>{};
  EXPECT_TRUE((*identity)->Reload().ok());
  EXPECT_EQ(Who(**identity, {"Bearer b"}), "missing or invalid token");
  EXPECT_EQ(Who(**identity, {}), "missing or invalid token");
}

TEST(IdentityTest, ReloadsWhileCallsCome) {
  std::atomic<int> loads = 0;
  auto identity = Identity::Create([&] {
    std::vector<UserEntry> out{Entry("ada", kGood, "")};
    if (++loads % 2 == 0) out.push_back(Entry("bob", "b", ""));
    return out;
  });
  ASSERT_TRUE(identity.ok());
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      const std::string good = absl::StrCat("Bearer ", kGood);
      while (!stop) EXPECT_EQ(Who(**identity, {good}), "ada");
    });
  }
  for (int i = 0; i < 200; ++i) EXPECT_TRUE((*identity)->Reload().ok());
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

TEST(UsersFileTest, ErrorsNameFileAndLine) {
  const auto error = [](const std::string& text) {
    return std::string(ParseUsersFile(text, "u.conf").status().message());
  };
  EXPECT_EQ(error("# nobody yet\n"), "");
  EXPECT_EQ(error("\nusers { aliaz: 'a' }"),
            "u.conf:2: unknown key 'aliaz'; did you mean 'alias'?");
  EXPECT_EQ(error("listen: 'x'"), "u.conf:1: unknown key 'listen'");
  EXPECT_THAT(error("users {\n alias: 'a'\n"), HasSubstr("u.conf:3: "));
  EXPECT_EQ(error("users { alias: 'a' subject: 'x' }\n\nusers {\n"
                  "  alias: 'b' subject: 'y'\n  weight: -1 }\n"),
            "u.conf:3: users[1].weight: must be in (0, 1000], got -1");
}

class FilesTest : public ::testing::Test {
 protected:
  FilesTest() { std::filesystem::create_directories(folder_); }
  ~FilesTest() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = folder_ + "/" + name;
    const std::string temporary = path + ".tmp";
    std::ofstream(temporary) << text;
    std::filesystem::rename(temporary, path);
    return path;
  }

  const std::string folder_ =
      absl::StrCat(::testing::TempDir(), "qk_identity_test.", getpid());
};

TEST_F(FilesTest, UsersOfConfigurationAndFileAreOneTable) {
  const std::string a = Sha("a"), b = Sha("b");
  const std::string config = Write(
      "q.conf", "threads: 1 users { alias: 'a' token_sha256: '" + a + "' }");
  const std::string users =
      Write("u.conf", "users { alias: 'b' token_sha256: '" + b + "' }");
  auto read = ReadUsers(config, {}, users);
  ASSERT_TRUE(read.ok()) << read.status().message();
  ASSERT_EQ(read->size(), 2u);
  EXPECT_EQ((*read)[0].user.alias, "a");
  EXPECT_EQ((*read)[1].user.alias, "b");
  Write("u.conf", "users { alias: 'b' token_sha256: '" + a + "' }");
  read = ReadUsers(config, {}, users);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(Users::Create(*std::move(read)).status().message(),
            users + ":1: users[0].token_sha256: already belongs to 'a' at " +
                config + ": users[0]");
  std::filesystem::remove(users);
  EXPECT_EQ(
      ReadUsers(config, {}, users).status().message(),
      "users_file: " + users + ": cannot be read: No such file or directory");
  EXPECT_EQ(ReadUsers("", {Entry("c", "c", "")}, "")->size(), 1u);
}

TEST_F(FilesTest, WatchNoticesEveryKindOfChange) {
  const std::string path = Write("f", "one");
  FileWatch watch({path});
  // A change before the start counts too.
  Write("f", "two");
  std::atomic<int> changes = 0;
  watch.Start([&] {
    ++changes;
    return absl::OkStatus();
  });
  const auto await = [&](int count) {
    for (int i = 0; i < 6000 && changes < count; ++i) {
      absl::SleepFor(absl::Milliseconds(50));
    }
    EXPECT_EQ(changes, count);
  };
  await(1);
  Write("f", "two");  // a rename to the same content
  await(2);
  std::ofstream(path, std::ios::app) << "more";
  await(3);
  std::filesystem::remove(path);
  await(4);
}

TEST_F(FilesTest, R23_WatchTriesAgainWhatTheMachineCouldNotDo) {
  const std::string path = Write("f", "one");
  FileWatch watch({path});
  Write("f", "two");
  std::atomic<int> calls = 0;
  watch.Start([&]() -> absl::Status {
    switch (++calls) {
      case 1:
        return absl::UnavailableError("EIO");
      case 2:
        return absl::ResourceExhaustedError("EMFILE");
      case 3:
        throw std::runtime_error("planted");
      case 4:
        return absl::InvalidArgumentError("bad");  // needs a better file
      default:
        return absl::OkStatus();
    }
  });
  const auto await = [&](int count) {
    while (calls < count) absl::SleepFor(absl::Milliseconds(50));
  };
  await(4);
  // Two looks at the file, in which a call would be one too many.
  absl::SleepFor(absl::Milliseconds(2500));
  EXPECT_EQ(calls, 4);
  Write("f", "three");
  await(5);
}

TEST(TraceParentTest, OnlyWhatTheRecommendationAllows) {
  const std::string trace = "4bf92f3577b34da6a3ce929d0e0e4736";
  const std::string parent = "00f067aa0ba902b7";
  const std::string good = "00-" + trace + "-" + parent + "-01";
  const auto parsed = ParseTraceParent(good);
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->trace_id, trace);
  EXPECT_EQ(parsed->parent_id, parent);
  EXPECT_TRUE(ParseTraceParent("cc-" + trace + "-" + parent + "-09-more"));
  EXPECT_TRUE(ParseTraceParent("cc-" + trace + "-" + parent + "-09"));
  for (const std::string& bad :
       {std::string(), good + "-", good + "-more", good + " ", " " + good,
        "ff-" + trace + "-" + parent + "-01",
        "0-" + trace + "-" + parent + "-001",
        "00-" + std::string(32, '0') + "-" + parent + "-01",
        "00-" + trace + "-" + std::string(16, '0') + "-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-" + parent + "-01",
        "00-" + trace + "-" + parent + "-0g",
        "00-" + trace + "-" + parent + "-1",
        "00-" + trace + "_" + parent + "-01",
        "cc-" + trace + "-" + parent + "-09more",
        "00-" + trace.substr(1) + "-" + parent + "-011",
        "0x-" + trace + "-" + parent + "-01"}) {
    EXPECT_FALSE(ParseTraceParent(bad).has_value()) << bad;
  }
}

TEST(TraceParentTest, TheLowestFlagSaysWhetherItIsSampled) {
  const std::string ids =
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-";
  for (int flags = 0; flags < 256; ++flags) {
    const std::string header = ids + absl::StrFormat("%02x", flags);
    const auto parsed = ParseTraceParent(header);
    ASSERT_TRUE(parsed.has_value()) << header;
    EXPECT_EQ(parsed->sampled, (flags & 1) != 0) << header;
  }
}

}  // namespace
}  // namespace qk
