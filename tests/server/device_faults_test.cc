// A device that fails: the request that it fails for says so, the next one is
// answered with the same bytes, and nothing stays taken. A device that is gone
// takes the server out of service.
#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "client/health.grpc.pb.h"
#include "tests/server/faulty_backend.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

using grpc::StatusCode;
using testing::Analysis;
using testing::Faults;
using testing::FaultyBackend;
using testing::ServerTest;
using testing::Tokens;

// Tells which model its passes are of.
class KnownModelDevice : public EngineDevice {
 public:
  explicit KnownModelDevice(std::atomic<const Model*>* model) : model_(model) {}
  std::unique_ptr<DevicePass> StartPass(
      const Model& model, absl::Span<Sequence* const> sequences) override {
    *model_ = &model;
    return EngineDevice::StartPass(model, sequences);
  }

 private:
  std::atomic<const Model*>* const model_;
};

// All that a run takes memory and ops for.
std::string Request() {
  return "model: 'tiny' " + Tokens(7) +
         " arms {name: 'clean'} arms {name: 'top' disruptions {top_k {k: 1}}}"
         " compare {} logits {top_n: 2} generate {max_new_tokens: 2}"
         " capture {stage: BEFORE_AND_AFTER phase: BOTH}";
}

class DeviceFaultsTest : public ServerTest {
 protected:
  void SetUp() override {
    StartServer(TinyOptions(), std::make_unique<KnownModelDevice>(&model_),
                std::make_unique<FaultyBackend>(faults_));
    server_->SetOnDeviceLost([this](const absl::Status&) { ++lost_; });
    ASSERT_TRUE(server_->LoadModels().ok());
    good_ = Payloads(AnalyzeGood());
    ASSERT_FALSE(good_.empty());
  }

  Analysis AnalyzeGood() {
    faults_->Reset();
    Analysis analysis = Analyze(Request());
    EXPECT_TRUE(analysis.status.ok()) << analysis.status.error_message();
    EXPECT_NE(analysis.finished(), nullptr);
    return analysis;
  }

  // Everything but the times.
  static std::string Payloads(const Analysis& analysis) {
    std::string out;
    for (pb::AnalyzeEvent event : analysis.events) {
      if (event.has_accepted() || event.has_started()) continue;
      if (event.has_finished()) event.mutable_finished()->clear_times();
      out += event.SerializeAsString();
    }
    return out;
  }

  void ExpectFailure(StatusCode code, int64_t n) {
    const Analysis analysis = Analyze(Request());
    EXPECT_EQ(analysis.status.error_code(), code)
        << n << ": " << analysis.status.error_message();
    EXPECT_EQ(analysis.finished(), nullptr) << n;
    EXPECT_EQ(Payloads(AnalyzeGood()), good_) << n;
    EXPECT_EQ(model_.load()->pages().used_pages(), 0) << n;
  }

  void ExpectOutOfService(std::atomic<bool>* lost);

  bool Serving() {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckResponse response;
    const auto stub = grpc::health::v1::Health::NewStub(channel_);
    EXPECT_TRUE(stub->Check(&context, {}, &response).ok());
    return response.status() == grpc::health::v1::HealthCheckResponse::SERVING;
  }

  const std::shared_ptr<Faults> faults_ = std::make_shared<Faults>();
  std::atomic<int> lost_ = 0;
  std::atomic<const Model*> model_ = nullptr;
  std::string good_;
};

TEST_F(DeviceFaultsTest, R12_EveryAllocationOfARequestFailsOnce) {
  AnalyzeGood();
  const int64_t total = faults_->allocations;
  ASSERT_GT(total, 10);
  for (int64_t n = 1; n <= total; ++n) {
    faults_->Reset();
    faults_->fail_allocation = n;
    ExpectFailure(StatusCode::RESOURCE_EXHAUSTED, n);
  }
  std::printf("%d allocations\n", static_cast<int>(total));
}

TEST_F(DeviceFaultsTest, R12_EveryOpOfARequestFailsOnce) {
  AnalyzeGood();
  const int64_t total = faults_->ops;
  ASSERT_GT(total, 100);
  for (int64_t n = 1; n <= total; ++n) {
    faults_->Reset();
    faults_->fail_op = n;
    ExpectFailure(StatusCode::INTERNAL, n);
  }
  std::printf("%d ops\n", static_cast<int>(total));
}

void DeviceFaultsTest::ExpectOutOfService(std::atomic<bool>* lost) {
  EXPECT_TRUE(Serving());
  *lost = true;
  EXPECT_EQ(Analyze(Request()).status.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(lost_, 1);
  EXPECT_FALSE(Serving());
  // Also should the device come back.
  *lost = false;
  EXPECT_EQ(Analyze(Request()).status.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(lost_, 1);
  server_->Stop();
}

TEST_F(DeviceFaultsTest, R12_ADeviceLostInAPassTakesTheServerOutOfService) {
  ExpectOutOfService(&faults_->lost_to_ops);
}

TEST_F(DeviceFaultsTest, R12_ADeviceThatGivesNoMemoryDoesSo) {
  ExpectOutOfService(&faults_->lost_to_memory);
}

}  // namespace
}  // namespace qk
