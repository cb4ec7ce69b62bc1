// Tests the queue over the wire, with a device held between two layers.
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "prometheus/text_serializer.h"
#include "qkscope/v1/error.pb.h"
#include "tests/server/gated_device.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

using testing::Analysis;
using testing::Gate;
using testing::GatedDevice;
using testing::ServerTest;
using testing::Tokens;

class QueueTest : public ServerTest {
 protected:
  void Start(int max_queued) {
    ServerOptions options = TinyOptions();
    options.limits.max_queued_requests = max_queued;
    StartServer(options, std::make_unique<GatedDevice>(gate_));
    ASSERT_TRUE(server_->LoadModels().ok());
  }
  // Opens the gate even when an assertion has ended the test.
  void TearDown() override {
    gate_->Open();
    for (std::thread& thread : threads_) thread.join();
  }

  // Sends a request in a thread of its own, which counts how it ended.
  void Send(std::atomic<int>* refused, std::atomic<int>* good) {
    threads_.emplace_back([=, this] {
      const Analysis out = Analyze("model: 'tiny' " + Tokens(3));
      if (out.status.ok()) {
        EXPECT_NE(out.finished(), nullptr);
        ++*good;
        return;
      }
      EXPECT_EQ(out.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
      EXPECT_EQ(out.status.error_message(), "queue full (8/8)");
      pb::RpcStatus details;
      EXPECT_TRUE(details.ParseFromString(out.status.error_details()));
      EXPECT_EQ(details.details_size(), 2);
      ++*refused;
    });
  }

  pb::Estimates Estimate() {
    grpc::ClientContext context;
    pb::EstimateResponse response;
    EXPECT_TRUE(stub_
                    ->Estimate(&context,
                               testing::Parse<pb::AnalyzeRequest>(
                                   "model: 'tiny' " + Tokens(3)),
                               &response)
                    .ok());
    return response.estimate();
  }

  std::shared_ptr<Gate> gate_ = std::make_shared<Gate>();
  std::vector<std::thread> threads_;
};

TEST_F(QueueTest, R10_CapIsExact) {
  Start(8);
  std::atomic<int> refused = 0, good = 0;
  Send(&refused, &good);
  gate_->AwaitPass();
  for (int i = 0; i < 19; ++i) Send(&refused, &good);
  // The refused calls have ended while the device is still held.
  while (refused < 11) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_EQ(Estimate().queue_position(), 8);
  gate_->Open();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  EXPECT_EQ(refused, 11);
  EXPECT_EQ(good, 9);
  const std::string metrics =
      prometheus::TextSerializer().Serialize(server_->CollectMetrics());
  EXPECT_THAT(metrics, ::testing::HasSubstr(
                           "qkscope_refused_total{reason=\"queue_full\"} 11"));
}

TEST_F(QueueTest, PositionsAreToldAsTheyChange) {
  Start(8);
  std::atomic<int> refused = 0, good = 0;
  Send(&refused, &good);
  gate_->AwaitPass();
  Send(&refused, &good);
  while (Estimate().queue_position() < 1) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  grpc::ClientContext context;
  auto reader = stub_->Analyze(&context, testing::Parse<pb::AnalyzeRequest>(
                                             "model: 'tiny' " + Tokens(3)));
  pb::AnalyzeEvent event;
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.accepted().queue_position(), 1);
  gate_->Open();
  ASSERT_TRUE(reader->Read(&event));
  ASSERT_TRUE(event.has_accepted());
  EXPECT_EQ(event.accepted().queue_position(), 0);
  while (reader->Read(&event)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(QueueTest, R6_QueuedWorkPastItsDeadlineNeverRuns) {
  Start(8);
  std::atomic<int> refused = 0, good = 0;
  Send(&refused, &good);
  gate_->AwaitPass();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::milliseconds(100));
  auto reader = stub_->Analyze(&context, testing::Parse<pb::AnalyzeRequest>(
                                             "model: 'tiny' " + Tokens(3)));
  pb::AnalyzeEvent event;
  while (reader->Read(&event)) EXPECT_TRUE(event.has_accepted());
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(QueueTest, CancelledCallsLeaveTheQueue) {
  Start(1);
  std::atomic<int> refused = 0, good = 0;
  Send(&refused, &good);
  gate_->AwaitPass();
  grpc::ClientContext context;
  auto reader = stub_->Analyze(&context, testing::Parse<pb::AnalyzeRequest>(
                                             "model: 'tiny' " + Tokens(3)));
  pb::AnalyzeEvent event;
  ASSERT_TRUE(reader->Read(&event));
  context.TryCancel();
  EXPECT_FALSE(reader->Read(&event));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  gate_->Open();
  EXPECT_TRUE(server_->WaitUntilIdle(absl::InfiniteFuture()));
}

}  // namespace
}  // namespace qk
