// Tests how a well-formed request is refused: the code, the message, and
// whether the message says when to try again, over the wire.
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "grpcpp/generic/generic_stub.h"
#include "qkscope/v1/admin.grpc.pb.h"
#include "qkscope/v1/error.pb.h"
#include "tests/server/faulty_backend.h"
#include "tests/server/gated_device.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

using grpc::StatusCode;
using testing::Analysis;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using testing::Parse;
using testing::ServerTest;
using testing::Tokens;

constexpr char kShort[] = "model: 'tiny' input {token_ids {ids: [1, 2, 3]}}";

class RefusalsTest : public ServerTest {
 protected:
  void SetUp() override { gate_->Open(); }
  void TearDown() override {
    gate_->Open();
    server_.reset();
  }

  void Start() {
    StartServer(options_, std::make_unique<testing::GatedDevice>(gate_),
                std::make_unique<testing::FaultyBackend>(faults_));
    ASSERT_TRUE(server_->LoadModels().ok());
  }
  void AddUsers() {
    options_.access.users = {
        testing::UserWithToken("ada", UserRole::kUser, "ada"),
        testing::UserWithToken("bob", UserRole::kUser, "bob"),
        testing::UserWithToken("root", UserRole::kOperator, "root")};
  }

  grpc::Status GetResult(const std::string& user, const std::string& id,
                         int64_t from_seq) {
    const auto context = As(user);
    pb::GetResultRequest request;
    request.set_request_id(id);
    request.set_from_seq(from_seq);
    return Read(stub_->GetResult(context.get(), request).get()).status;
  }

  // Sends any bytes to any method.
  grpc::Status Send(const std::string& method, const std::string& user,
                    const std::string& bytes) {
    grpc::GenericStub generic(channel_);
    const auto context = As(user);
    const grpc::Slice slice(bytes);
    grpc::ByteBuffer received;
    grpc::CompletionQueue queue;
    const auto call = generic.PrepareUnaryCall(
        context.get(), "/qkscope.v1.Analysis/" + method,
        grpc::ByteBuffer(&slice, 1), &queue);
    call->StartCall();
    grpc::Status status;
    call->Finish(&received, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    EXPECT_TRUE(queue.Next(&tag, &ok));
    return status;
  }

  static bool SaysWhenToRetry(const grpc::Status& status) {
    pb::RpcStatus details;
    EXPECT_TRUE(details.ParseFromString(status.error_details()));
    for (const auto& detail : details.details()) {
      if (absl::StrContains(detail.type_url(), "RetryInfo")) return true;
    }
    return false;
  }
  static void Expect(const grpc::Status& status, StatusCode code,
                     const std::string& pattern, bool retry) {
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_THAT(status.error_message(), MatchesRegex(pattern));
    EXPECT_EQ(SaysWhenToRetry(status), retry) << status.error_message();
  }

  const testing::TempFolder folder_;
  ServerOptions options_ = TinyOptions();
  const std::shared_ptr<testing::Gate> gate_ =
      std::make_shared<testing::Gate>();
  const std::shared_ptr<testing::Faults> faults_ =
      std::make_shared<testing::Faults>();
};

TEST_F(RefusalsTest, ARequestOverTheLargestMessage) {
  Start();
  pb::AnalyzeRequest request = Parse<pb::AnalyzeRequest>("model: 'tiny'");
  request.mutable_input()->set_text(std::string(5'000'000, 'x'));
  const Analysis out = Analyze(request);
  EXPECT_EQ(out.status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(out.status.error_message(),
              MatchesRegex("Received message larger than max \\([0-9]+ vs. "
                           "4194304\\)"));
}

TEST_F(RefusalsTest, AnAnswerOverTheLimit) {
  options_.limits.max_response_bytes = 4096;
  Start();
  Expect(Analyze("model: 'tiny' " + Tokens(250) +
                 " capture {form: RAW points: HOOK_V layers: 0}")
             .status,
         StatusCode::RESOURCE_EXHAUSTED,
         "capture needs 15.6 KiB, limit 4 KiB; reduce layers/heads/positions",
         false);
}

TEST_F(RefusalsTest, MemoryThatCanNeverBe) {
  options_.limits.kv_cache_bytes = 20'000;
  Start();
  Expect(Analyze("model: 'tiny' " + Tokens(250)).status,
         StatusCode::RESOURCE_EXHAUSTED,
         "needs [0-9]+ cached positions over all arms, the KV cache holds "
         "[0-9]+; reduce the prompt, max_new_tokens or the arms",
         false);
}

TEST_F(RefusalsTest, AFullQueueAndAUsersShareOfIt) {
  AddUsers();
  options_.limits.max_queued_requests = 1;
  options_.access.users[0].user.budget.max_in_flight = 1;
  Start();
  gate_->Shut();
  const auto running = As("ada");
  const auto first =
      stub_->Analyze(running.get(), Parse<pb::AnalyzeRequest>(kShort));
  pb::AnalyzeEvent event;
  ASSERT_TRUE(first->Read(&event));
  gate_->AwaitPass();
  Expect(AnalyzeAs("ada", kShort).status, StatusCode::RESOURCE_EXHAUSTED,
         "client quota: 1 requests in flight", true);
  // One request may wait beside the running one, and no more.
  const auto waiting = As("bob");
  const auto second =
      stub_->Analyze(waiting.get(), Parse<pb::AnalyzeRequest>(kShort));
  ASSERT_TRUE(second->Read(&event));
  Expect(AnalyzeAs("bob", kShort).status, StatusCode::RESOURCE_EXHAUSTED,
         "queue full \\(1/1\\)", true);
  gate_->Open();
  EXPECT_TRUE(Read(first.get()).status.ok());
  EXPECT_TRUE(Read(second.get()).status.ok());
}

TEST_F(RefusalsTest, Deadlines) {
  Start();
  const auto info_by = [&](std::chrono::system_clock::time_point deadline) {
    grpc::ClientContext context;
    context.set_deadline(deadline);
    pb::ServerInfo info;
    return stub_->GetServerInfo(&context, {}, &info);
  };
  const auto now = std::chrono::system_clock::now();
  EXPECT_EQ(info_by(now - std::chrono::seconds(1)).error_code(),
            StatusCode::DEADLINE_EXCEEDED);
  const grpc::Status late = info_by(now + std::chrono::hours(23));
  EXPECT_EQ(late.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(late.error_message(), HasSubstr("limit 600 s"));
}

TEST_F(RefusalsTest, WhileTheServerDrains) {
  Start();
  server_->BeginDrain();
  Expect(Analyze(kShort).status, StatusCode::UNAVAILABLE,
         "server is shutting down", false);
}

TEST_F(RefusalsTest, WhoMayNot) {
  AddUsers();
  options_.model_admin.enabled = true;
  options_.model_admin.root = folder_.path();
  Start();
  for (const std::string& token : {std::string(), std::string("eve")}) {
    Expect(AnalyzeAs(token, kShort).status, StatusCode::UNAUTHENTICATED,
           "missing or invalid token", false);
  }
  const auto admin = pb::ModelAdmin::NewStub(channel_);
  const auto context = As("ada");
  pb::UnloadModelRequest request;
  request.set_name("tiny");
  pb::UnloadModelResponse response;
  Expect(admin->UnloadModel(context.get(), request, &response),
         StatusCode::PERMISSION_DENIED, "token may not call UnloadModel",
         false);
}

TEST_F(RefusalsTest, ResultsThatAreNotThere) {
  AddUsers();
  options_.spool.emplace();
  options_.spool->directory = folder_.path() + "/spool";
  Start();
  const Analysis detached =
      AnalyzeAs("ada", std::string(kShort) + " detach: true");
  ASSERT_TRUE(detached.status.ok()) << detached.status.error_message();
  const std::string id = detached.events.at(0).accepted().request_id();
  while (!GetResult("ada", id, 0).ok()) absl::SleepFor(absl::Milliseconds(5));
  Expect(GetResult("ada", id, 1'000'000), StatusCode::OUT_OF_RANGE,
         "from_seq: must be in \\[0, [0-9]+\\], got 1000000", false);
  // The error is the same for somebody else's result, one that never existed
  // and one that has expired.
  const std::string none = "request_id: no such result";
  Expect(GetResult("bob", id, 0), StatusCode::NOT_FOUND, none, false);
  Expect(GetResult("ada", "00000000000000aa", 0), StatusCode::NOT_FOUND, none,
         false);
  server_.reset();
  options_.spool->ttl = absl::Milliseconds(1);
  Start();
  const Analysis shortly =
      AnalyzeAs("ada", std::string(kShort) + " detach: true");
  ASSERT_TRUE(shortly.status.ok()) << shortly.status.error_message();
  for (const std::string& expired :
       {id, shortly.events.at(0).accepted().request_id()}) {
    grpc::Status status;
    while ((status = GetResult("ada", expired, 0)).ok()) {
      absl::SleepFor(absl::Milliseconds(5));
    }
    Expect(status, StatusCode::NOT_FOUND, none, false);
  }
}

TEST_F(RefusalsTest, AnUnknownMethod) {
  Start();
  EXPECT_EQ(Send("Explain", "", "").error_code(), StatusCode::UNIMPLEMENTED);
}

TEST_F(RefusalsTest, BytesThatAreNoMessage) {
  AddUsers();
  Start();
  const std::pair<const char*, const char*> methods[] = {
      {"Analyze", "AnalyzeRequest"},
      {"Generate", "GenerateRequest"},
      {"GetResult", "GetResultRequest"}};
  for (const auto& [method, message] : methods) {
    SCOPED_TRACE(method);
    // This field is cut off.
    Expect(Send(method, "ada", "\x0a\x7f"), StatusCode::INVALID_ARGUMENT,
           absl::StrCat("the message is not a qkscope.v1.", message), false);
    Expect(Send(method, "", "\x0a\x7f"), StatusCode::UNAUTHENTICATED,
           "missing or invalid token", false);
  }
  EXPECT_TRUE(AnalyzeAs("ada", kShort).status.ok());
}

TEST_F(RefusalsTest, AViolatedInvariantTellsNothing) {
  Start();
  faults_->Reset();
  faults_->fail_op = 1;
  Expect(Analyze(kShort).status, StatusCode::INTERNAL,
         "internal error \\(ref [0-9a-f]+\\)", false);
  EXPECT_TRUE(Analyze(kShort).status.ok());
}

}  // namespace
}  // namespace qk
