// Tests a device that fails: the request that it fails for ends with the error,
// the next request gets the same bytes as ever, and nothing stays allocated. A
// device that is lost takes the server out of service.
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "grpc/health/v1/health.grpc.pb.h"
#include "qkscope/v1/admin.grpc.pb.h"
#include "tests/server/await.h"
#include "tests/server/faulty_backend.h"
#include "tests/server/observe/metric_samples.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

using grpc::StatusCode;
using testing::Analysis;
using testing::Faults;
using testing::FaultyBackend;
using testing::ServerTest;
using testing::Tokens;

// Reports each pass, and the model that it belongs to, before the pass begins.
class ToldDevice : public EngineDevice {
 public:
  using OnPass = std::function<void(const Model&)>;
  explicit ToldDevice(OnPass on_pass) : on_pass_(std::move(on_pass)) {}
  std::unique_ptr<DevicePass> StartPass(
      const Model& model, absl::Span<Sequence* const> sequences) override {
    on_pass_(model);
    return EngineDevice::StartPass(model, sequences);
  }

 private:
  const OnPass on_pass_;
};

constexpr char kToken[] = "root";
// The timeout for what must happen; it is far longer than needed.
constexpr absl::Duration kPatience = absl::Seconds(300);

// The request covers everything for which a run needs memory and ops.
std::string Request() {
  return "model: 'tiny' " + Tokens(7) +
         " arms {name: 'clean'} arms {name: 'top' disruptions {top_k {k: 1}}}"
         " compare {} logits {top_n: 2} generate {max_new_tokens: 2}"
         " capture {stage: BEFORE_AND_AFTER phase: BOTH}";
}

class DeviceFaultsTest : public ServerTest {
 protected:
  void SetUp() override {
    ServerOptions options = TinyOptions();
    options.access.users = {
        testing::UserWithToken("root", UserRole::kOperator, kToken)};
    options.model_admin.enabled = true;
    options.model_admin.root = testing::GoldenModel("");
    StartServer(options,
                std::make_unique<ToldDevice>([this](const Model& model) {
                  model_ = &model;
                  if (on_pass_ != nullptr) on_pass_();
                }),
                std::make_unique<FaultyBackend>(faults_));
    server_->SetOnDeviceLost([this](const absl::Status&) { ++lost_; });
    ASSERT_TRUE(server_->LoadModels().ok());
    good_ = Payloads(AnalyzeGood());
    ASSERT_FALSE(good_.empty());
  }

  Analysis AnalyzeGood() {
    faults_->Reset();
    Analysis analysis = AnalyzeAs(kToken, Request());
    EXPECT_TRUE(analysis.status.ok()) << analysis.status.error_message();
    EXPECT_NE(analysis.finished(), nullptr);
    return analysis;
  }

  // Returns everything except the times.
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
    const Analysis analysis = AnalyzeAs(kToken, Request());
    EXPECT_EQ(analysis.status.error_code(), code)
        << n << ": " << analysis.status.error_message();
    EXPECT_EQ(analysis.finished(), nullptr) << n;
    EXPECT_EQ(Payloads(AnalyzeGood()), good_) << n;
    // The run is destroyed after its last event.
    EXPECT_TRUE(testing::Await(
        [this] { return model_.load()->pages().used_pages() == 0; }, kPatience))
        << n;
  }

  StatusCode CodeOfAnalyze() {
    return AnalyzeAs(kToken, Request()).status.error_code();
  }
  StatusCode CodeOfLoad() {
    const auto context = As(kToken);
    const auto reader = pb::ModelAdmin::NewStub(channel_)->LoadModel(
        context.get(), testing::Parse<pb::LoadModelRequest>(
                           "name: 'other' path: 'tiny_llama_tied'"));
    pb::LoadModelEvent event;
    while (reader->Read(&event)) EXPECT_FALSE(event.has_model());
    return reader->Finish().error_code();
  }
  void ExpectOutOfService();

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
  // Called on the scheduler's thread; a test sets it while nothing runs.
  std::function<void()> on_pass_;
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

void DeviceFaultsTest::ExpectOutOfService() {
  EXPECT_EQ(lost_, 1);
  EXPECT_FALSE(Serving());
  // The server stays out of service even if the device comes back.
  faults_->lost_to_ops = faults_->lost_to_memory = false;
  EXPECT_EQ(CodeOfAnalyze(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(lost_, 1);
  server_->Stop();
}

TEST_F(DeviceFaultsTest, R12_ADeviceLostInAPassTakesTheServerOutOfService) {
  EXPECT_TRUE(Serving());
  faults_->lost_to_ops = true;
  EXPECT_EQ(CodeOfAnalyze(), StatusCode::UNAVAILABLE);
  ExpectOutOfService();
}

TEST_F(DeviceFaultsTest, R12_ADeviceThatGivesNoMemoryDoesSo) {
  faults_->lost_to_memory = true;
  EXPECT_EQ(CodeOfAnalyze(), StatusCode::UNAVAILABLE);
  ExpectOutOfService();
}

TEST_F(DeviceFaultsTest, R12_ADeviceLostToACancelledCallDoesSo) {
  const auto context = As(kToken);
  // When the device is lost, the call is over; nobody awaits its run's end.
  on_pass_ = [&] {
    context->TryCancel();
    EXPECT_TRUE(testing::Await(
        [this] {
          return testing::Total(testing::SamplesOf(*server_),
                                "qkscope_cancelled_total") == 1;
        },
        kPatience));
    faults_->lost_to_ops = true;
  };
  const auto request = testing::Parse<pb::AnalyzeRequest>(Request());
  const Analysis analysis = Read(stub_->Analyze(context.get(), request).get());
  EXPECT_EQ(analysis.status.error_code(), StatusCode::CANCELLED);
  EXPECT_TRUE(testing::Await([this] { return lost_ == 1; }, kPatience));
  ExpectOutOfService();
}

TEST_F(DeviceFaultsTest, R12_ADeviceLostInALoadDoesSo) {
  faults_->lost_to_ops = true;
  EXPECT_EQ(CodeOfLoad(), StatusCode::UNAVAILABLE);
  ExpectOutOfService();
}

TEST_F(DeviceFaultsTest, R12_ADeviceLostInTheFirstPassOfALoadDoesSo) {
  on_pass_ = [this] { faults_->lost_to_ops = true; };
  EXPECT_EQ(CodeOfLoad(), StatusCode::UNAVAILABLE);
  ExpectOutOfService();
}

}  // namespace
}  // namespace qk
