// Tests kept results on disk: whole results are found again, others are never
// served.
#include "server/results/result_store.h"

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/temp_folder.h"

namespace qk {
namespace {

namespace fs = std::filesystem;
using ::qkscope::v1::SpoolHeader;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class ResultStoreTest : public ::testing::Test {
 protected:
  void SetUp() override { options_.directory = root_ / "spool"; }
  void TearDown() override { store_.reset(); }

  void Open() {
    store_.reset();
    damaged_.clear();
    auto store = ResultStore::Open(options_, &damaged_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  static std::string Id(int i) { return absl::StrCat(1000000000000000 + i); }

  std::shared_ptr<KeptResult> Create(int i, const std::string& user = "ada",
                                     int64_t bytes = 1000) {
    SpoolHeader header;
    header.set_request_id(Id(i));
    header.set_user(user);
    header.set_created_unix_ms(1 + i);
    auto result = store_->Create(header, bytes);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : nullptr;
  }

  static std::vector<std::string> Events(KeptResult* result) {
    std::vector<std::string> out;
    for (;;) {
      auto next = result->Get(static_cast<int64_t>(out.size()), [] {});
      EXPECT_TRUE(next.ok()) << next.status();
      if (!next.ok() || next->kind != KeptResult::Next::kEvent) return out;
      out.emplace_back(next->event.view());
    }
  }

  fs::path File(int i, const char* suffix = kSpoolResult) const {
    return fs::path(options_.directory) / (Id(i) + suffix);
  }

  const testing::TempFolder folder_;
  const fs::path root_ = folder_.path();
  ResultStore::Options options_;
  std::vector<std::string> damaged_;
  std::unique_ptr<ResultStore> store_;
};

TEST_F(ResultStoreTest, AWholeResultOutlivesTheProcess) {
  Open();
  auto result = Create(1);
  ASSERT_TRUE(result->Append("one").ok());
  ASSERT_TRUE(result->Append("").ok());
  ASSERT_TRUE(result->Append(std::string(300000, 'x')).ok());
  EXPECT_TRUE(fs::exists(File(1, kSpoolPart)));
  result->Finish(absl::CancelledError("enough"));
  EXPECT_FALSE(fs::exists(File(1, kSpoolPart)));
  result.reset();
  Open();
  EXPECT_THAT(damaged_, IsEmpty());
  auto found = store_->Find(Id(1), "ada");
  ASSERT_TRUE(found.ok());
  EXPECT_THAT(Events(found->get()),
              ElementsAre("one", "", std::string(300000, 'x')));
  EXPECT_EQ((*found)->state().status, absl::CancelledError("enough"));
  struct stat info;
  ASSERT_EQ(stat(File(1).c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  ASSERT_EQ(stat(options_.directory.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST_F(ResultStoreTest, AHalfFileIsNeverServed) {
  Open();
  auto result = Create(1);
  ASSERT_TRUE(result->Append("one").ok());
  // A killed process leaves such a file.
  const fs::path copy = root_ / "copy";
  fs::copy(options_.directory, copy);
  result->Finish(absl::OkStatus());
  result.reset();
  options_.directory = copy;
  Open();
  EXPECT_TRUE(absl::IsNotFound(store_->Find(Id(1), "ada").status()));
  EXPECT_FALSE(fs::exists(File(1, kSpoolPart)));
}

// A result is cut off after every byte, and every byte is changed: the store
// drops it, or reading it gives an error; it never gives other events.
TEST_F(ResultStoreTest, DamagedFilesGiveErrorsOnly) {
  Open();
  auto result = Create(1);
  ASSERT_TRUE(result->Append("first event").ok());
  ASSERT_TRUE(result->Append("second").ok());
  result->Finish(absl::OkStatus());
  result.reset();
  std::ifstream in(File(1), std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(in)),
                          std::istreambuf_iterator<char>());
  ASSERT_GT(whole.size(), 60u);
  const auto check = [&](const std::string& bytes, size_t at) {
    store_.reset();
    std::ofstream(File(1), std::ios::binary) << bytes;
    Open();
    const auto found = store_->Find(Id(1), "ada");
    if (!found.ok()) {
      EXPECT_FALSE(damaged_.empty() && fs::exists(File(1))) << at;
      return;
    }
    const std::vector<std::string> good = {"first event", "second"};
    for (size_t i = 0; i < good.size(); ++i) {
      const auto next = (*found)->Get(static_cast<int64_t>(i), [] {});
      if (next.ok()) {
        EXPECT_EQ(next->event.view(), good[i]) << at;
      } else {
        EXPECT_TRUE(absl::IsDataLoss(next.status())) << next.status();
      }
    }
  };
  for (size_t size = 0; size < whole.size(); ++size) {
    check(whole.substr(0, size), size);
    EXPECT_THAT(damaged_, SizeIs(1)) << size;
  }
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string bytes = whole;
    bytes[i] = static_cast<char>(bytes[i] ^ 0x15);
    check(bytes, i);
  }
  check(whole + "x", whole.size());
  EXPECT_THAT(damaged_, ElementsAre(HasSubstr("after the end")));
}

TEST_F(ResultStoreTest, OnlyItsOwnerFindsIt) {
  Open();
  Create(1, "ada");
  EXPECT_TRUE(store_->Find(Id(1), "ada").ok());
  const absl::Status none = absl::NotFoundError("request_id: no such result");
  EXPECT_EQ(store_->Find(Id(1), "bob").status(), none);
  EXPECT_EQ(store_->Find(Id(2), "ada").status(), none);
  EXPECT_EQ(store_->Find("../../etc/passwd", "ada").status(), none);
  EXPECT_THAT(store_->List("bob"), IsEmpty());
  EXPECT_THAT(store_->List(std::nullopt), SizeIs(1));
}

TEST_F(ResultStoreTest, ItGoesWhenItsTimeIsUp) {
  // The result is found until it expires: the TTL grows to fit the lookup.
  std::shared_ptr<KeptResult> going_on;
  for (options_.ttl = absl::Milliseconds(200);; options_.ttl *= 2) {
    Open();
    going_on = Create(1);
    const absl::Time start = absl::Now();
    Create(2)->Finish(absl::OkStatus());
    if (store_->Find(Id(2), "ada").ok()) break;
    ASSERT_GE(absl::Now() - start, options_.ttl);
    going_on->Finish(absl::OkStatus());
    going_on.reset();
    store_->Drop(Id(1));
    store_.reset();
  }
  while (fs::exists(File(2))) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_FALSE(store_->Find(Id(2), "ada").ok());
  EXPECT_TRUE(store_->Find(Id(1), "ada").ok());
  going_on->Finish(absl::OkStatus());
  going_on.reset();
  store_.reset();
  absl::SleepFor(options_.ttl + absl::Milliseconds(50));
  Open();  // a restart does not bring it back
  EXPECT_FALSE(store_->Find(Id(1), "ada").ok());
}

TEST_F(ResultStoreTest, TheSpoolIsBounded) {
  options_.max_bytes = 10'000;
  Open();
  auto first = Create(1, "ada", 6'000);
  SpoolHeader header;
  header.set_request_id(Id(2));
  EXPECT_TRUE(
      absl::IsResourceExhausted(store_->Create(header, 6'000).status()));
  // A finished result counts with its actual size.
  ASSERT_TRUE(first->Append(std::string(1'000, 'x')).ok());
  first->Finish(absl::OkStatus());
  EXPECT_LT(store_->bytes(), 1'200);
  EXPECT_TRUE(store_->Create(header, 6'000).ok());
  store_->Drop(Id(1));
  EXPECT_FALSE(fs::exists(File(1)));
  EXPECT_EQ(store_->bytes(), 6'000);
}

TEST_F(ResultStoreTest, OneServerAtATime) {
  Open();
  const auto second = ResultStore::Open(options_, &damaged_);
  EXPECT_EQ(second.status(), absl::FailedPreconditionError(
                                 "spool.directory: in use by another server"));
}

TEST_F(ResultStoreTest, ReadersAreWokenAsEventsCome) {
  Open();
  auto result = Create(1);
  std::atomic<int> woken = 0;
  std::vector<std::thread> readers;
  std::atomic<int64_t> read = 0;
  for (int i = 0; i < 4; ++i) {
    readers.emplace_back([&] {
      for (int64_t seq = 0;;) {
        std::mutex mutex;
        std::condition_variable changed;
        bool news = false;
        std::unique_lock<std::mutex> lock(mutex);
        const auto next = result->Get(seq, [&] {
          std::lock_guard<std::mutex> guard(mutex);
          news = true;
          ++woken;
          changed.notify_all();
        });
        ASSERT_TRUE(next.ok());
        if (next->kind == KeptResult::Next::kEnd) return;
        if (next->kind == KeptResult::Next::kEvent) {
          EXPECT_EQ(next->event.view(), absl::StrCat("event ", seq++));
          ++read;
        } else {
          changed.wait(lock, [&] { return news; });
        }
      }
    });
  }
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(result->Append(absl::StrCat("event ", i)).ok());
    if (i % 50 == 0) absl::SleepFor(absl::Milliseconds(2));
  }
  result->Finish(absl::OkStatus());
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(read, 4 * 200);
  EXPECT_EQ(result->Get(201, [] {}).status(),
            absl::OutOfRangeError("from_seq: must be in [0, 200], got 201"));
}

}  // namespace
}  // namespace qk
