// Tests that an exception which leaves a part of a call ends that call with
// INTERNAL, in the log and for its client, and nothing else.
#include <atomic>
#include <cstring>
#include <fstream>
#include <memory>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "server/common/delay_point.h"
#include "server/common/executor.h"
#include "tests/server/await.h"
#include "tests/server/observe/metric_samples.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

using testing::Await;
using ::testing::HasSubstr;
using testing::ServerTest;
using testing::Tokens;

constexpr absl::Duration kPatience = absl::Seconds(250);

// Throws at the first visit to a delay point.
class Thrower {
 public:
  explicit Thrower(const char* point, bool out_of_memory = false) {
    out_of_memory_ = out_of_memory;
    point_ = point;
    delay_hook = &Hook;
  }
  ~Thrower() {
    delay_hook = nullptr;
    point_ = nullptr;
  }
  static bool thrown() { return point_ == nullptr; }

 private:
  static void Hook(const char* point) {
    const char* wanted = point_;
    if (wanted == nullptr || std::strcmp(wanted, point) != 0) return;
    if (!point_.compare_exchange_strong(wanted, nullptr)) return;
    if (out_of_memory_) throw std::bad_alloc();
    throw std::runtime_error("planted");
  }

  static inline std::atomic<const char*> point_ = nullptr;
  static inline std::atomic<bool> out_of_memory_ = false;
};

class ExceptionsTest : public ServerTest {
 protected:
  void Start() {
    ServerOptions options = TinyOptions();
    options.spool.emplace();
    options.spool->directory = folder_.path() + "/spool";
    auto log = Log::Create(LogLevel::kError, folder_.path() + "/log");
    ASSERT_TRUE(log.ok()) << log.status();
    file_log_ = *std::move(log);
    auto server = Server::Create(options, file_log_.get());
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    ASSERT_TRUE(server_->LoadModels().ok());
    channel_ = grpc::CreateChannel(server_->address(),
                                   grpc::InsecureChannelCredentials());
    stub_ = pb::Analysis::NewStub(channel_);
  }
  void TearDown() override { server_.reset(); }

  grpc::Status Call(const std::string& method) {
    const std::string run =
        "model: 'tiny' " + Tokens(3) + " generate {max_new_tokens: 2}";
    grpc::ClientContext context;
    if (method == "Analyze") return Analyze(run).status;
    if (method == "AnalyzeResumable") {
      return Analyze(run + " resumable: true").status;
    }
    if (method == "Generate") {
      const auto reader = stub_->Generate(
          &context,
          testing::Parse<pb::GenerateRequest>(
              "model: 'tiny' generate {max_new_tokens: 2} " + Tokens(3)));
      pb::GenerateEvent event;
      while (reader->Read(&event)) {
      }
      return reader->Finish();
    }
    if (method == "AnalyzeMany") {
      const auto stream = stub_->AnalyzeMany(&context);
      stream->Write(testing::Parse<pb::AnalyzeManyRequest>(
          "spec { request { model: 'tiny' } }"));
      stream->Write(testing::Parse<pb::AnalyzeManyRequest>("prompt { id: 'a' " +
                                                           Tokens(3) + "}"));
      stream->WritesDone();
      pb::AnalyzeManyEvent event;
      while (stream->Read(&event)) {
      }
      return stream->Finish();
    }
    if (method == "Score") {
      pb::ScoreResponse response;
      return stub_->Score(
          &context,
          testing::Parse<pb::ScoreRequest>(
              "model: 'tiny' pairs { context {token_ids {ids: 3 ids: 4}} "
              "continuation {token_ids {ids: 5}} }"),
          &response);
    }
    pb::ServerInfo info;
    return stub_->GetServerInfo(&context, {}, &info);
  }

  void ExpectNothingLeft() {
    EXPECT_TRUE(Await(
        [&] {
          const testing::Samples samples = testing::SamplesOf(*server_);
          return testing::Total(samples, "qkscope_rpc_started_total") ==
                 testing::Total(samples, "qkscope_rpc_handled_total");
        },
        kPatience));
  }

  std::string LogText() {
    file_log_->Flush();
    std::stringstream text;
    text << std::ifstream(folder_.path() + "/log").rdbuf();
    return text.str();
  }

  const testing::TempFolder folder_;
  std::unique_ptr<Log> file_log_;
};

TEST_F(ExceptionsTest, R23_AnExceptionEndsItsCallAlone) {
  Start();
  const std::vector<const char*> all = {"accept.before", "accept.after",
                                        "enqueue", "write", "write_done"};
  const std::vector<std::pair<std::string, std::vector<const char*>>> cases = {
      {"Analyze", all},
      {"AnalyzeResumable", all},
      {"Generate", all},
      {"AnalyzeMany", all},
      {"Score", {"accept.before", "accept.after", "enqueue"}},
      {"GetServerInfo", {"accept.before", "accept.after"}}};
  size_t failures = 0;
  for (const auto& [method, points] : cases) {
    for (const char* point : points) {
      SCOPED_TRACE(method + " at " + point);
      {
        const Thrower thrower(point);
        const grpc::Status status = Call(method);
        EXPECT_TRUE(Thrower::thrown());
        EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL)
            << status.error_message();
        EXPECT_THAT(status.error_message(), HasSubstr("internal error (ref "));
        ++failures;
      }
      const grpc::Status again = Call(method);
      EXPECT_TRUE(again.ok()) << again.error_message();
    }
  }
  ExpectNothingLeft();
  const std::string text = LogText();
  size_t logged = 0;
  for (size_t at = text.find("exception: planted"); at != std::string::npos;
       at = text.find("exception: planted", at + 1)) {
    ++logged;
  }
  EXPECT_EQ(logged, failures) << text;
}

TEST_F(ExceptionsTest, R23_NoMemoryIsResourceExhausted) {
  Start();
  const Thrower thrower("enqueue", /*out_of_memory=*/true);
  EXPECT_EQ(Call("Analyze").error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Call("Analyze").ok());
  ExpectNothingLeft();
}

TEST_F(ExceptionsTest, R23_ACancellationThatThrowsStillEndsTheCall) {
  Start();
  for (int i = 0; i < 2; ++i) {
    const Thrower thrower("cancel");
    grpc::ClientContext context;
    const auto reader = stub_->Analyze(
        &context, testing::Parse<pb::AnalyzeRequest>(
                      "model: 'tiny' " + Tokens(200) +
                      " capture {form: RAW} generate {max_new_tokens: 50}"));
    pb::AnalyzeEvent event;
    EXPECT_TRUE(reader->Read(&event));
    context.TryCancel();
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
    ExpectNothingLeft();
  }
  EXPECT_TRUE(Call("Analyze").ok());
}

TEST(ExecutorTest, R23_TheNextTaskRunsAfterOneThatThrows) {
  std::atomic<int> done = 0;
  std::vector<std::string> failures;
  {
    Executor executor(1, [&](const absl::Status& status) {
      failures.emplace_back(status.message());
    });
    executor.Post([&] { ++done; });
    executor.Post([] { throw std::runtime_error("planted"); });
    executor.Post([&] { ++done; });
  }
  EXPECT_EQ(done, 2);
  EXPECT_THAT(failures, ::testing::ElementsAre("executor: exception: planted"));
}

}  // namespace
}  // namespace qk
