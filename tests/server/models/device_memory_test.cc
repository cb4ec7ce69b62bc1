// A device with memory of its own: what models may take of it.
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "qkscope/v1/admin.grpc.pb.h"
#include "tests/engine/forwarding_backend.h"
#include "tests/engine/test_backend.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

using grpc::StatusCode;
using ::testing::MatchesRegex;
using testing::ServerTest;
using Eviction = ModelAdminOptions::Eviction;

class SmallDevice final : public testing::ForwardingBackend {
 public:
  explicit SmallDevice(int64_t bytes)
      : ForwardingBackend(testing::MakeTestBackend(1)), bytes_(bytes) {}
  BackendInfo info() const override {
    BackendInfo info = ForwardingBackend::info();
    info.memory_bytes = bytes_;
    return info;
  }

 private:
  const int64_t bytes_;
};

class DeviceMemoryTest : public ServerTest {
 protected:
  // A server with 'tiny', on a device of that size.
  void Start(int64_t device_bytes, Eviction eviction, int64_t max_bytes = 0) {
    ServerOptions options = TinyOptions();
    options.access.users = {
        testing::UserWithToken("root", UserRole::kOperator, "root")};
    options.model_admin.enabled = true;
    options.model_admin.root = testing::GoldenModel("");
    options.model_admin.eviction = eviction;
    options.model_admin.max_bytes = max_bytes;
    server_.reset();
    StartServer(options, std::make_unique<EngineDevice>(),
                std::make_unique<SmallDevice>(device_bytes));
    ASSERT_TRUE(server_->LoadModels().ok());
  }
  pb::ModelInfo Tiny() {
    pb::GetModelRequest request;
    request.set_model("tiny");
    pb::ModelInfo info;
    EXPECT_TRUE(stub_->GetModel(As("root").get(), request, &info).ok());
    return info;
  }
  grpc::Status LoadSecond() {
    const auto admin = pb::ModelAdmin::NewStub(channel_);
    const auto context = As("root");
    pb::LoadModelRequest request;
    request.set_name("second");
    request.set_path("tiny_llama_tied");
    const auto reader = admin->LoadModel(context.get(), request);
    pb::LoadModelEvent event;
    while (reader->Read(&event)) continue;
    return reader->Finish();
  }
};

TEST_F(DeviceMemoryTest, LimitsWhatIsLoaded) {
  Start(int64_t{1} << 40, Eviction::kNever);
  const pb::ModelInfo tiny = Tiny();
  EXPECT_EQ(tiny.host_bytes(), 0);
  EXPECT_GT(tiny.device_bytes(), 0);
  EXPECT_TRUE(LoadSecond().ok());

  Start(tiny.device_bytes() + 1000, Eviction::kNever);
  const grpc::Status refused = LoadSecond();
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(),
              MatchesRegex("the model needs about .*B; .*B of the device's .*B "
                           "are taken: .*B are missing; unload one of: 'tiny' "
                           "\\(.*, idle\\)"));

  Start(tiny.device_bytes() + 1000, Eviction::kLru);
  EXPECT_TRUE(LoadSecond().ok());

  Start(int64_t{1} << 40, Eviction::kNever, tiny.device_bytes() + 1000);
  EXPECT_THAT(LoadSecond().error_message(),
              MatchesRegex(".*B of max_bytes .*B are taken: .*"));
}

}  // namespace
}  // namespace qk
