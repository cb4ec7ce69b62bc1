// Tests deadlines, cancellation, stalled readers, buffers and shutdown.
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "engine/base/monotonic.h"
#include "gmock/gmock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/generic/generic_stub.h"
#include "qkscope/v1/error.pb.h"
#include "tests/server/await.h"
#include "tests/server/gated_device.h"
#include "tests/server/observe/metric_samples.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

namespace health = ::grpc::health::v1;
using testing::Analysis;
using ::testing::HasSubstr;
using testing::ServerTest;
using testing::Tokens;

// Asks for megabytes of raw values from a model of kilobytes.
std::string Large(int arms) {
  std::string request = "model: 'tiny' " + Tokens(250) +
                        " capture {form: RAW stage: BEFORE_AND_AFTER points: "
                        "[HOOK_Q, HOOK_K, HOOK_V, HOOK_ROT_Q, HOOK_ROT_K, "
                        "HOOK_Z]}";
  for (int i = 0; i < arms; ++i) {
    request += " arms {name: 'a" + std::to_string(i) + "'}";
  }
  return request;
}

class LimitsTest : public ServerTest {
 protected:
  void Start(const Limits& limits, std::unique_ptr<Device> device =
                                       std::make_unique<EngineDevice>()) {
    ServerOptions options = TinyOptions();
    options.limits = limits;
    StartServer(options, std::move(device));
    ASSERT_TRUE(server_->LoadModels().ok());
  }

  health::HealthCheckResponse::ServingStatus Health(const std::string& name) {
    auto stub = health::Health::NewStub(channel_);
    health::HealthCheckRequest request;
    request.set_service(name);
    health::HealthCheckResponse response;
    grpc::ClientContext context;
    EXPECT_TRUE(stub->Check(&context, request, &response).ok()) << name;
    return response.status();
  }

  grpc::Status ServerInfo() {
    grpc::ClientContext context;
    pb::ServerInfo info;
    return stub_->GetServerInfo(&context, {}, &info);
  }
};

TEST_F(LimitsTest, AResponseOverTheLimit) {
  Limits limits = TinyOptions().limits;
  limits.max_response_bytes = 4096;
  Start(limits);
  const Analysis out = Analyze("model: 'tiny' " + Tokens(250) +
                               " capture {form: RAW points: HOOK_V layers: 0}");
  EXPECT_EQ(out.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(out.status.error_message(),
            "capture needs 15.6 KiB, limit 4 KiB; reduce "
            "layers/heads/positions");
  EXPECT_TRUE(out.events.empty());
}

TEST_F(LimitsTest, StreamBuffersAreTakenBeforeTheWorkStarts) {
  Limits limits = TinyOptions().limits;
  limits.max_buffered_bytes = 100'000;
  Start(limits);
  const Analysis out = Analyze(Large(2));
  EXPECT_EQ(out.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(out.status.error_message(),
              HasSubstr("of stream buffers, limit 97.7 KiB"));
  EXPECT_TRUE(Analyze("model: 'tiny' " + Tokens(3)).status.ok());
}

TEST_F(LimitsTest, ASummaryThatFitsNoMessage) {
  Limits limits = TinyOptions().limits;
  limits.max_arms = 2000;
  Start(limits);
  std::string request = "model: 'tiny' " + Tokens(3) +
                        " capture {stage: BEFORE_AND_AFTER points: [HOOK_Q, "
                        "HOOK_K, HOOK_V, HOOK_ROT_Q, HOOK_ROT_K, HOOK_Z]}";
  for (int i = 0; i < 2000; ++i) {
    request += " arms {name: 'a" + std::to_string(i) + "'}";
  }
  const Analysis out = Analyze(request);
  EXPECT_EQ(out.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(out.status.error_message(),
              HasSubstr("reduce arms/layers/points"));
}

TEST_F(LimitsTest, MemoryThatIsNotThere) {
  Limits limits = TinyOptions().limits;
  limits.kv_cache_bytes = 20'000;  // two pages of 64 positions hold 16 KiB each
  Start(limits);
  const Analysis out = Analyze("model: 'tiny' " + Tokens(250));
  EXPECT_EQ(out.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_FALSE(out.status.error_message().empty());
  EXPECT_TRUE(Analyze("model: 'tiny' " + Tokens(3)).status.ok());
}

TEST_F(LimitsTest, ADeadlineBeyondTheServers) {
  Start(TinyOptions().limits);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::hours(23));
  pb::ServerInfo info;
  const grpc::Status status = stub_->GetServerInfo(&context, {}, &info);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("limit 600 s"));
}

TEST_F(LimitsTest, ADeadlineInThePast) {
  Start(TinyOptions().limits);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() -
                       std::chrono::seconds(1));
  pb::ServerInfo info;
  EXPECT_EQ(stub_->GetServerInfo(&context, {}, &info).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(LimitsTest, TheServersDeadlineEndsLongWork) {
  Limits limits = TinyOptions().limits;
  limits.max_deadline_ms = 1;
  Start(limits);
  const Analysis out = Analyze(Large(64));
  EXPECT_EQ(out.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(LimitsTest, CancelledCallsLeaveNothingBehind) {
  Start(TinyOptions().limits);
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext context;
    auto reader = stub_->Analyze(
        &context, testing::Parse<pb::AnalyzeRequest>(Large(1 + i)));
    pb::AnalyzeEvent event;
    for (int reads = 0; reads < i; ++reads) reader->Read(&event);
    context.TryCancel();
    while (reader->Read(&event)) {
    }
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  EXPECT_TRUE(server_->WaitUntilIdle(absl::InfiniteFuture()));
  EXPECT_TRUE(Analyze("model: 'tiny' " + Tokens(3)).status.ok());
}

TEST_F(LimitsTest, AReaderThatStandsStillIsLetGo) {
  Limits limits = TinyOptions().limits;
  limits.write_stall_timeout_ms = 200;
  const auto gate = std::make_shared<testing::Gate>();
  Start(limits, std::make_unique<testing::GatedDevice>(gate));
  grpc::ClientContext context;
  auto reader =
      stub_->Analyze(&context, testing::Parse<pb::AnalyzeRequest>(Large(64)));
  pb::AnalyzeEvent event;
  EXPECT_TRUE(reader->Read(&event));
  gate->Open();
  // The client reads nothing until the server has given up on it.
  EXPECT_TRUE(server_->WaitUntilIdle(absl::InfiniteFuture()));
  bool finished = false;
  while (reader->Read(&event)) finished |= event.has_finished();
  EXPECT_FALSE(finished);
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(status.error_message(), HasSubstr("the client read nothing"));
}

TEST_F(LimitsTest, AStalledReaderDoesNotHoldOthers) {
  Start(TinyOptions().limits);
  grpc::ClientContext context;
  auto reader =
      stub_->Analyze(&context, testing::Parse<pb::AnalyzeRequest>(Large(64)));
  pb::AnalyzeEvent event;
  EXPECT_TRUE(reader->Read(&event));
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(Analyze("model: 'tiny' " + Tokens(3)).status.ok());
  }
  context.TryCancel();
}

TEST_F(LimitsTest, SlowReadersGetEverything) {
  Start(TinyOptions().limits);
  grpc::ClientContext context;
  auto reader =
      stub_->Analyze(&context, testing::Parse<pb::AnalyzeRequest>(Large(8)));
  pb::AnalyzeEvent event;
  int64_t bytes = 0, finished = 0;
  while (reader->Read(&event)) {
    if (event.has_layer()) bytes += event.layer().data().size();
    if (event.has_finished()) finished = event.finished().streamed_bytes();
    if (event.seq() % 50 == 0) absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(bytes, finished);
  EXPECT_GT(bytes, 1'000'000);
}

TEST_F(LimitsTest, ModelsThatLoadAreUnavailable) {
  StartServer(TinyOptions());
  EXPECT_EQ(Health(""), health::HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Health("tiny"), health::HealthCheckResponse::NOT_SERVING);
  const Analysis out = Analyze("model: 'tiny' " + Tokens(3));
  EXPECT_EQ(out.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(out.status.error_message(),
            "model 'tiny' is loading (retry in 2 s)");
  pb::RpcStatus details;
  ASSERT_TRUE(details.ParseFromString(out.status.error_details()));
  ASSERT_EQ(details.details_size(), 2);
  EXPECT_EQ(details.details(0).type_url(),
            "type.googleapis.com/google.rpc.RetryInfo");
  pb::RetryInfo retry;
  ASSERT_TRUE(retry.ParseFromString(details.details(0).value()));
  EXPECT_EQ(retry.retry_delay().seconds(), 2);
  grpc::ClientContext context;
  pb::GetModelRequest request;
  request.set_model("tiny");
  pb::ModelInfo info;
  EXPECT_TRUE(stub_->GetModel(&context, request, &info).ok());
  EXPECT_EQ(info.state(), pb::ModelInfo::LOADING);
  EXPECT_EQ(info.num_layers(), 2);
  ASSERT_TRUE(server_->LoadModels().ok());
  EXPECT_EQ(Health(""), health::HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("tiny"), health::HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("qkscope.v1.Analysis"),
            health::HealthCheckResponse::SERVING);
}

TEST_F(LimitsTest, DrainRefusesNewCallsAndLetsOldOnesFinish) {
  Start(TinyOptions().limits);
  grpc::ClientContext context;
  auto reader =
      stub_->Analyze(&context, testing::Parse<pb::AnalyzeRequest>(Large(16)));
  pb::AnalyzeEvent event;
  EXPECT_TRUE(reader->Read(&event));
  server_->BeginDrain();
  EXPECT_EQ(Health(""), health::HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Health("tiny"), health::HealthCheckResponse::NOT_SERVING);
  const Analysis late = Analyze("model: 'tiny' " + Tokens(3));
  EXPECT_EQ(late.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(late.status.error_message(), "server is shutting down");
  EXPECT_EQ(ServerInfo().error_message(), "server is shutting down");
  bool finished = false;
  while (reader->Read(&event)) finished |= event.has_finished();
  EXPECT_TRUE(finished);
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(server_->WaitUntilIdle(absl::InfiniteFuture()));
}

TEST_F(LimitsTest, StopEndsWhatIsLeft) {
  Start(TinyOptions().limits);
  grpc::ClientContext stalled_context, many_context;
  auto stalled = stub_->Analyze(&stalled_context,
                                testing::Parse<pb::AnalyzeRequest>(Large(64)));
  pb::AnalyzeEvent event;
  EXPECT_TRUE(stalled->Read(&event));
  auto many = stub_->AnalyzeMany(&many_context);
  pb::AnalyzeManyRequest spec;
  spec.mutable_spec()->mutable_request()->set_model("tiny");
  many->Write(spec);
  EXPECT_TRUE(testing::Await(
      [this] {
        return testing::SamplesOf(*server_).at(
                   "qkscope_rpc_started_total{method=\"AnalyzeMany\"}") == 1;
      },
      absl::Minutes(5)));
  server_->BeginDrain();
  EXPECT_FALSE(server_->WaitUntilIdle(MonotonicNow() + absl::Milliseconds(50)));
  server_->Stop();
  EXPECT_TRUE(server_->WaitUntilIdle(absl::InfiniteFuture()));
  pb::AnalyzeManyEvent many_event;
  while (many->Read(&many_event)) {
  }
  EXPECT_EQ(many->Finish().error_message(), "server is shutting down");
  bool finished = false;
  while (stalled->Read(&event)) finished |= event.has_finished();
  EXPECT_FALSE(finished);
  EXPECT_FALSE(stalled->Finish().ok());
  const auto samples = testing::SamplesOf(*server_);
  EXPECT_EQ(samples.at("qkscope_cancelled_total{reason=\"shutdown\"}"), 2);
  EXPECT_EQ(testing::Total(samples, "qkscope_cancelled_total"), 2);
}

// There is no generated code for reflection here: ListServices is one field.
TEST_F(LimitsTest, ReflectionListsTheService) {
  Start(TinyOptions().limits);
  grpc::GenericStub stub(channel_);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  auto call = stub.PrepareCall(
      &context,
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  void* tag = nullptr;
  bool ok = false;
  const auto await = [&] {
    ASSERT_TRUE(queue.Next(&tag, &ok));
    ASSERT_TRUE(ok);
  };
  call->StartCall(call.get());
  await();
  const grpc::Slice slice(std::string("\x3a\x01*", 3));
  const grpc::ByteBuffer request(&slice, 1);
  call->Write(request, call.get());
  await();
  grpc::ByteBuffer response;
  call->Read(&response, call.get());
  await();
  grpc::Slice text;
  ASSERT_TRUE(response.DumpToSingleSlice(&text).ok());
  EXPECT_THAT(std::string(text.begin(), text.end()),
              HasSubstr("qkscope.v1.Analysis"));
  context.TryCancel();
  grpc::Status status;
  call->Finish(&status, call.get());
  queue.Next(&tag, &ok);
}

TEST_F(LimitsTest, TheLibraryRefusesLargeRequests) {
  Start(TinyOptions().limits);
  pb::AnalyzeRequest request;
  request.set_model("tiny");
  request.mutable_input()->set_text(std::string(5'000'000, 'a'));
  EXPECT_EQ(Analyze(request).status.error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(LimitsTest, TwoServersCannotShareAPort) {
  Start(TinyOptions().limits);
  ServerOptions options = TinyOptions();
  options.listen = server_->address();
  const auto second = Server::Create(options, &log_);
  EXPECT_EQ(std::string(second.status().message()),
            "listen: cannot bind '" + server_->address() +
                "': Address already in use");
}

}  // namespace
}  // namespace qk
