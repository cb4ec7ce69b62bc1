// Tests kept results on disk: whole results are found again, others are never
// served.
#include "server/results/result_store.h"

#include <sys/resource.h>
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
#include "server/common/retry_after.h"
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
    auto result = store_->Create(Header(i, user), bytes, UserBudget());
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : nullptr;
  }

  static std::vector<std::string> Events(std::shared_ptr<KeptResult> result,
                                         int64_t from_seq = 0) {
    ResultReader reader(std::move(result), from_seq, [] {});
    std::vector<std::string> out;
    for (;;) {
      auto next = reader.Next();
      EXPECT_TRUE(next.ok()) << next.status();
      if (!next.ok() || next->kind != ResultReader::Event::kEvent) return out;
      out.emplace_back(next->event.view());
    }
  }

  SpoolHeader Header(int i, const std::string& user) const {
    SpoolHeader header;
    header.set_request_id(Id(i));
    header.set_user(user);
    header.set_created_unix_ms(
        clock_ == nullptr ? 1 + i : absl::ToUnixMillis(clock_->wall));
    return header;
  }
  absl::Status Refusal(int i, const std::string& user, int64_t bytes) {
    return store_->Create(Header(i, user), bytes, UserBudget()).status();
  }

  // The times of the stores that are opened after SetClock.
  struct Clock {
    std::atomic<int64_t> passed_ms = 0;
    absl::Time wall = absl::FromUnixSeconds(1'700'000'000);
    void Pass(absl::Duration time) {
      passed_ms += absl::ToInt64Milliseconds(time);
      wall += time;
    }
  };
  std::shared_ptr<Clock> SetClock() {
    clock_ = std::make_shared<Clock>();
    options_.wall = [clock = clock_] { return clock->wall; };
    options_.now = [clock = clock_] {
      return absl::UnixEpoch() + absl::Milliseconds(clock->passed_ms.load());
    };
    return clock_;
  }

  static size_t Descriptors() {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator("/proc/self/fd"), {}));
  }

  // While it lives, nothing can be opened.
  class NoDescriptors {
   public:
    NoDescriptors() {
      getrlimit(RLIMIT_NOFILE, &before_);
      rlimit none = before_;
      none.rlim_cur = 0;
      EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    }
    ~NoDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }

   private:
    rlimit before_ = {};
  };

  fs::path File(int i, const char* suffix = kSpoolResult) const {
    return fs::path(options_.directory) / (Id(i) + suffix);
  }

  const testing::TempFolder folder_;
  const fs::path root_ = folder_.path();
  ResultStore::Options options_;
  std::shared_ptr<Clock> clock_;
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
  store_->Finish(result.get(), absl::CancelledError("enough"));
  EXPECT_FALSE(fs::exists(File(1, kSpoolPart)));
  result.reset();
  Open();
  EXPECT_THAT(damaged_, IsEmpty());
  auto found = store_->Find(Id(1), "ada");
  ASSERT_TRUE(found.ok());
  EXPECT_THAT(Events(*found), ElementsAre("one", "", std::string(300000, 'x')));
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
  store_->Finish(result.get(), absl::OkStatus());
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
  store_->Finish(result.get(), absl::OkStatus());
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
    for (size_t from = 0; from < good.size(); ++from) {
      ResultReader reader(*found, static_cast<int64_t>(from), [] {});
      for (size_t i = from; i < good.size(); ++i) {
        const auto next = reader.Next();
        if (next.ok()) {
          EXPECT_EQ(next->event.view(), good[i]) << at;
        } else {
          EXPECT_TRUE(absl::IsDataLoss(next.status())) << next.status();
          break;
        }
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
  EXPECT_THAT(damaged_, ElementsAre(HasSubstr("no end")));
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
  options_.ttl = absl::Milliseconds(200);
  const auto clock = SetClock();
  Open();
  std::shared_ptr<KeptResult> going_on = Create(1);
  store_->Finish(Create(2).get(), absl::OkStatus());
  EXPECT_TRUE(store_->Find(Id(2), "ada").ok());
  clock->Pass(absl::Milliseconds(199));
  EXPECT_TRUE(store_->Find(Id(2), "ada").ok());
  clock->Pass(absl::Milliseconds(1));
  EXPECT_FALSE(store_->Find(Id(2), "ada").ok());
  EXPECT_THAT(store_->List(std::nullopt), SizeIs(1));
  while (fs::exists(File(2))) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_TRUE(store_->Find(Id(1), "ada").ok());
  store_->Finish(going_on.get(), absl::OkStatus());
  going_on.reset();
  store_.reset();
  clock->Pass(options_.ttl);
  Open();  // a restart does not bring it back
  EXPECT_FALSE(store_->Find(Id(1), "ada").ok());
}

TEST_F(ResultStoreTest, AReaderHasItToTheEnd) {
  options_.ttl = absl::Milliseconds(200);
  const auto clock = SetClock();
  Open();
  for (int i : {1, 2}) {
    auto result = Create(i);
    ASSERT_TRUE(result->Append("one").ok());
    store_->Finish(result.get(), absl::OkStatus());
  }
  auto read = *store_->Find(Id(1), "ada");
  clock->Pass(absl::Seconds(1));
  while (fs::exists(File(2))) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_FALSE(store_->Find(Id(1), "ada").ok());
  EXPECT_EQ(store_->Kept().results, 1);
  EXPECT_THAT(Events(read), ElementsAre("one"));
  read.reset();
  while (fs::exists(File(1))) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_EQ(store_->Kept().results, 0);
}

// A wall clock that is a day ahead and goes back, while the server runs and
// while it does not.
TEST_F(ResultStoreTest, R29_TheTimeOfDayChangesNoAge) {
  options_.ttl = absl::Hours(1);
  const auto clock = SetClock();
  Open();
  const auto ages = [&] {
    std::vector<double> out;
    for (const auto& result : store_->List("ada")) {
      const KeptResult::State state = result->state();
      out.push_back(absl::ToDoubleMinutes(store_->Now() - state.created));
      out.push_back(absl::ToDoubleMinutes(store_->Now() - state.finished_at));
    }
    return out;
  };
  auto result = Create(1);
  clock->Pass(absl::Minutes(10));
  for (const absl::Duration jump : {absl::Hours(24), -absl::Hours(48)}) {
    clock->wall += jump;
    store_->Finish(Create(jump > absl::ZeroDuration() ? 2 : 3).get(),
                   absl::OkStatus());
  }
  clock->wall += absl::Hours(24);
  store_->Finish(result.get(), absl::OkStatus());
  result.reset();
  EXPECT_THAT(ages(), ElementsAre(10, 0, 0, 0, 0, 0));
  clock->Pass(absl::Minutes(20));
  EXPECT_THAT(ages(), ElementsAre(30, 20, 20, 20, 20, 20));
  clock->wall -= absl::Hours(24);
  EXPECT_THAT(ages(), ElementsAre(30, 20, 20, 20, 20, 20));
  // After a restart, one that was finished in a day to come begins anew: no age
  // is negative.
  Open();
  EXPECT_THAT(ages(), ElementsAre(20, 20, 0, 0, 0, 0));
  clock->wall += absl::Hours(24);
  EXPECT_THAT(ages(), ElementsAre(20, 20, 0, 0, 0, 0));
  // One that seems to be a day old has expired.
  Open();
  EXPECT_THAT(ages(), ElementsAre(30, 20, 0, 0));
  clock->Pass(absl::Minutes(45));
  EXPECT_THAT(ages(), ElementsAre(45, 45));
}

TEST_F(ResultStoreTest, TheSpoolIsBounded) {
  options_.most.bytes = 10'000;
  Open();
  auto first = Create(1, "ada", 6'000);
  EXPECT_TRUE(absl::IsResourceExhausted(Refusal(2, "bob", 6'000)));
  // A finished result counts with its actual size.
  ASSERT_TRUE(first->Append(std::string(1'000, 'x')).ok());
  store_->Finish(first.get(), absl::OkStatus());
  EXPECT_EQ(store_->Kept().bytes, static_cast<int64_t>(fs::file_size(File(1))));
  EXPECT_LT(store_->Kept().bytes, 1'200);
  EXPECT_NE(Create(2, "bob", 6'000), nullptr);
  store_->Drop(Id(1));
  EXPECT_FALSE(fs::exists(File(1)));
  EXPECT_EQ(store_->Kept().bytes, 6'000);
  EXPECT_EQ(store_->Kept().results, 1);
}

TEST_F(ResultStoreTest, R22_NumbersAndBytesAreLimitedForEachUserAndInAll) {
  options_.most = {4, 100'000};
  options_.most_per_user = {2, 50'000};
  options_.ttl = absl::Seconds(100);
  const auto clock = SetClock();
  Open();
  store_->Finish(Create(1).get(), absl::OkStatus());
  clock->Pass(absl::Seconds(10));
  Create(2);
  const absl::Status mine = Refusal(3, "ada", 10);
  EXPECT_EQ(mine, WithRetryAfter(absl::ResourceExhaustedError(
                                     "spool: you keep 2 results, limit 2; "
                                     "cancel old requests, or retry in 90 s"),
                                 absl::Seconds(90)));
  // A budget says otherwise.
  UserBudget budget;
  budget.max_kept_results = 3;
  EXPECT_TRUE(store_->Create(Header(3, "ada"), 10, budget).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(
      store_->Create(Header(4, "ada"), 10, budget).status()));
  // Another user has place, up to the limit in all.
  Create(5, "bob");
  EXPECT_EQ(Refusal(6, "bob", 10).message(),
            "spool: all users keep 4 results, limit 4; cancel old requests, or "
            "retry in 90 s");
  store_->Drop(Id(2));
  store_->Drop(Id(3));
  EXPECT_EQ(Refusal(6, "bob", 49'500).message(),
            "spool: the result needs 48.3 KiB, and you keep 1000 B, limit 48.8 "
            "KiB; reduce layers/heads/positions; cancel old requests, or retry "
            "in 1 s");
  const absl::Status never = Refusal(6, "bob", 50'001);
  EXPECT_EQ(never,
            absl::ResourceExhaustedError(
                "spool: the result needs 48.8 KiB, limit 48.8 KiB; reduce "
                "layers/heads/positions"));
  budget.max_kept_bytes = 60'000;
  EXPECT_TRUE(store_->Create(Header(6, "bob"), 50'001, budget).ok());
  const auto kept = store_->KeptByUser();
  EXPECT_EQ(kept.at("bob").results, 2);
  EXPECT_EQ(kept.at("bob").bytes, 51'001);
  EXPECT_EQ(kept.at("ada").results, 1);
  EXPECT_EQ(store_->Kept().bytes, 51'001 + kept.at("ada").bytes);
  // What has expired counts no more, at once.
  clock->Pass(absl::Seconds(90));
  Create(7);
  Create(8);
  EXPECT_TRUE(absl::IsResourceExhausted(Refusal(9, "ada", 10)));
}

// 300 results, some of them written and read at the same time.
TEST_F(ResultStoreTest, R22_ResultsHoldNoDescriptors) {
  constexpr int kResults = 300;
  options_.most_open = 4;
  Open();
  const size_t before = Descriptors();
  std::vector<std::shared_ptr<KeptResult>> running;
  for (int i = 0; i < kResults; ++i) {
    running.push_back(Create(i));
    ASSERT_TRUE(running.back()->Append(absl::StrCat("a", i)).ok());
  }
  EXPECT_LE(Descriptors(), before + 4);
  std::vector<std::unique_ptr<ResultReader>> readers;
  for (const auto& result : running) {
    readers.push_back(std::make_unique<ResultReader>(result, 0, [] {}));
    ASSERT_EQ(readers.back()->Next()->event.view(),
              absl::StrCat("a", readers.size() - 1));
    ASSERT_TRUE(result->Append("b").ok());
  }
  EXPECT_LE(Descriptors(), before + 4);
  for (const auto& result : running) {
    store_->Finish(result.get(), absl::OkStatus());
  }
  for (const auto& reader : readers) {
    ASSERT_EQ(reader->Next()->event.view(), "b");
    ASSERT_EQ(reader->Next()->kind, ResultReader::Event::kEnd);
  }
  EXPECT_LE(Descriptors(), before + 4);
  readers.clear();
  running.clear();
  Open();
  EXPECT_EQ(Descriptors(), before);
  EXPECT_EQ(store_->Kept().results, kResults);
}

TEST_F(ResultStoreTest, R22_WithoutDescriptorsNothingIsLostOrMisjudged) {
  Open();
  auto result = Create(1);
  ASSERT_TRUE(result->Append("one").ok());
  store_->Finish(result.get(), absl::OkStatus());
  result.reset();
  store_.reset();
  {
    const NoDescriptors none;
    const auto store = ResultStore::Open(options_, &damaged_);
    EXPECT_TRUE(absl::IsUnavailable(store.status()) ||
                absl::IsResourceExhausted(store.status()))
        << store.status();
  }
  Open();
  EXPECT_THAT(damaged_, IsEmpty());
  auto found = store_->Find(Id(1), "ada");
  ASSERT_TRUE(found.ok());
  {
    const NoDescriptors none;
    ResultReader reader(*found, 0, [] {});
    const auto next = reader.Next();
    EXPECT_TRUE(absl::IsResourceExhausted(next.status())) << next.status();
    EXPECT_TRUE(RetryAfter(next.status()).has_value());
    EXPECT_TRUE(absl::IsResourceExhausted(Refusal(2, "ada", 10)));
  }
  EXPECT_THAT(Events(*found), ElementsAre("one"));
  EXPECT_EQ(store_->Kept().results, 1);
}

TEST_F(ResultStoreTest, AFolderThatIsNoneIsTheConfigurationsFault) {
  std::ofstream(root_ / "file") << "x";
  options_.directory = root_ / "file";
  EXPECT_TRUE(absl::IsFailedPrecondition(
      ResultStore::Open(options_, &damaged_).status()));
  options_.directory = root_ / "none" / "spool";
  EXPECT_TRUE(absl::IsFailedPrecondition(
      ResultStore::Open(options_, &damaged_).status()));
}

TEST_F(ResultStoreTest, EventsAreFoundFromAnyNumberOn) {
  constexpr int kEvents = 1000;
  Open();
  auto result = Create(1);
  std::vector<std::string> events;
  for (int i = 0; i < kEvents; ++i) {
    events.push_back(std::string(static_cast<size_t>(i * i % 5000), 'x') +
                     absl::StrCat(i));
    ASSERT_TRUE(result->Append(events.back()).ok());
  }
  const auto check = [&](const std::shared_ptr<KeptResult>& kept) {
    for (int from : {999, 0, 700, 255, 256, 257, 511, 512, 513, 1, 1000}) {
      EXPECT_EQ(Events(kept, from),
                std::vector<std::string>(events.begin() + from, events.end()))
          << from;
    }
  };
  check(result);
  store_->Finish(result.get(), absl::OkStatus());
  check(result);
  result.reset();
  Open();
  check(*store_->Find(Id(1), "ada"));
  ResultReader past(*store_->Find(Id(1), "ada"), 1001, [] {});
  EXPECT_EQ(past.Next().status(),
            absl::OutOfRangeError("from_seq: must be in [0, 1000], got 1001"));
}

TEST_F(ResultStoreTest, ADeletedResultEndsItsReaders) {
  Open();
  auto result = Create(1);
  ASSERT_TRUE(result->Append("one").ok());
  ASSERT_TRUE(result->Append("two").ok());
  ResultReader reader(result, 0, [] {});
  ASSERT_TRUE(reader.Next().ok());
  store_->Drop(Id(1));
  EXPECT_FALSE(fs::exists(File(1, kSpoolPart)));
  EXPECT_EQ(reader.Next()->kind, ResultReader::Event::kWait);
  // The request ends some time later.
  EXPECT_TRUE(result->Append("three").ok());
  store_->Finish(result.get(), absl::CancelledError("cancelled by ada"));
  const auto end = reader.Next();
  ASSERT_TRUE(end.ok());
  EXPECT_EQ(end->status, absl::CancelledError("cancelled by ada"));
  EXPECT_EQ(store_->Kept().results, 0);
  auto done = Create(2);
  ASSERT_TRUE(done->Append("one").ok());
  store_->Finish(done.get(), absl::OkStatus());
  ResultReader late(done, 0, [] {});
  store_->Drop(Id(2));
  EXPECT_EQ(late.Next().status(),
            absl::CancelledError("the result was deleted"));
}

// The folder goes, and comes back.
TEST_F(ResultStoreTest, R34_AFolderThatHasGoneIsReported) {
  options_.look_every = absl::Hours(1);  // not during the test
  std::atomic<int> errors = 0;
  options_.on_error = [&](const absl::Status&) { ++errors; };
  Open();
  auto result = Create(1);
  ASSERT_TRUE(result->Append("one").ok());
  store_->Finish(result.get(), absl::OkStatus());
  result.reset();
  Open();
  fs::rename(options_.directory, root_ / "gone");
  EXPECT_EQ(errors, 0);
  ResultReader reader(*store_->Find(Id(1), "ada"), 0, [] {});
  EXPECT_EQ(reader.Next().status(),
            absl::NotFoundError("request_id: no such result"));
  EXPECT_EQ(errors, 1);
  EXPECT_TRUE(absl::IsUnavailable(Refusal(2, "ada", 10)));
  EXPECT_EQ(errors, 2);
  EXPECT_EQ(store_->Kept().results, 1);
}

TEST_F(ResultStoreTest, R34_ANewFolderIsLockedAndUsed) {
  options_.ttl = absl::Milliseconds(200);  // the folder is looked at as often
  const auto clock = SetClock();
  std::atomic<int> errors = 0;
  options_.on_error = [&](const absl::Status&) { ++errors; };
  Open();
  store_->Finish(Create(1).get(), absl::OkStatus());
  fs::rename(options_.directory, root_ / "gone");
  while (store_->Kept().results > 0) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_EQ(errors, 1);
  auto result = Create(2);
  ASSERT_TRUE(result->Append("one").ok());
  store_->Finish(result.get(), absl::OkStatus());
  EXPECT_THAT(Events(result), ElementsAre("one"));
  const auto second = ResultStore::Open(options_, &damaged_);
  EXPECT_EQ(second.status(), absl::FailedPreconditionError(
                                 "spool.directory: in use by another server"));
  EXPECT_EQ(errors, 1);
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
      std::mutex mutex;
      std::condition_variable changed;
      bool news = false;
      ResultReader reader(result, 0, [&] {
        std::lock_guard<std::mutex> guard(mutex);
        news = true;
        ++woken;
        changed.notify_all();
      });
      for (int64_t seq = 0;;) {
        {
          std::lock_guard<std::mutex> guard(mutex);
          news = false;
        }
        const auto next = reader.Next();
        ASSERT_TRUE(next.ok());
        if (next->kind == ResultReader::Event::kEnd) return;
        if (next->kind == ResultReader::Event::kEvent) {
          EXPECT_EQ(next->event.view(), absl::StrCat("event ", seq++));
          ++read;
        } else {
          std::unique_lock<std::mutex> lock(mutex);
          changed.wait(lock, [&] { return news; });
        }
      }
    });
  }
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(result->Append(absl::StrCat("event ", i)).ok());
    if (i % 50 == 0) absl::SleepFor(absl::Milliseconds(2));
  }
  store_->Finish(result.get(), absl::OkStatus());
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(read, 4 * 200);
  ResultReader past(result, 201, [] {});
  EXPECT_EQ(past.Next().status(),
            absl::OutOfRangeError("from_seq: must be in [0, 200], got 201"));
}

}  // namespace
}  // namespace qk
