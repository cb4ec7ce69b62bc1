// Tests requests that outlive their streams, and who may see and end them.
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "tests/server/await.h"
#include "tests/server/gated_device.h"
#include "tests/server/observe/metric_samples.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

namespace fs = std::filesystem;
using grpc::StatusCode;
using testing::Analysis;
using testing::Parse;
using testing::ServerTest;
using testing::Tokens;

UserEntry Entry(const std::string& alias, UserRole role) {
  return testing::UserWithToken(alias, role, alias);
}

class RequestsTest : public ServerTest {
 protected:
  void SetUp() override { gate_->Open(); }
  void TearDown() override {
    gate_->Open();
    server_.reset();
  }

  void Start(const std::string& replica = "") {
    ServerOptions options = TinyOptions();
    options.replica = replica;
    options.spool.emplace();
    options.spool->directory = root_ / "spool";
    options.access.users = {Entry("ada", UserRole::kUser),
                            Entry("bob", UserRole::kUser),
                            Entry("root", UserRole::kOperator)};
    options.access.users[0].user.budget.max_in_flight = 3;
    options.access.users[1].user.budget.max_kept_results = 2;
    options.spool->most_per_user.results = 50;
    StartServer(options, std::make_unique<testing::GatedDevice>(gate_));
    ASSERT_TRUE(server_->LoadModels().ok());
  }

  Analysis GetResult(const std::string& user, const std::string& id,
                     int64_t from_seq = 0) {
    auto context = As(user);
    pb::GetResultRequest request;
    request.set_request_id(id);
    request.set_from_seq(from_seq);
    return Read(stub_->GetResult(context.get(), request).get());
  }
  grpc::Status Cancel(const std::string& user, const std::string& id,
                      bool* was_running) {
    auto context = As(user);
    pb::CancelRequest request;
    request.set_request_id(id);
    pb::CancelResponse response;
    const grpc::Status status =
        stub_->Cancel(context.get(), request, &response);
    *was_running = response.was_running();
    return status;
  }
  std::vector<pb::ListedRequest> List(const std::string& user,
                                      bool all_users = false) {
    auto context = As(user);
    pb::ListRequestsRequest request;
    request.set_all_users(all_users);
    pb::ListRequestsResponse response;
    EXPECT_TRUE(stub_->ListRequests(context.get(), request, &response).ok());
    return {response.requests().begin(), response.requests().end()};
  }
  // A request that takes many passes.
  static std::string Long() {
    return "model: 'tiny' " + Tokens(4) +
           " generate {max_new_tokens: 250} capture {off: true}";
  }

  const testing::TempFolder folder_;
  const fs::path root_ = folder_.path();
  const std::shared_ptr<testing::Gate> gate_ =
      std::make_shared<testing::Gate>();
};

// Returns the layer payloads in order.
std::vector<std::string> Payloads(const Analysis& analysis) {
  std::vector<std::string> out;
  for (const pb::Layer* layer : analysis.layers()) out.push_back(layer->data());
  return out;
}

constexpr char kTwoArms[] =
    " arms {name: 'clean'} arms {name: 'top' disruptions {top_k {k: 1}}}"
    " compare {}";

TEST_F(RequestsTest, ADetachedRequestIsFetchedLater) {
  Start();
  const std::string request = "model: 'tiny' " + Tokens(9) + kTwoArms;
  const Analysis direct = AnalyzeAs("ada", request);
  ASSERT_TRUE(direct.status.ok()) << direct.status.error_message();
  const Analysis detached = AnalyzeAs("ada", request + " detach: true");
  ASSERT_TRUE(detached.status.ok()) << detached.status.error_message();
  ASSERT_EQ(detached.events.size(), 1u);
  const std::string id = detached.events[0].accepted().request_id();
  const Analysis fetched = GetResult("ada", id);
  ASSERT_TRUE(fetched.status.ok()) << fetched.status.error_message();
  ASSERT_NE(fetched.finished(), nullptr);
  EXPECT_FALSE(Payloads(direct).empty());
  EXPECT_EQ(Payloads(fetched), Payloads(direct));
  for (size_t i = 0; i < fetched.events.size(); ++i) {
    EXPECT_EQ(fetched.events[i].seq(), static_cast<int64_t>(i));
  }
  // A client may start at any event, including the last and one past it.
  const Analysis rest = GetResult("ada", id, 5);
  ASSERT_EQ(rest.events.size() + 5, fetched.events.size());
  EXPECT_EQ(rest.events[0].SerializeAsString(),
            fetched.events[5].SerializeAsString());
  const int64_t events = static_cast<int64_t>(fetched.events.size());
  EXPECT_TRUE(GetResult("ada", id, events).status.ok());
  EXPECT_EQ(GetResult("ada", id, events + 1).status.error_code(),
            StatusCode::OUT_OF_RANGE);
  EXPECT_EQ(GetResult("ada", id, -1).status.error_code(),
            StatusCode::INVALID_ARGUMENT);
}

TEST_F(RequestsTest, OthersSeeNothingOfIt) {
  Start();
  const Analysis detached =
      AnalyzeAs("ada", "model: 'tiny' " + Tokens(3) + " detach: true");
  ASSERT_EQ(detached.events.size(), 1u);
  const std::string id = detached.events[0].accepted().request_id();
  ASSERT_TRUE(GetResult("ada", id).status.ok());
  const Analysis unknown = GetResult("ada", "0123456789abcdef");
  EXPECT_EQ(unknown.status.error_code(), StatusCode::NOT_FOUND);
  for (const char* other : {"bob", "root"}) {
    const Analysis theirs = GetResult(other, id);
    EXPECT_EQ(theirs.status.error_code(), StatusCode::NOT_FOUND);
    EXPECT_EQ(theirs.status.error_message(), unknown.status.error_message());
  }
  bool was_running = true;
  EXPECT_EQ(Cancel("bob", id, &was_running).error_code(),
            StatusCode::NOT_FOUND);
  EXPECT_TRUE(List("bob").empty());
  // The scheduler lists the request as well until its run is gone, which is
  // after the last event.
  EXPECT_TRUE(testing::Await([&] { return List("ada").size() == 1; },
                             absl::Minutes(5)));
  EXPECT_EQ(List("ada")[0].state(), pb::ListedRequest::FINISHED);
  EXPECT_EQ(List("ada")[0].code(), 0);
  EXPECT_EQ(List("root", true).size(), 1u);
  auto context = As("bob");
  pb::ListRequestsRequest everybody;
  everybody.set_all_users(true);
  pb::ListRequestsResponse response;
  EXPECT_EQ(
      stub_->ListRequests(context.get(), everybody, &response).error_code(),
      StatusCode::PERMISSION_DENIED);
  // The owner may drop the result.
  ASSERT_TRUE(Cancel("ada", id, &was_running).ok());
  EXPECT_FALSE(was_running);
  EXPECT_EQ(GetResult("ada", id).status.error_code(), StatusCode::NOT_FOUND);
}

TEST_F(RequestsTest, ABrokenStreamIsTakenUpAgain) {
  Start();
  const std::string request =
      "model: 'tiny' " + Tokens(9) + " generate {max_new_tokens: 100}";
  const Analysis direct = AnalyzeAs("ada", request);
  // The stream breaks while the request continues: the device is held after the
  // first few passes.
  gate_->Shut();
  gate_->LetThroughMore(3);
  std::string id;
  std::vector<pb::AnalyzeEvent> events;
  {
    auto context = As("ada");
    auto reader = stub_->Analyze(
        context.get(), Parse<pb::AnalyzeRequest>(request + " resumable: true"));
    pb::AnalyzeEvent event;
    ASSERT_TRUE(reader->Read(&event));
    id = event.accepted().request_id();
    while (events.size() < 4 && reader->Read(&event)) events.push_back(event);
    context->TryCancel();
    EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  }
  EXPECT_EQ(events.size(), 4u);
  gate_->Open();
  const Analysis rest =
      GetResult("ada", id, static_cast<int64_t>(events.size()));
  ASSERT_TRUE(rest.status.ok()) << rest.status.error_message();
  Analysis both;
  both.events = events;
  both.events.insert(both.events.end(), rest.events.begin(), rest.events.end());
  EXPECT_EQ(Payloads(direct).size(), 6u);
  EXPECT_EQ(Payloads(both), Payloads(direct));
  ASSERT_NE(both.finished(), nullptr);
  EXPECT_EQ(both.finished()->arms(0).generated_tokens(), 100);
  for (size_t i = 0; i < both.events.size(); ++i) {
    EXPECT_EQ(both.events[i].seq(), static_cast<int64_t>(i));
  }
}

TEST_F(RequestsTest, CancelEndsOwnRequestsAndAnOperatorsAny) {
  Start();
  gate_->Shut();
  for (const char* by : {"ada", "root"}) {
    const Analysis detached = AnalyzeAs("ada", Long() + " detach: true");
    ASSERT_EQ(detached.events.size(), 1u) << detached.status.error_message();
    const std::string id = detached.events[0].accepted().request_id();
    bool was_running = false;
    EXPECT_EQ(Cancel("bob", id, &was_running).error_code(),
              StatusCode::NOT_FOUND);
    ASSERT_TRUE(Cancel(by, id, &was_running).ok());
    EXPECT_TRUE(was_running);
    EXPECT_EQ(GetResult("ada", id).status.error_code(), StatusCode::NOT_FOUND);
  }
  // This also works for a plain stream.
  auto context = As("ada");
  auto reader =
      stub_->Analyze(context.get(), Parse<pb::AnalyzeRequest>(Long()));
  pb::AnalyzeEvent event;
  ASSERT_TRUE(reader->Read(&event));
  bool was_running = false;
  const std::string id = event.accepted().request_id();
  EXPECT_TRUE(Cancel("ada", id, &was_running).ok());
  EXPECT_TRUE(was_running);
  while (reader->Read(&event)) {
  }
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), StatusCode::CANCELLED);
  EXPECT_EQ(status.error_message(), "cancelled by ada");
}

TEST_F(RequestsTest, UsageAndQuota) {
  Start();
  ASSERT_TRUE(AnalyzeAs("ada", "model: 'tiny' " + Tokens(9)).status.ok());
  auto context = As("ada");
  pb::GetUsageResponse usage;
  ASSERT_TRUE(server_->WaitUntilIdle(absl::InfiniteFuture()));
  ASSERT_TRUE(stub_->GetUsage(context.get(), {}, &usage).ok());
  ASSERT_EQ(usage.users_size(), 1);
  EXPECT_EQ(usage.users(0).user(), "ada");
  // The host's work is charged, too.
  EXPECT_GT(usage.users(0).host_ms(), 0);
  EXPECT_GT(usage.users(0).device_ms(), usage.users(0).host_ms());
  EXPECT_GT(usage.users(0).streamed_bytes(), 1000);
  EXPECT_EQ(usage.users(0).max_requests_in_flight(), 3);
  EXPECT_FALSE(usage.users(0).has_device_ms_budget());
  auto operators = As("root");
  pb::GetUsageRequest everybody;
  everybody.set_all_users(true);
  ASSERT_TRUE(stub_->GetUsage(operators.get(), everybody, &usage).ok());
  EXPECT_EQ(usage.users_size(), 2);  // ada has sent a request, bob has not
  EXPECT_EQ(usage.users(0).user(), "root");
  auto users = As("bob");
  EXPECT_EQ(stub_->GetUsage(users.get(), everybody, &usage).error_code(),
            StatusCode::PERMISSION_DENIED);
}

TEST_F(RequestsTest, R22_UsageShowsWhatIsKeptAndARefusalNamesTheLimit) {
  Start();
  const auto usage_of = [&](const std::string& user) {
    auto context = As(user);
    pb::GetUsageRequest request;
    request.set_all_users(user == "root");
    pb::GetUsageResponse usage;
    EXPECT_TRUE(stub_->GetUsage(context.get(), request, &usage).ok());
    return usage;
  };
  const std::string request = "model: 'tiny' " + Tokens(3) + " detach: true";
  std::vector<std::string> ids;
  for (int i = 0; i < 2; ++i) {
    const Analysis out = AnalyzeAs("bob", request);
    ASSERT_EQ(out.events.size(), 1u) << out.status.error_message();
    ids.push_back(out.events[0].accepted().request_id());
    ASSERT_TRUE(GetResult("bob", ids.back()).status.ok());
  }
  // One that is resumable, or still runs, would count, too.
  for (const char* how : {" detach: true", " resumable: true"}) {
    const Analysis refused =
        AnalyzeAs("bob", "model: 'tiny' " + Tokens(3) + how);
    EXPECT_EQ(refused.status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_THAT(refused.status.error_message(),
                ::testing::MatchesRegex(
                    "spool: you keep 2 results, limit 2; cancel old requests, "
                    "or retry in 3[0-9]+ s"));
  }
  EXPECT_TRUE(AnalyzeAs("bob", "model: 'tiny' " + Tokens(3)).status.ok());
  const Analysis adas = AnalyzeAs("ada", request);
  ASSERT_EQ(adas.events.size(), 1u);
  EXPECT_TRUE(
      GetResult("ada", adas.events[0].accepted().request_id()).status.ok());
  const pb::UserUsage bob = usage_of("bob").users(0);
  EXPECT_EQ(bob.kept_results(), 2);
  EXPECT_GT(bob.kept_bytes(), 1000);
  EXPECT_EQ(bob.max_kept_results(), 2);
  EXPECT_EQ(bob.max_kept_bytes(), int64_t{4} << 30);
  // A new server, which nobody has called yet, knows it as well.
  server_.reset();
  Start();
  std::map<std::string, pb::UserUsage> all;
  const pb::GetUsageResponse everybodys = usage_of("root");
  for (const pb::UserUsage& user : everybodys.users()) all[user.user()] = user;
  EXPECT_EQ(all.at("bob").kept_results(), 2);
  EXPECT_EQ(all.at("bob").max_kept_results(), 2);
  EXPECT_EQ(all.at("ada").kept_results(), 1);
  EXPECT_EQ(all.at("ada").max_kept_results(), 50);
  EXPECT_EQ(all.at("ada").max_requests_in_flight(), 3);
  EXPECT_EQ(all.at("root").kept_results(), 0);
  const testing::Samples samples = testing::SamplesOf(*server_);
  EXPECT_EQ(samples.at("qkscope_kept_results"), 3);
  EXPECT_EQ(samples.at("qkscope_kept_bytes"),
            all.at("bob").kept_bytes() + all.at("ada").kept_bytes());
  bool was_running = true;
  EXPECT_TRUE(Cancel("bob", ids[0], &was_running).ok());
  EXPECT_FALSE(was_running);
  EXPECT_TRUE(AnalyzeAs("bob", request).status.ok());
}

TEST_F(RequestsTest, R34_UsageAndTheMetricCountTheSameBytes) {
  Start();
  const std::string tiny = "model: 'tiny' " + Tokens(5);
  EXPECT_TRUE(AnalyzeAs("ada", tiny).status.ok());
  const Analysis kept = AnalyzeAs("bob", tiny + " detach: true");
  ASSERT_EQ(kept.events.size(), 1u);
  EXPECT_TRUE(
      GetResult("bob", kept.events[0].accepted().request_id()).status.ok());
  EXPECT_FALSE(AnalyzeAs("bob", "model: 'none' " + Tokens(5)).status.ok());
  {
    auto context = As("ada");
    pb::ScoreResponse scores;
    EXPECT_TRUE(
        stub_
            ->Score(context.get(),
                    Parse<pb::ScoreRequest>(
                        "model: 'tiny' pairs {context {token_ids {ids: "
                        "3}} continuation {token_ids {ids: 4 ids: 5}}}"),
                    &scores)
            .ok());
  }
  {
    auto context = As("root");
    const auto stream = stub_->AnalyzeMany(context.get());
    pb::AnalyzeManyRequest message;
    message.mutable_spec()->mutable_request()->set_model("tiny");
    message.mutable_spec()->set_aggregate(true);
    EXPECT_TRUE(stream->Write(message));
    for (const char* input : {"input {token_ids {ids: 3}}", "input {}"}) {
      *message.mutable_prompt() =
          Parse<pb::AnalyzeManyPrompt>(std::string("id: '1' ") + input);
      EXPECT_TRUE(stream->Write(message));
    }
    EXPECT_TRUE(stream->WritesDone());
    pb::AnalyzeManyEvent event;
    while (stream->Read(&event)) {
    }
    EXPECT_TRUE(stream->Finish().ok());
  }
  ASSERT_TRUE(server_->WaitUntilIdle(absl::InfiniteFuture()));
  auto context = As("root");
  pb::GetUsageRequest everybody;
  everybody.set_all_users(true);
  pb::GetUsageResponse usage;
  ASSERT_TRUE(stub_->GetUsage(context.get(), everybody, &usage).ok());
  int64_t total = 0;
  for (const pb::UserUsage& user : usage.users()) {
    EXPECT_GT(user.total_streamed_bytes(), 0) << user.user();
    total += user.total_streamed_bytes();
  }
  EXPECT_EQ(usage.users_size(), 3);
  EXPECT_EQ(testing::SamplesOf(*server_).at("qkscope_streamed_bytes_total"),
            total);
}

TEST_F(RequestsTest, WithoutASpoolNothingIsKept) {
  StartTiny();
  const Analysis refused =
      Analyze("model: 'tiny' " + Tokens(3) + " detach: true");
  EXPECT_EQ(refused.status.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(refused.status.error_message(), ::testing::HasSubstr("spool"));
}

TEST_F(RequestsTest, ResultsOutliveTheServer) {
  Start();
  const Analysis detached =
      AnalyzeAs("ada", "model: 'tiny' " + Tokens(9) + " detach: true");
  ASSERT_EQ(detached.events.size(), 1u);
  const std::string id = detached.events[0].accepted().request_id();
  const Analysis before = GetResult("ada", id);
  ASSERT_TRUE(before.status.ok());
  server_.reset();
  Start();
  const Analysis after = GetResult("ada", id);
  ASSERT_TRUE(after.status.ok()) << after.status.error_message();
  EXPECT_EQ(Payloads(before).size(), 6u);
  EXPECT_EQ(Payloads(after), Payloads(before));
  EXPECT_NE(after.finished(), nullptr);
}

TEST_F(RequestsTest, IdsEndInTheReplicasName) {
  Start("gpu-7");
  const std::string request = "model: 'tiny' " + Tokens(3);
  auto context = As("ada");
  const Analysis kept =
      Read(stub_
               ->Analyze(context.get(),
                         Parse<pb::AnalyzeRequest>(request + " detach: true"))
               .get());
  ASSERT_EQ(kept.events.size(), 1u);
  const std::string id = kept.events[0].accepted().request_id();
  EXPECT_THAT(id, ::testing::MatchesRegex("[0-9a-f]{16}-gpu-7"));
  const auto& trailers = context->GetServerTrailingMetadata();
  const auto sent = trailers.find("x-qkscope-request-id");
  ASSERT_NE(sent, trailers.end());
  EXPECT_EQ(std::string(sent->second.data(), sent->second.size()), id);
  EXPECT_TRUE(GetResult("ada", id).status.ok());
  EXPECT_EQ(List("ada")[0].request_id(), id);
  // The digits alone are another id.
  EXPECT_EQ(GetResult("ada", id.substr(0, 16)).status.error_code(),
            StatusCode::NOT_FOUND);
  bool was_running = false;
  EXPECT_TRUE(Cancel("ada", id, &was_running).ok());
  EXPECT_EQ(GetResult("ada", id).status.error_code(), StatusCode::NOT_FOUND);
  pb::ServerInfo info;
  EXPECT_TRUE(stub_->GetServerInfo(As("ada").get(), {}, &info).ok());
  EXPECT_EQ(info.replica(), "gpu-7");
}

TEST_F(RequestsTest, ResultsOutliveAChangeOfTheReplicasName) {
  std::vector<std::string> ids;
  std::vector<Analysis> before;
  for (const char* name : {"", "a", "b-2"}) {
    Start(name);
    const Analysis detached =
        AnalyzeAs("ada", "model: 'tiny' " + Tokens(9) + " detach: true");
    ASSERT_EQ(detached.events.size(), 1u);
    ids.push_back(detached.events[0].accepted().request_id());
    before.push_back(GetResult("ada", ids.back()));
    ASSERT_TRUE(before.back().status.ok());
    for (size_t i = 0; i < ids.size(); ++i) {
      const Analysis after = GetResult("ada", ids[i]);
      ASSERT_TRUE(after.status.ok()) << after.status.error_message();
      EXPECT_EQ(Payloads(after).size(), 6u);
      EXPECT_EQ(Payloads(after), Payloads(before[i]));
    }
    server_.reset();
  }
  EXPECT_EQ(ids[0].size(), 16u);
  EXPECT_EQ(ids[1].substr(16), "-a");
  EXPECT_EQ(ids[2].substr(16), "-b-2");
}

}  // namespace
}  // namespace qk
