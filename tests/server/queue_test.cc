// The queue over the wire: a device that a test holds between two layers.
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "prometheus/text_serializer.h"
#include "qkscope/v1/error.pb.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

using testing::Analysis;
using testing::ServerTest;
using testing::Tokens;

// Holds passes before each layer while it is shut.
class Gate {
 public:
  void Open() {
    std::lock_guard<std::mutex> lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void Pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    arrived_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }
  void AwaitPass() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return arrived_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
  bool arrived_ = false;
};

class GatedDevice : public Device {
 public:
  explicit GatedDevice(std::shared_ptr<Gate> gate) : gate_(std::move(gate)) {}

  std::unique_ptr<DevicePass> StartPass(
      const Model& model, absl::Span<Sequence* const> sequences) override {
    return std::make_unique<GatedPass>(engine_.StartPass(model, sequences),
                                       gate_);
  }
  int Rows(const Sequence& sequence) const override {
    return engine_.Rows(sequence);
  }

 private:
  class GatedPass : public DevicePass {
   public:
    GatedPass(std::unique_ptr<DevicePass> pass, std::shared_ptr<Gate> gate)
        : pass_(std::move(pass)), gate_(std::move(gate)) {}
    void RunStep() override {
      gate_->Pass();
      pass_->RunStep();
    }
    void DropCancelled() override { pass_->DropCancelled(); }
    bool done() const override { return pass_->done(); }
    absl::Status Finish() override { return pass_->Finish(); }

   private:
    std::unique_ptr<DevicePass> pass_;
    std::shared_ptr<Gate> gate_;
  };

  EngineDevice engine_;
  std::shared_ptr<Gate> gate_;
};

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

  // A request in a thread of its own, which counts its end.
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
  // The refused are through while the device still stands.
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
