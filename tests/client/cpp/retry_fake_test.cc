// Tests what the client library tries again, and where it asks: R20.
#include <deque>
#include <string>
#include <vector>

#include "client/cpp/analysis_client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "qkscope/v1/error.pb.h"
#include "tests/client/cpp/fake_service.h"
#include "tests/client/cpp/fake_stream.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr char kId[] = "0123456789abcdef-gpu-7";

class RetryTest : public ::testing::Test {
 protected:
  RetryTest() {
    service_.events = FakeStream();
    service_.events[0].mutable_accepted()->set_request_id(kId);
    ClientOptions options;
    options.server = service_.address();
    client_ = AnalysisClient::Create(options);
  }

  absl::StatusOr<AnalysisResult> Analyze(bool resumable, int retries) {
    v1::AnalyzeRequest request;
    request.set_resumable(resumable);
    CallOptions options;
    options.retries = retries;
    return client_->Analyze(request, {}, options);
  }

  std::vector<std::string> Methods() {
    std::vector<std::string> methods;
    for (const FakeService::Call& call : service_.calls()) {
      methods.push_back(call.method);
    }
    return methods;
  }

  FakeService service_;
  std::unique_ptr<AnalysisClient> client_;
};

grpc::Status Failure(int code) {
  return {static_cast<grpc::StatusCode>(code), "as told"};
}

// A status that says when to try again.
grpc::Status Busy() {
  v1::RetryInfo retry;
  retry.mutable_retry_delay()->set_nanos(1'000'000);
  v1::RpcStatus details;
  details.set_code(grpc::StatusCode::RESOURCE_EXHAUSTED);
  google::protobuf::Any* any = details.add_details();
  any->set_type_url("type.googleapis.com/google.rpc.RetryInfo");
  any->set_value(retry.SerializeAsString());
  return {grpc::StatusCode::RESOURCE_EXHAUSTED, "busy",
          details.SerializeAsString()};
}

TEST_F(RetryTest, R20_BeforeTheFirstEventTheCallIsMadeAgain) {
  service_.answers = {{0, Failure(14)}, {0, Busy()}};
  EXPECT_TRUE(Analyze(false, 2).ok());
  EXPECT_EQ(service_.calls().size(), 3u);
}

TEST_F(RetryTest, R20_NotMoreOftenThanAsked) {
  service_.answers = {{0, Failure(14)}, {0, Busy()}, {0, Busy()}};
  EXPECT_EQ(Analyze(false, 1).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(service_.calls().size(), 2u);
}

TEST_F(RetryTest, R20_WhatWouldNotHelpIsNotTriedAgain) {
  for (const int code : {1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16}) {
    const size_t before = service_.calls().size();
    service_.answers = {{0, Failure(code)}};
    EXPECT_EQ(static_cast<int>(Analyze(true, 5).status().code()), code);
    EXPECT_EQ(service_.calls().size(), before + 1) << code;
  }
}

TEST_F(RetryTest, R20_AStreamThatBreaksOffIsTakenUpAgain) {
  for (const int code : {14, 2, 13}) {
    const size_t before = service_.calls().size();
    service_.answers = {{3, Failure(code)}, {2, Failure(14)}};
    const auto result = Analyze(true, 0);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->tensors.size(), 12u);
    const std::vector<FakeService::Call> calls = service_.calls();
    ASSERT_EQ(calls.size(), before + 3) << code;
    EXPECT_THAT(calls[before].replicas, IsEmpty());
    EXPECT_EQ(calls[before + 1].from_seq, 2);  // Accepted has no number
    EXPECT_EQ(calls[before + 2].from_seq, 4);
    for (size_t i = before + 1; i < calls.size(); ++i) {
      EXPECT_EQ(calls[i].method, "GetResult");
      EXPECT_EQ(calls[i].request_id, kId);
      EXPECT_THAT(calls[i].replicas, ElementsAre("gpu-7"));
    }
  }
}

TEST_F(RetryTest, R20_AStreamThatEndedWithAReasonIsNot) {
  for (const int code : {1, 3, 4, 5, 7, 8, 9, 12, 16}) {
    const size_t before = service_.calls().size();
    service_.answers = {{3, Failure(code)}};
    EXPECT_EQ(static_cast<int>(Analyze(true, 5).status().code()), code);
    EXPECT_EQ(service_.calls().size(), before + 1) << code;
  }
}

TEST_F(RetryTest, R20_ThreeTimesInARowOrAsOftenAsAsked) {
  for (const int retries : {0, 4}) {
    const size_t before = service_.calls().size();
    service_.answers = {{3, Failure(14)}, {1, Failure(14)}};
    for (int i = 0; i < 9; ++i) service_.answers.push_back({0, Failure(14)});
    EXPECT_TRUE(IsIncompleteStream(Analyze(true, retries).status()));
    // Analyze, the resumption that brought an event, and those that did not.
    EXPECT_EQ(service_.calls().size(), before + 2 + 1 + std::max(3, retries));
  }
}

TEST_F(RetryTest, R20_AKeptResultIsAskedForUntilItsReplicaIsBack) {
  service_.answers = {{0, Failure(14)}, {2, Failure(14)}, {0, Failure(14)}};
  CallOptions options;
  options.retries = 3;
  const auto result = client_->FetchResult(kId, {}, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->tensors.size(), 12u);
  EXPECT_EQ(Methods(), std::vector<std::string>(4, "GetResult"));
}

TEST_F(RetryTest, OnlyAReplicasNameIsSentAsSuch) {
  ASSERT_TRUE(client_->Cancel(kId).ok());
  EXPECT_THAT(service_.calls().back().replicas, ElementsAre("gpu-7"));
  for (const char* id :
       {"0123456789abcdef", "0123456789abcdef-", "0123456789abcdef-A",
        "0123456789abcdef-a\r\nx-y: z", "0123456789abcdef-a b", "fake-1", ""}) {
    ASSERT_TRUE(client_->Cancel(id).ok());
    EXPECT_EQ(service_.calls().back().request_id, id);
    EXPECT_THAT(service_.calls().back().replicas, IsEmpty()) << id;
    ASSERT_TRUE(client_->FetchResult(id).ok());
    EXPECT_EQ(service_.calls().back().method, "GetResult");
    EXPECT_THAT(service_.calls().back().replicas, IsEmpty()) << id;
  }
}

}  // namespace
}  // namespace qk::client
