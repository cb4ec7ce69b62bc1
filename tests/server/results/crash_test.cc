// Tests kill -9 at every point of a kept result's life: afterwards the result
// is whole or absent, and the next server serves.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

namespace fs = std::filesystem;
using grpc::StatusCode;
using testing::Analysis;
using ::testing::AnyOf;
using testing::Parse;

constexpr std::chrono::seconds kPatience{300};
constexpr int kLongTtlMs = 3'600'000;
// The request runs long enough to be cancelled.
constexpr char kSlow[] = " generate {max_new_tokens: 240}";

// A crash_server process that ends with the object.
class Process {
 public:
  Process(const std::string& spool, int ttl_ms, const std::string& point,
          int hit) {
    std::vector<std::string> words = {
        fs::read_symlink("/proc/self/exe").parent_path() / "crash_server",
        std::string(QK_SOURCE_DIR) + "/tests/goldens", spool,
        std::to_string(ttl_ms)};
    if (!point.empty()) {
      words.push_back(point);
      words.push_back(std::to_string(hit));
    }
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    int out[2];
    EXPECT_EQ(pipe2(out, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    EXPECT_EQ(
        posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ),
        0);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    char c = 0;
    while (read(out[0], &c, 1) == 1 && c != '\n') address_ += c;
    close(out[0]);
  }
  ~Process() {
    if (!ended_) kill(pid_, SIGKILL);
    AwaitEnd();
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // Returns an empty string if the server did not start.
  const std::string& address() const { return address_; }

  // Returns whether the process killed itself with SIGKILL.
  bool Died() {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (!ended_ && std::chrono::steady_clock::now() < end) {
      ended_ = waitpid(pid_, &status_, WNOHANG) == pid_;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return ended_ && WIFSIGNALED(status_) && WTERMSIG(status_) == SIGKILL;
  }

 private:
  void AwaitEnd() {
    if (!ended_) waitpid(pid_, &status_, 0);
    ended_ = true;
  }

  pid_t pid_ = -1;
  bool ended_ = false;
  int status_ = 0;
  std::string address_;
};

class Client {
 public:
  explicit Client(const std::string& address)
      : stub_(pb::Analysis::NewStub(grpc::CreateChannel(
            address, grpc::InsecureChannelCredentials()))) {}

  // `cancel`: cancels the call after the first event.
  Analysis Analyze(const std::string& more, bool cancel = false) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kPatience);
    const auto reader = stub_->Analyze(
        &context, Parse<pb::AnalyzeRequest>("model: 'tiny' " +
                                            testing::Tokens(9) + more));
    return Read(reader.get(), cancel ? &context : nullptr);
  }
  Analysis GetResult(const std::string& id) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kPatience);
    pb::GetResultRequest request;
    request.set_request_id(id);
    return Read(stub_->GetResult(&context, request).get(), nullptr);
  }

 private:
  static Analysis Read(grpc::ClientReader<pb::AnalyzeEvent>* reader,
                       grpc::ClientContext* cancel) {
    Analysis out;
    pb::AnalyzeEvent event;
    while (reader->Read(&event)) {
      out.events.push_back(event);
      if (cancel != nullptr) cancel->TryCancel();
    }
    out.status = reader->Finish();
    return out;
  }

  std::unique_ptr<pb::Analysis::Stub> stub_;
};

// Returns the events after Accepted: their number, order, payloads, and all
// fields that do not depend on times or on how the request was sent.
std::vector<std::string> Content(const Analysis& analysis) {
  std::vector<std::string> out;
  for (pb::AnalyzeEvent event : analysis.events) {
    if (event.has_accepted()) continue;
    if (event.has_started()) event.clear_started();
    if (event.has_finished()) {
      event.mutable_finished()->clear_times();
      event.mutable_finished()->mutable_manifest()->clear_expanded();
      // The order of a map differs between processes.
      event.mutable_finished()->mutable_manifest()->clear_library_versions();
    }
    out.push_back(event.SerializeAsString());
  }
  return out;
}

// The process dies the `hit`-th time it reaches the point.
struct Crash {
  std::string point;
  int hit;
};

class CrashTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Process process(root_ / "reference", kLongTtlMs, "", 0);
    ASSERT_NE(process.address(), "");
    Client client(process.address());
    const Analysis analysis = client.Analyze("");
    ASSERT_TRUE(analysis.status.ok()) << analysis.status.error_message();
    reference_ = Content(analysis);
    ASSERT_GT(reference_.size(), 4u);
    const Analysis slow = client.Analyze(kSlow);
    ASSERT_TRUE(slow.status.ok()) << slow.status.error_message();
    slow_reference_ = Content(slow);
  }

  std::string Spool() const { return root_ / "spool"; }

  // Returns ids by the extensions of their files.
  std::multimap<std::string, std::string> Files() const {
    std::multimap<std::string, std::string> out;
    for (const auto& entry : fs::directory_iterator(Spool())) {
      const fs::path name = entry.path().filename();
      out.emplace(name.extension(), name.stem());
    }
    return out;
  }

  // Lets a server die; returns the ids of the requests it had accepted by then.
  std::vector<std::string> Die(const Crash& crash) {
    const bool erase = crash.point == "spool.erase.before";
    Process process(Spool(), erase ? 100 : kLongTtlMs, crash.point, crash.hit);
    EXPECT_NE(process.address(), "");
    Client client(process.address());
    std::vector<std::string> ids;
    const bool cancel = crash.point == "cancel";
    for (const Analysis& analysis :
         {client.Analyze(" detach: true"),
          client.Analyze(
              std::string(" resumable: true") + (cancel ? kSlow : ""),
              cancel)}) {
      for (const pb::AnalyzeEvent& event : analysis.events) {
        if (event.has_accepted()) {
          ids.push_back(event.accepted().request_id());
          break;
        }
      }
    }
    EXPECT_TRUE(process.Died());
    return ids;
  }

  // Starts a new server; returns how many of the results it still had.
  int ExpectWholeOrGone(const std::vector<std::string>& ids) {
    Process process(Spool(), kLongTtlMs, "", 0);
    EXPECT_NE(process.address(), "") << "the lock is stale?";
    Client client(process.address());
    int whole = 0;
    for (const std::string& id : ids) {
      const Analysis result = client.GetResult(id);
      if (result.status.error_code() == StatusCode::NOT_FOUND) {
        EXPECT_TRUE(result.events.empty()) << id;
        continue;
      }
      EXPECT_TRUE(result.status.ok()) << result.status.error_message();
      EXPECT_THAT(Content(result), AnyOf(reference_, slow_reference_)) << id;
      ++whole;
    }
    EXPECT_EQ(Files().count(".part"), 0u);
    const Analysis next = client.Analyze(" resumable: true");
    EXPECT_TRUE(next.status.ok()) << next.status.error_message();
    EXPECT_EQ(Content(next), reference_);
    return whole;
  }

  const testing::TempFolder folder_;
  const fs::path root_ = folder_.path();
  std::vector<std::string> reference_, slow_reference_;
};

TEST_F(CrashTest, R18_KilledAtAnyPointResultsAreWholeOrGone) {
  const int events = static_cast<int>(reference_.size());
  int parts = 0, whole = 0;
  for (const Crash& crash : std::vector<Crash>{
           {"accept.before", 1},
           {"accept.before", 2},
           {"accept.after", 1},
           {"enqueue", 1},
           {"enqueue", 2},
           {"write", 1},
           {"write", 4},
           {"write_done", 1},
           {"write_done", 4},
           {"finish", 1},
           {"finish", 2},
           {"cancel", 1},
           {"spool.create.before", 1},
           {"spool.create.after", 1},
           {"spool.create.before", 2},
           {"spool.create.after", 2},
           {"spool.record.after", 1},           // the header
           {"spool.record.after", 2},           // the first event
           {"spool.record.after", events},      // the one before the last
           {"spool.record.after", events + 1},  // the last
           {"spool.sync.before", 1},
           {"spool.sync.after", 1},
           {"spool.rename.before", 1},
           {"spool.rename.after", 1},
           {"spool.sync.before", 2},
           {"spool.rename.after", 2},
           {"spool.erase.before", 1},
       }) {
    SCOPED_TRACE(crash.point + " " + std::to_string(crash.hit));
    fs::remove_all(Spool());
    std::vector<std::string> ids = Die(crash);
    const auto files = Files();
    parts += static_cast<int>(files.count(".part"));
    for (const auto& [suffix, id] : files) {
      if (suffix == ".part" || suffix == ".result") ids.push_back(id);
    }
    const bool has_whole = files.count(".result") > 0;
    const int found = ExpectWholeOrGone(ids);
    EXPECT_EQ(found > 0, has_whole);
    if (crash.point == "spool.rename.after") {
      EXPECT_TRUE(has_whole);
    }
    whole += found;
    if (HasFailure()) break;
  }
  // Both kinds have occurred.
  EXPECT_GT(parts, 5);
  EXPECT_GT(whole, 5);
}

}  // namespace
}  // namespace qk
