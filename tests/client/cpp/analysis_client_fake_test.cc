// Tests the client library against a fake, in-process service.
#include <string>
#include <vector>

#include "client/cpp/analysis_client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/cpp/fake_service.h"
#include "tests/client/cpp/fake_stream.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FakeServiceTest : public ::testing::Test {
 protected:
  std::unique_ptr<AnalysisClient> Connect(const std::string& token = "") {
    ClientOptions options;
    options.server = service_.address();
    options.token = token;
    return AnalysisClient::Create(options);
  }

  std::string Message(const absl::Status& status) {
    return std::string(status.message());
  }

  FakeService service_;
};

TEST_F(FakeServiceTest, AnalyzeGivesTypedResults) {
  service_.events = FakeStream();
  v1::AnalyzeRequest request;
  request.set_model("fake");
  int events = 0, tensors = 0;
  AnalyzeObserver observer;
  observer.on_event = [&](const v1::AnalyzeEvent&) { ++events; };
  observer.on_tensor = [&](int64_t, const Tensor&) { ++tensors; };
  const auto result = Connect()->Analyze(request, observer);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->request_id, "fake-1");
  EXPECT_THAT(result->started.token_ids(), ElementsAre(10, 11, 12));
  EXPECT_EQ(result->tensors.size(), 12u);
  EXPECT_EQ(result->applied.size(), 2u);
  EXPECT_EQ(result->comparisons.size(), 2u);
  EXPECT_EQ(result->finished.manifest().digests_size(), 12);
  EXPECT_EQ(tensors, 12);
  EXPECT_EQ(events, 1 + 1 + 2 + 2 + 1);
  EXPECT_EQ(service_.last_request().model(), "fake");
  EXPECT_EQ(service_.last_authorization(), "");
}

TEST_F(FakeServiceTest, AnalyzeNeedNotKeepTensors) {
  service_.events = FakeStream();
  AnalyzeObserver observer;
  observer.keep_tensors = false;
  const auto result = Connect()->Analyze({}, observer);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->tensors.empty());
}

TEST_F(FakeServiceTest, TheTokenIsSentAsBearer) {
  service_.events = FakeStream();
  ASSERT_TRUE(Connect("secret")->Analyze({}).ok());
  EXPECT_EQ(service_.last_authorization(), "Bearer secret");
}

TEST_F(FakeServiceTest, AStreamWithoutFinishedIsAnErrorThoughItsStatusIsOk) {
  service_.events = FakeStream();
  service_.events.pop_back();
  const auto result = Connect()->Analyze({});
  EXPECT_TRUE(IsIncompleteStream(result.status())) << result.status();
  EXPECT_THAT(Message(result.status()), HasSubstr("incomplete stream: "));
}

TEST_F(FakeServiceTest, AnEmptyStreamIsIncomplete) {
  const auto result = Connect()->Analyze({});
  EXPECT_TRUE(IsIncompleteStream(result.status())) << result.status();
}

TEST_F(FakeServiceTest, ALostConnectionIsAnIncompleteStream) {
  for (const auto code :
       {grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::UNKNOWN,
        grpc::StatusCode::INTERNAL}) {
    service_.events = FakeStream();
    service_.events.resize(4);
    service_.status = grpc::Status(code, "Socket closed");
    const auto result = Connect()->Analyze({});
    EXPECT_TRUE(IsIncompleteStream(result.status())) << result.status();
    EXPECT_THAT(Message(result.status()), HasSubstr("Socket closed"));
  }
}

TEST_F(FakeServiceTest, ARefusalBeforeTheFirstEventKeepsItsCode) {
  service_.status =
      grpc::Status(grpc::StatusCode::UNAVAILABLE, "server is shutting down");
  const auto result = Connect()->Analyze({});
  EXPECT_FALSE(IsIncompleteStream(result.status()));
  EXPECT_EQ(result.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Message(result.status()), "server is shutting down");
}

TEST_F(FakeServiceTest, ARefusalOfTheServerAfterAcceptedKeepsItsCode) {
  service_.events = FakeStream();
  service_.events.resize(1);
  service_.status =
      grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too much");
  const auto result = Connect()->Analyze({});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(IsIncompleteStream(result.status()));
}

TEST_F(FakeServiceTest, ABrokenPromiseIsAnIncompleteStream) {
  service_.events = FakeStream();
  service_.events.erase(service_.events.begin() + 5);
  const auto result = Connect()->Analyze({});
  EXPECT_TRUE(IsIncompleteStream(result.status())) << result.status();
  EXPECT_THAT(Message(result.status()), HasSubstr("is missing"));
}

TEST_F(FakeServiceTest, ALateStatusDoesNotSpoilAWholeAnswer) {
  service_.events = FakeStream();
  service_.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "closing");
  EXPECT_TRUE(Connect()->Analyze({}).ok());
}

TEST_F(FakeServiceTest, CancellationEndsACallInProgress) {
  service_.events = FakeStream();
  service_.events.pop_back();
  service_.hang = true;
  Cancellation cancellation;
  CallOptions options;
  options.cancellation = &cancellation;
  AnalyzeObserver observer;
  observer.on_tensor = [&](int64_t, const Tensor&) { cancellation.Cancel(); };
  const auto result = Connect()->Analyze({}, observer, options);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(IsIncompleteStream(result.status()));
}

TEST_F(FakeServiceTest, ACallAfterTheCancellationDoesNotRun) {
  service_.events = FakeStream();
  Cancellation cancellation;
  cancellation.Cancel();
  CallOptions options;
  options.cancellation = &cancellation;
  const auto result = Connect()->Analyze({}, {}, options);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
}

TEST_F(FakeServiceTest, TheTimeoutEndsACall) {
  service_.events = FakeStream();
  service_.events.pop_back();
  service_.hang = true;
  CallOptions options;
  options.timeout = absl::Milliseconds(200);
  const auto result = Connect()->Analyze({}, {}, options);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(FakeServiceTest, ATimeoutOfAgesIsFine) {
  CallOptions options;
  options.timeout = absl::Hours(24 * 365 * 100000LL);
  EXPECT_TRUE(Connect()->ListModels(options).ok());
}

TEST_F(FakeServiceTest, GenerateNeedsItsEnd) {
  v1::GenerateRequest request;
  request.mutable_generate()->set_max_new_tokens(3);
  int tokens = 0;
  auto count = [&](const v1::Token&) { ++tokens; };
  EXPECT_TRUE(Connect()->Generate(request, count).ok());
  EXPECT_EQ(tokens, 3);
  service_.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone");
  const auto result = Connect()->Generate(request, count);
  EXPECT_TRUE(IsIncompleteStream(result.status())) << result.status();
}

TEST_F(FakeServiceTest, HealthIsOfTheServerOrAModel) {
  EXPECT_TRUE(Connect()->CheckHealth("").ok());
  EXPECT_EQ(Connect()->CheckHealth("nonesuch").code(),
            absl::StatusCode::kNotFound);
}

TEST(AnalysisClient, NoServerIsUnavailable) {
  ClientOptions options;
  options.server = "127.0.0.1:1";
  const auto result = AnalysisClient::Create(options)->Analyze({});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace qk::client
