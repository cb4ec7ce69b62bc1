// Tests ModelAdmin on a real server: models change under running requests.
#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "engine/base/sha256.h"
#include "gmock/gmock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "prometheus/text_serializer.h"
#include "qkscope/v1/admin.grpc.pb.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

namespace fs = std::filesystem;
using grpc::StatusCode;
using testing::Analysis;
using testing::GoldenModel;
using testing::Parse;
using testing::ServerTest;
using testing::Tokens;
using Eviction = ModelAdminOptions::Eviction;

std::string Sha(const std::string& text) {
  Sha256 sha256;
  sha256.Update(text.data(), text.size());
  return sha256.FinishHex();
}

UserEntry Entry(const std::string& alias, UserRole role) {
  return testing::UserWithToken(alias, role, alias);
}

// Stops one model while others run.
class Brake {
 public:
  // Stops the model that has the next pass, once `passes` of its passes have
  // gone through.
  void StopNextAfter(int passes) {
    std::lock_guard<std::mutex> lock(mutex_);
    on_ = true;
    model_ = nullptr;
    left_ = passes;
    stands_ = false;
  }
  void Release() {
    std::lock_guard<std::mutex> lock(mutex_);
    on_ = false;
  }
  // Waits until a pass is stopped.
  void AwaitStop() {
    while (!stands_) absl::SleepFor(absl::Milliseconds(1));
  }
  // Returns whether a new pass of the model must stop.
  bool Stops(const Model& model) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!on_) return false;
    if (model_ == nullptr) model_ = &model;
    return model_ == &model && left_-- <= 0;
  }
  // For a stopped pass: returns whether it must still wait.
  bool Stand() {
    std::lock_guard<std::mutex> lock(mutex_);
    stands_ = on_;
    return on_;
  }

 private:
  std::mutex mutex_;
  bool on_ = false;
  const Model* model_ = nullptr;
  int left_ = 0;
  std::atomic<bool> stands_ = false;
};

// A stopped pass's steps do nothing: the scheduler lets others run meanwhile.
class BrakeDevice : public EngineDevice {
 public:
  explicit BrakeDevice(std::shared_ptr<Brake> brake)
      : brake_(std::move(brake)) {}
  std::unique_ptr<DevicePass> StartPass(
      const Model& model, absl::Span<Sequence* const> sequences) override {
    return std::make_unique<BrakePass>(
        EngineDevice::StartPass(model, sequences),
        brake_->Stops(model) ? brake_ : nullptr);
  }

 private:
  class BrakePass : public DevicePass {
   public:
    BrakePass(std::unique_ptr<DevicePass> pass, std::shared_ptr<Brake> brake)
        : pass_(std::move(pass)), brake_(std::move(brake)) {}
    void RunStep() override {
      if (brake_ != nullptr && brake_->Stand()) {
        absl::SleepFor(absl::Milliseconds(1));
        return;
      }
      pass_->RunStep();
    }
    void DropCancelled() override { pass_->DropCancelled(); }
    bool done() const override { return pass_->done(); }
    absl::Status Finish() override { return pass_->Finish(); }
    double Seconds() override { return pass_->Seconds(); }

   private:
    std::unique_ptr<DevicePass> pass_;
    const std::shared_ptr<Brake> brake_;  // nullptr: goes through
  };

  const std::shared_ptr<Brake> brake_;
};

struct Load {
  std::vector<pb::LoadModelEvent> events;
  grpc::Status status;
};

// Returns the bytes that a request streams.
std::vector<std::string> Content(const Analysis& analysis) {
  std::vector<std::string> out;
  for (const pb::AnalyzeEvent& event : analysis.events) {
    if (event.has_layer()) out.push_back(event.layer().data());
    if (event.has_token()) out.push_back(std::to_string(event.token().id()));
  }
  return out;
}

class AdminTest : public ServerTest {
 protected:
  void SetUp() override {
    CopyModel("tiny_llama_gqa", "gqa");
    CopyModel("tiny_llama_tied", "tied");
    CopyModel("tiny_qwen2", "qwen");
  }
  void TearDown() override {
    brake_->Release();
    server_.reset();
  }

  void CopyModel(const std::string& golden, const std::string& name) {
    fs::create_directories(top_ / "root" / name);
    for (const char* file : {"config.json", "model.safetensors"}) {
      fs::copy_file(fs::path(GoldenModel(golden)) / file,
                    top_ / "root" / name / file);
    }
  }

  ServerOptions Options() {
    ServerOptions options = TinyOptions();
    options.access.users = {Entry("ada", UserRole::kUser),
                            Entry("root", UserRole::kOperator)};
    options.model_admin.enabled = true;
    options.model_admin.root = top_ / "root";
    return options;
  }
  void Start(const ServerOptions& options) {
    StartServer(options, std::make_unique<BrakeDevice>(brake_));
    ASSERT_TRUE(server_->LoadModels().ok());
    admin_ = pb::ModelAdmin::NewStub(channel_);
  }

  Load LoadModel(const std::string& request, const std::string& user = "root") {
    auto context = As(user);
    Load out;
    const auto reader =
        admin_->LoadModel(context.get(), Parse<pb::LoadModelRequest>(request));
    pb::LoadModelEvent event;
    while (reader->Read(&event)) out.events.push_back(event);
    out.status = reader->Finish();
    return out;
  }
  void MustLoad(const std::string& request) {
    const Load load = LoadModel(request);
    ASSERT_TRUE(load.status.ok()) << load.status.error_message();
    ASSERT_FALSE(load.events.empty());
    EXPECT_EQ(load.events.back().model().state(), pb::ModelInfo::READY);
  }
  StatusCode CodeOfLoad(const std::string& request) {
    const Load load = LoadModel(request);
    for (const pb::LoadModelEvent& event : load.events) {
      EXPECT_FALSE(event.has_model() && !load.status.ok());
    }
    return load.status.error_code();
  }
  grpc::Status Unload(const std::string& name,
                      const std::string& user = "root") {
    auto context = As(user);
    pb::UnloadModelRequest request;
    request.set_name(name);
    pb::UnloadModelResponse response;
    return admin_->UnloadModel(context.get(), request, &response);
  }
  Analysis Run(const std::string& model, const std::string& rest = "") {
    auto context = As("ada");
    return Read(stub_
                    ->Analyze(context.get(),
                              Parse<pb::AnalyzeRequest>(
                                  "model: '" + model + "' " + Tokens(5) + rest))
                    .get());
  }
  // Maps each name to its state, as a user sees it.
  std::map<std::string, pb::ModelInfo::State> States() {
    auto context = As("ada");
    pb::ListModelsResponse response;
    EXPECT_TRUE(stub_->ListModels(context.get(), {}, &response).ok());
    std::map<std::string, pb::ModelInfo::State> out;
    for (const pb::ModelInfo& model : response.models()) {
      out[model.name()] = model.state();
    }
    return out;
  }
  bool Serving(const std::string& service) {
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    grpc::health::v1::HealthCheckResponse response;
    auto context = As("ada");
    const auto stub = grpc::health::v1::Health::NewStub(channel_);
    return stub->Check(context.get(), request, &response).ok() &&
           response.status() == grpc::health::v1::HealthCheckResponse::SERVING;
  }
  std::string Metrics() {
    return prometheus::TextSerializer().Serialize(server_->CollectMetrics());
  }

  const testing::TempFolder folder_;
  const fs::path top_ = folder_.path();
  const std::shared_ptr<Brake> brake_ = std::make_shared<Brake>();
  std::unique_ptr<pb::ModelAdmin::Stub> admin_;
};

// A watcher hears of loads and unloads; one who may not use the model does not.
TEST_F(AdminTest, S16_HealthIsWatched) {
  using Response = grpc::health::v1::HealthCheckResponse;
  ServerOptions options = Options();
  UserEntry bob = Entry("bob", UserRole::kUser);
  bob.user.allowed_models = {"tiny"};
  options.access.users.push_back(bob);
  Start(options);
  const auto stub = grpc::health::v1::Health::NewStub(channel_);
  grpc::health::v1::HealthCheckRequest request;
  request.set_service("a");
  auto adas = As("ada");
  auto bobs = As("bob");
  const auto ada = stub->Watch(adas.get(), request);
  const auto bob_sees = stub->Watch(bobs.get(), request);
  Response response;
  const auto next = [&](auto& reader) {
    return reader->Read(&response) ? response.status() : Response::UNKNOWN;
  };
  EXPECT_EQ(next(ada), Response::SERVICE_UNKNOWN);
  EXPECT_EQ(next(bob_sees), Response::SERVICE_UNKNOWN);
  ASSERT_TRUE(LoadModel("name: 'a' path: 'gqa'").status.ok());
  EXPECT_EQ(next(ada), Response::SERVING);
  EXPECT_TRUE(Serving("a"));
  ASSERT_TRUE(Unload("a").ok());
  EXPECT_EQ(next(ada), Response::NOT_SERVING);
  adas->TryCancel();
  EXPECT_FALSE(ada->Read(&response));
  EXPECT_EQ(ada->Finish().error_code(), StatusCode::CANCELLED);
  // Bob has heard nothing of it up to the end of the server.
  server_->BeginDrain();
  server_->Stop();
  EXPECT_FALSE(bob_sees->Read(&response)) << response.status();
}

TEST_F(AdminTest, S12_IsOffUnlessAskedFor) {
  ServerOptions options = Options();
  options.model_admin = {};
  Start(options);
  auto context = As("root");
  pb::ReloadConfigResponse reloaded;
  for (const grpc::Status& status :
       {LoadModel("name: 'a' path: 'gqa'").status, Unload("tiny"),
        admin_->ReloadConfig(context.get(), {}, &reloaded)}) {
    EXPECT_EQ(status.error_code(), StatusCode::FAILED_PRECONDITION);
    EXPECT_EQ(status.error_message(),
              "ModelAdmin is off (model_admin in the config)");
  }
  EXPECT_EQ(LoadModel("name: 'a' path: 'gqa'", "ada").status.error_code(),
            StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(Run("tiny").status.ok());
}

TEST_F(AdminTest, S12_NeedsUsersAndARoot) {
  ServerOptions options = Options();
  options.access.users.clear();
  EXPECT_THAT(std::string(Server::Create(options, &log_).status().message()),
              ::testing::HasSubstr("model_admin: needs users"));
  options = Options();
  options.model_admin.root = top_ / "none";
  EXPECT_THAT(std::string(Server::Create(options, &log_).status().message()),
              ::testing::HasSubstr("model_admin.root: "));
}

TEST_F(AdminTest, LoadsServesAndUnloads) {
  Start(Options());
  EXPECT_EQ(Run("new").status.error_code(), StatusCode::NOT_FOUND);
  const Load load = LoadModel("name: 'new' path: 'tied' compute: 'bf16'");
  ASSERT_TRUE(load.status.ok()) << load.status.error_message();
  int phase = 0;
  for (size_t i = 0; i + 1 < load.events.size(); ++i) {
    const pb::LoadProgress& progress = load.events[i].progress();
    EXPECT_GE(progress.phase(), phase);
    phase = progress.phase();
    EXPECT_LE(progress.bytes_read(), progress.bytes_total());
  }
  EXPECT_EQ(phase, pb::LoadProgress::WARMING_UP);
  const pb::ModelInfo& model = load.events.back().model();
  EXPECT_EQ(model.name(), "new");
  EXPECT_EQ(model.state(), pb::ModelInfo::READY);
  EXPECT_EQ(model.compute_type(), "bf16");
  EXPECT_TRUE(Run("new").status.ok());
  EXPECT_TRUE(Serving("new"));
  EXPECT_THAT(Metrics(), ::testing::HasSubstr("model_ready{model=\"new\"} 1"));
  // The sum is the first pass's one row and the request's five.
  EXPECT_THAT(Metrics(), ::testing::HasSubstr("qkscope_pass_rows_sum 6\n"));

  EXPECT_TRUE(Unload("new").ok());
  EXPECT_EQ(Run("new").status.error_code(), StatusCode::NOT_FOUND);
  EXPECT_FALSE(Serving("new"));
  EXPECT_TRUE(Serving(""));
  EXPECT_EQ(States().count("new"), 0u);
  EXPECT_THAT(Metrics(), ::testing::HasSubstr("model_ready{model=\"new\"} 0"));
  EXPECT_EQ(Unload("new").error_code(), StatusCode::NOT_FOUND);
  // Models of the configuration behave like others.
  EXPECT_TRUE(Unload("tiny").ok());
  EXPECT_TRUE(States().empty());
  MustLoad("name: 'tiny' path: 'gqa'");
  EXPECT_TRUE(Run("tiny").status.ok());
}

TEST_F(AdminTest, SaysWhyAModelIsNotLoaded) {
  Start(Options());
  const auto code = [this](const std::string& rest) {
    return CodeOfLoad("name: 'a' " + rest);
  };
  EXPECT_EQ(code("path: '../root/gqa'"), StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(code("path: '" + GoldenModel("tiny_llama_gqa") + "'"),
            StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(code("path: 'none'"), StatusCode::NOT_FOUND);
  EXPECT_EQ(code("path: ''"), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(code("path: 'gqa' compute: 'f16'"), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(code("path: 'gqa' sha256: 'ff'"), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(CodeOfLoad("name: 'a/b' path: 'gqa'"),
            StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(CodeOfLoad("name: 'tiny' path: 'gqa'"), StatusCode::ALREADY_EXISTS);
  fs::create_directory_symlink(GoldenModel("tiny_llama_gqa"),
                               top_ / "root/link");
  EXPECT_EQ(code("path: 'link'"), StatusCode::PERMISSION_DENIED);
  std::ofstream(top_ / "root/bad.gguf") << "GGUF" << std::string(60, '\0');
  EXPECT_EQ(code("path: 'bad.gguf'"), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(States().count("a"), 0u);

  const Load wrong =
      LoadModel("name: 'a' path: 'gqa' sha256: '" + std::string(64, '0') + "'");
  EXPECT_EQ(wrong.status.error_code(), StatusCode::DATA_LOSS);
  EXPECT_THAT(wrong.status.error_message(),
              ::testing::Not(::testing::HasSubstr("/")));
  EXPECT_EQ(States()["a"], pb::ModelInfo::FAILED);
  EXPECT_EQ(Run("a").status.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_TRUE(Unload("a").ok());
  EXPECT_EQ(States().count("a"), 0u);
  MustLoad("name: 'a' path: 'gqa'");
}

TEST_F(AdminTest, AReplacedModelServesTheRequestsThatHaveIt) {
  Start(Options());
  MustLoad("name: 'old' path: 'gqa'");
  MustLoad("name: 'new' path: 'tied'");
  const std::string rest = " generate {max_new_tokens: 200}";
  const Analysis old = Run("old", rest), other = Run("new", rest);
  ASSERT_NE(old.finished(), nullptr);
  ASSERT_NE(Content(old), Content(other));
  brake_->StopNextAfter(5);
  Analysis during;
  std::atomic<bool> ended = false;
  auto context = As("ada");
  const auto reader = stub_->Analyze(
      context.get(),
      Parse<pb::AnalyzeRequest>("model: 'old' " + Tokens(5) + rest));
  pb::AnalyzeEvent event;
  while (reader->Read(&event)) {
    during.events.push_back(event);
    if (event.has_token()) break;
  }
  brake_->AwaitStop();
  std::thread rest_of_it([&] {
    while (reader->Read(&event)) during.events.push_back(event);
    during.status = reader->Finish();
    ended = true;
  });
  MustLoad("name: 'old' path: 'tied' replace: true");
  EXPECT_FALSE(ended);
  brake_->Release();
  const Analysis after = Run("old", rest);
  rest_of_it.join();
  ASSERT_TRUE(during.status.ok()) << during.status.error_message();
  EXPECT_EQ(Content(during), Content(old));
  EXPECT_EQ(Content(after), Content(other));
}

TEST_F(AdminTest, ABrokenReplacementLeavesTheOldModel) {
  Start(Options());
  const Analysis before = Run("tiny");
  const fs::path weights = top_ / "root/tied/model.safetensors";
  fs::resize_file(weights, fs::file_size(weights) - 100);
  EXPECT_EQ(CodeOfLoad("name: 'tiny' path: 'tied' replace: true"),
            StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(CodeOfLoad("name: 'tiny' path: 'qwen' replace: true sha256: '" +
                       std::string(64, '0') + "'"),
            StatusCode::DATA_LOSS);
  EXPECT_EQ(States()["tiny"], pb::ModelInfo::READY);
  EXPECT_TRUE(Serving("tiny"));
  EXPECT_EQ(Content(Run("tiny")), Content(before));
}

TEST_F(AdminTest, UnloadingWaitsForTheLastRequest) {
  Start(Options());
  const std::string rest = " generate {max_new_tokens: 200}";
  const Analysis whole = Run("tiny", rest);
  brake_->StopNextAfter(5);
  auto context = As("ada");
  const auto reader = stub_->Analyze(
      context.get(),
      Parse<pb::AnalyzeRequest>("model: 'tiny' " + Tokens(5) + rest));
  Analysis during;
  pb::AnalyzeEvent event;
  ASSERT_TRUE(reader->Read(&event));
  brake_->AwaitStop();
  during.events.push_back(event);
  std::atomic<bool> unloaded = false;
  std::thread unload([&] {
    const grpc::Status status = Unload("tiny");
    EXPECT_TRUE(status.ok()) << status.error_message();
    unloaded = true;
  });
  while (States()["tiny"] == pb::ModelInfo::READY) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_FALSE(unloaded);
  EXPECT_EQ(States()["tiny"], pb::ModelInfo::UNLOADING);
  EXPECT_FALSE(Serving("tiny"));
  EXPECT_EQ(Run("tiny").status.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(Unload("tiny").error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(CodeOfLoad("name: 'tiny' path: 'gqa' replace: true"),
            StatusCode::FAILED_PRECONDITION);
  brake_->Release();
  while (reader->Read(&event)) during.events.push_back(event);
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(Content(during), Content(whole));
  unload.join();
  EXPECT_EQ(States().count("tiny"), 0u);
  MustLoad("name: 'tiny' path: 'gqa'");
}

TEST_F(AdminTest, ACancelledLastRequestFreesTheModel) {
  Start(Options());
  brake_->StopNextAfter(5);
  auto context = As("ada");
  const auto reader = stub_->Analyze(
      context.get(),
      Parse<pb::AnalyzeRequest>("model: 'tiny' " + Tokens(5) +
                                " generate {max_new_tokens: 200}"));
  pb::AnalyzeEvent event;
  ASSERT_TRUE(reader->Read(&event));
  brake_->AwaitStop();
  std::thread unload([&] { EXPECT_TRUE(Unload("tiny").ok()); });
  while (States()["tiny"] == pb::ModelInfo::READY) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  context->TryCancel();
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  unload.join();
  EXPECT_EQ(States().count("tiny"), 0u);
}

TEST_F(AdminTest, TheLeastRecentlyUsedIdleModelMakesRoom) {
  ServerOptions options = Options();
  options.model_admin.eviction = Eviction::kLru;
  options.model_admin.max_models = 2;
  Start(options);
  MustLoad("name: 'b' path: 'tied'");
  ASSERT_TRUE(Run("tiny").status.ok());
  const Load load = LoadModel("name: 'c' path: 'qwen'");
  ASSERT_TRUE(load.status.ok()) << load.status.error_message();
  ASSERT_GE(load.events.size(), 2u);
  const pb::LoadProgress& progress =
      load.events[load.events.size() - 2].progress();
  EXPECT_THAT(progress.evicted(), ::testing::ElementsAre("b"));
  EXPECT_EQ(States().count("b"), 0u);
  EXPECT_FALSE(Serving("b"));
  // Replacing needs no room, and a model in use is not evicted.
  MustLoad("name: 'c' path: 'tied' replace: true");
  brake_->StopNextAfter(5);
  auto context = As("ada");
  const auto reader = stub_->Analyze(
      context.get(),
      Parse<pb::AnalyzeRequest>("model: 'tiny' " + Tokens(5) +
                                " generate {max_new_tokens: 200}"));
  pb::AnalyzeEvent event;
  ASSERT_TRUE(reader->Read(&event));
  brake_->AwaitStop();
  MustLoad("name: 'd' path: 'qwen'");
  EXPECT_EQ(States().count("tiny"), 1u);
  EXPECT_EQ(States().count("c"), 0u);
  brake_->Release();
  while (reader->Read(&event)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(AdminTest, WithoutEvictionALoadOverALimitIsRefused) {
  for (const Eviction eviction : {Eviction::kNever, Eviction::kManual}) {
    ServerOptions options = Options();
    options.model_admin.eviction = eviction;
    options.model_admin.max_models = 1;
    Start(options);
    const Load load = LoadModel("name: 'b' path: 'tied'");
    EXPECT_EQ(load.status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_THAT(load.status.error_message(),
                ::testing::MatchesRegex(
                    "max_models is 1; unload one of: 'tiny' \\(.*, idle\\)"));
    EXPECT_EQ(States().size(), 1u);
    ASSERT_TRUE(Unload("tiny").ok());
    MustLoad("name: 'b' path: 'tied'");
  }
  ServerOptions options = Options();
  options.model_admin.max_bytes = 1000;
  Start(options);
  const Load load = LoadModel("name: 'b' path: 'tied'");
  EXPECT_EQ(load.status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(load.status.error_message(), ::testing::HasSubstr("max_bytes"));
}

TEST_F(AdminTest, S12_OnlyAllowedWeightsAreServed) {
  ServerOptions options = Options();
  Start(options);
  MustLoad("name: 'a' path: 'tied'");
  auto context = As("root");
  pb::GetModelRequest request;
  request.set_model("a");
  pb::ModelInfo model;
  ASSERT_TRUE(stub_->GetModel(context.get(), request, &model).ok());
  server_.reset();
  options.model_admin.allowed_sha256 = {model.weights_sha256()};
  Start(options);
  MustLoad("name: 'a' path: 'tied'");
  EXPECT_EQ(CodeOfLoad("name: 'b' path: 'qwen'"),
            StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(CodeOfLoad("name: 'c' path: 'qwen' sha256: '" +
                       std::string(64, '0') + "'"),
            StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(Run("b").status.error_code(), StatusCode::FAILED_PRECONDITION);
}

TEST_F(AdminTest, ALoadGoesOnWithoutItsClient) {
  Start(Options());
  auto context = As("root");
  const auto reader = admin_->LoadModel(
      context.get(), Parse<pb::LoadModelRequest>("name: 'a' path: 'tied'"));
  pb::LoadModelEvent event;
  ASSERT_TRUE(reader->Read(&event));
  context->TryCancel();
  reader->Finish();
  const absl::Time give_up = absl::Now() + absl::Seconds(300);
  while (!Run("a").status.ok() && absl::Now() < give_up) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  EXPECT_TRUE(Run("a").status.ok());
}

// Everything happens at once; whatever a request gets comes from one model.
TEST_F(AdminTest, RequestsNeverSeeTwoModels) {
  Start(Options());
  const std::string rest = " generate {max_new_tokens: 12}";
  MustLoad("name: 'x' path: 'gqa'");
  const auto first = Content(Run("x", rest));
  MustLoad("name: 'x' path: 'tied' replace: true");
  const auto second = Content(Run("x", rest));
  ASSERT_NE(first, second);
  std::atomic<bool> over = false;
  std::atomic<int> served = 0;
  std::vector<std::thread> users;
  for (int u = 0; u < 3; ++u) {
    users.emplace_back([&, u] {
      for (int i = 0; !over; ++i) {
        if (i % 4 == u) {  // some clients leave early
          auto context = As("ada");
          const auto reader = stub_->Analyze(
              context.get(),
              Parse<pb::AnalyzeRequest>("model: 'x' " + Tokens(5) + rest));
          pb::AnalyzeEvent event;
          reader->Read(&event);
          context->TryCancel();
          reader->Finish();
          continue;
        }
        const Analysis got = Run("x", rest);
        if (!got.status.ok()) {
          const StatusCode code = got.status.error_code();
          EXPECT_TRUE(code == StatusCode::NOT_FOUND ||
                      code == StatusCode::UNAVAILABLE)
              << got.status.error_message();
          continue;
        }
        const auto content = Content(got);
        EXPECT_TRUE(content == first || content == second);
        ++served;
      }
    });
  }
  for (int i = 0; i < 15; ++i) {
    MustLoad("name: 'x' replace: true path: '" +
             std::string(i % 2 == 0 ? "gqa" : "tied") + "'");
    if (i % 3 == 2) {
      EXPECT_TRUE(Unload("x").ok());
      MustLoad("name: 'x' path: 'gqa'");
    }
  }
  const absl::Time give_up = absl::Now() + absl::Seconds(300);
  while (served < 10 && absl::Now() < give_up) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  over = true;
  for (std::thread& user : users) user.join();
  EXPECT_GE(served, 10);
}

TEST_F(AdminTest, ReloadConfigSaysWhatChanged) {
  ServerOptions options = Options();
  const fs::path file = top_ / "users.conf";
  const auto write = [&](const std::string& aliases) {
    std::ofstream out(file);
    for (char alias : aliases) {
      out << "users {alias: '" << alias << "' token_sha256: '"
          << Sha(std::string(1, alias)) << "'}\n";
    }
  };
  write("x");
  options.access.users_file = file;
  Start(options);
  const auto reload = [&] {
    auto context = As("root");
    pb::ReloadConfigResponse response;
    EXPECT_TRUE(admin_->ReloadConfig(context.get(), {}, &response).ok());
    EXPECT_EQ(response.parts_size(), 1);
    EXPECT_EQ(response.parts(0).name(), "users");
    return response.parts(0);
  };
  EXPECT_FALSE(reload().changed());
  std::ofstream(file) << "users {alias: ";
  EXPECT_THAT(reload().failure(), ::testing::HasSubstr("users.conf"));
  EXPECT_EQ(reload().text(), "3 users");
}

}  // namespace
}  // namespace qk
