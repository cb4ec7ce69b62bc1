// Tests what clients of a model with a NaN are told: by the load, by every kind
// of analysis, and by the metrics.
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "tests/poisoned_model.h"
#include "tests/server/observe/metric_samples.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

using testing::Analysis;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Parse;
using testing::ServerTest;
using testing::TempFolder;

constexpr char kTensor[] = "model.layers.1.self_attn.q_proj.weight";
constexpr char kInput[] = " input {token_ids {ids: [3, 1, 41, 59]}} ";

class NonFiniteTest : public ServerTest {
 protected:
  void Start(WeightCheck check = WeightCheck::kAuto) {
    StartServer(Options(check));
    const absl::Status loaded = server_->LoadModels();
    ASSERT_TRUE(loaded.ok()) << loaded.message();
  }
  ServerOptions Options(WeightCheck check) {
    const auto tensors = testing::FileTensors(testing::ReadWhole(
        testing::GoldenModel("tiny_llama_gqa/model.safetensors")));
    ServerOptions options = TinyOptions();
    options.check_weights = check;
    options.models.push_back(
        {"bad",
         testing::PoisonedModel(folder_, "tiny_llama_gqa", kTensor,
                                3 * tensors.at(kTensor).shape[1] + 5),
         ComputeType::kF32, ""});
    return options;
  }

  pb::ModelInfo Info(const std::string& model) {
    grpc::ClientContext context;
    pb::GetModelRequest request;
    request.set_model(model);
    pb::ModelInfo info;
    EXPECT_TRUE(stub_->GetModel(&context, request, &info).ok());
    return info;
  }

  const TempFolder folder_;
};

int64_t CountBad(const std::string& data) {
  int64_t bad = 0;
  for (size_t i = 0; i < data.size(); i += sizeof(float)) {
    float value;
    std::memcpy(&value, data.data() + i, sizeof(value));
    bad += !std::isfinite(value);
  }
  return bad;
}

TEST_F(NonFiniteTest, TheLoadNamesTensorAndElement) {
  for (const auto check : {WeightCheck::kAuto, WeightCheck::kWarn}) {
    Start(check);
    const pb::ModelInfo info = Info("bad");
    EXPECT_EQ(info.state(), pb::ModelInfo::READY);
    EXPECT_EQ(info.non_finite_weights().count(), 1);
    EXPECT_EQ(info.non_finite_weights().tensor(), kTensor);
    EXPECT_THAT(info.non_finite_weights().index(), ElementsAre(3, 5));
    EXPECT_FALSE(Info("tiny").has_non_finite_weights());
    server_.reset();
  }
  Start(WeightCheck::kOff);
  EXPECT_FALSE(Info("bad").has_non_finite_weights());
}

TEST_F(NonFiniteTest, OnRequestTheModelIsNotLoaded) {
  StartServer(Options(WeightCheck::kFail));
  const absl::Status loaded = server_->LoadModels();
  EXPECT_EQ(loaded.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(loaded.message()),
              HasSubstr("1 weight is not finite (NaN or infinite); the first "
                        "is 'model.layers.1.self_attn.q_proj.weight'[3, 5] = "
                        "nan"));
  EXPECT_EQ(Info("tiny").state(), pb::ModelInfo::READY);
  EXPECT_EQ(Info("bad").state(), pb::ModelInfo::FAILED);
  EXPECT_THAT(Info("bad").failure(), HasSubstr("q_proj.weight'[3, 5] = nan"));
}

TEST_F(NonFiniteTest, AnAnalysisCountsByArm) {
  Start();
  for (const char* form : {"NORM_OVER_TOKENS", "NORM_PER_TOKEN", "RAW"}) {
    SCOPED_TRACE(form);
    const Analysis out =
        Analyze(std::string("model: 'bad' compare {} logits {top_n: 3} "
                            "arms {name: 'a'} arms {name: 'good' model: "
                            "'tiny'} capture {form: ") +
                form + "}" + kInput);
    ASSERT_TRUE(out.status.ok()) << out.status.error_message();
    ASSERT_NE(out.finished(), nullptr);
    std::map<std::string, int64_t> captured;
    for (const pb::Layer* layer : out.layers()) {
      const int64_t bad = CountBad(layer->data());
      captured[layer->arm()] += bad;
      // Only the poisoned tensor itself: Q of the last layer.
      EXPECT_EQ(bad > 0, layer->arm() == "a" && layer->layer() == 1 &&
                             layer->point() == pb::HOOK_ROT_Q);
      if (bad > 0 && layer->has_statistics()) {
        EXPECT_EQ(layer->statistics().non_finite_count(), bad);
      }
    }
    EXPECT_GT(captured["a"], 0);
    const auto& arms = out.finished()->arms();
    ASSERT_EQ(arms.size(), 2);
    EXPECT_EQ(arms[0].non_finite().captured(), captured["a"]);
    EXPECT_EQ(arms[0].non_finite().logits(), 4);
    EXPECT_EQ(arms[0].non_finite().kl(), 4);
    // The other arm is healthy, but there is nothing to compare it with.
    EXPECT_EQ(arms[1].non_finite().captured(), 0);
    EXPECT_EQ(arms[1].non_finite().logits(), 0);
    EXPECT_EQ(arms[1].non_finite().kl(), 4);
    for (const pb::AnalyzeEvent& event : out.events) {
      if (!event.has_comparison()) continue;
      EXPECT_TRUE(std::isnan(event.comparison().mean_kl()));
      EXPECT_EQ(event.comparison().top1_flips(), 0);
      EXPECT_EQ(event.comparison().non_finite(), 4);
    }
  }
}

TEST_F(NonFiniteTest, AGenerationEndsWithThatReason) {
  Start();
  grpc::ClientContext context;
  auto reader = stub_->Generate(
      &context,
      Parse<pb::GenerateRequest>(std::string("model: 'bad'") + kInput +
                                 "generate {max_new_tokens: 5}"));
  pb::GenerateEvent event;
  std::vector<pb::GenerateEvent> events;
  while (reader->Read(&event)) events.push_back(event);
  ASSERT_TRUE(reader->Finish().ok());
  ASSERT_EQ(events.size(), 1u);
  const pb::ArmSummary& summary = events[0].finished().summary();
  EXPECT_EQ(summary.stop_reason(), "non_finite");
  EXPECT_EQ(summary.generated_tokens(), 0);
  EXPECT_EQ(summary.non_finite().logits(), 1);
}

TEST_F(NonFiniteTest, AScoreCountsTokens) {
  Start();
  const std::string pair =
      " pairs {context {token_ids {ids: [3, 1]}} continuation {token_ids "
      "{ids: [41, 59, 0]}}}";
  for (const bool totals_only : {false, true}) {
    grpc::ClientContext context;
    pb::ScoreResponse response;
    ASSERT_TRUE(stub_
                    ->Score(&context,
                            Parse<pb::ScoreRequest>(
                                "model: 'bad'" + pair +
                                (totals_only ? " totals_only: true" : "")),
                            &response)
                    .ok());
    const pb::ScoreResult& result = response.results(0);
    EXPECT_EQ(result.non_finite(), 3);
    EXPECT_TRUE(std::isnan(result.logprob()));
    EXPECT_FALSE(result.is_greedy());
    EXPECT_EQ(result.continuation_tokens(), 3);
    EXPECT_EQ(result.token_logprobs_size(), totals_only ? 0 : 3);
    EXPECT_EQ(result.token_greedy_size(), totals_only ? 0 : 3);
  }
}

TEST_F(NonFiniteTest, AnAggregateCountsNorms) {
  Start();
  int64_t bad = 0;
  const Analysis alone = Analyze(std::string("model: 'bad'") + kInput);
  for (const pb::Layer* layer : alone.layers()) bad += CountBad(layer->data());
  ASSERT_GT(bad, 0);
  grpc::ClientContext context;
  auto stream = stub_->AnalyzeMany(&context);
  stream->Write(Parse<pb::AnalyzeManyRequest>(
      "spec {request {model: 'bad'} aggregate: true}"));
  for (const char* id : {"p", "q"}) {
    stream->Write(Parse<pb::AnalyzeManyRequest>(std::string("prompt {id: '") +
                                                id + "'" + kInput + "}"));
  }
  stream->WritesDone();
  int64_t counted = 0;
  pb::AnalyzeManyEvent event;
  while (stream->Read(&event)) {
    for (const pb::AggregateEntry& entry : event.aggregate().entries()) {
      counted += entry.non_finite_count();
      EXPECT_EQ(CountBad(entry.mean()) > 0, entry.non_finite_count() > 0);
    }
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(counted, 2 * bad);
}

// A sum that has become NaN would stay so.
TEST_F(NonFiniteTest, MetricsStayNumbers) {
  Start();
  ASSERT_TRUE(Analyze(std::string("model: 'bad'") + kInput).status.ok());
  for (const auto& [name, value] : testing::SamplesOf(*server_)) {
    EXPECT_FALSE(std::isnan(value)) << name;
  }
}

}  // namespace
}  // namespace qk
