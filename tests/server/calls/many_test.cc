// Tests AnalyzeMany, Score, Generate and the token calls over the wire.
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

using testing::Analysis;
using testing::Parse;
using testing::ServerTest;
using testing::Tokens;

class ManyTest : public ServerTest {
 protected:
  void SetUp() override { StartTiny(); }

  struct Many {
    std::vector<pb::AnalyzeManyEvent> events;
    grpc::Status status;
  };

  // Sends `spec`, then prompts p0, p1, ... with these inputs.
  Many Run(const std::string& spec, const std::vector<std::string>& inputs) {
    grpc::ClientContext context;
    auto stream = stub_->AnalyzeMany(&context);
    std::thread writer([&] {
      pb::AnalyzeManyRequest first;
      *first.mutable_spec() = Parse<pb::AnalyzeManySpec>(spec);
      stream->Write(first);
      for (size_t i = 0; i < inputs.size(); ++i) {
        pb::AnalyzeManyRequest next;
        *next.mutable_prompt() = Parse<pb::AnalyzeManyPrompt>(inputs[i]);
        if (next.prompt().id().empty()) {
          next.mutable_prompt()->set_id("p" + std::to_string(i));
        }
        if (!stream->Write(next)) break;
      }
      stream->WritesDone();
    });
    Many out;
    pb::AnalyzeManyEvent event;
    while (stream->Read(&event)) out.events.push_back(event);
    writer.join();
    out.status = stream->Finish();
    return out;
  }
};

TEST_F(ManyTest, EveryPromptGetsItsEventsInOrder) {
  std::vector<std::string> inputs;
  for (int i = 0; i < 40; ++i) inputs.push_back(Tokens(3 + i % 5));
  const Many out = Run("request {model: 'tiny'}", inputs);
  ASSERT_TRUE(out.status.ok()) << out.status.error_message();
  int prompt = 0;
  int64_t seq = 0;
  for (const pb::AnalyzeManyEvent& event : out.events) {
    if (!event.has_prompt()) continue;
    EXPECT_EQ(event.prompt().id(), "p" + std::to_string(prompt));
    const pb::AnalyzeEvent& inner = event.prompt().event();
    if (!inner.has_accepted()) {
      EXPECT_EQ(inner.seq(), seq++);
    }
    if (inner.has_finished()) {
      ++prompt;
      seq = 0;
    }
  }
  EXPECT_EQ(prompt, 40);
  ASSERT_TRUE(out.events.back().has_finished());
  EXPECT_EQ(out.events.back().finished().prompts(), 40);
  EXPECT_EQ(out.events.back().finished().failed(), 0);
}

TEST_F(ManyTest, TheSameDigestsAsAlone) {
  const Many many =
      Run("request {model: 'tiny'}", {Tokens(5), Tokens(9), Tokens(7)});
  std::map<std::string, std::string> digests;
  for (const auto& event : many.events) {
    const pb::Manifest& manifest = event.prompt().event().finished().manifest();
    for (const auto& digest : manifest.digests()) {
      digests[event.prompt().id()] += digest.sha256();
    }
  }
  const Analysis alone = Analyze("model: 'tiny' " + Tokens(9));
  ASSERT_NE(alone.finished(), nullptr);
  std::string expected;
  for (const auto& digest : alone.finished()->manifest().digests()) {
    expected += digest.sha256();
  }
  EXPECT_EQ(expected.size(), 6u * 64);
  EXPECT_EQ(digests["p1"], expected);
  EXPECT_NE(digests["p2"], expected);
}

TEST_F(ManyTest, ABadPromptFailsAlone) {
  const Many out =
      Run("request {model: 'tiny'}",
          {Tokens(3), "input {token_ids {ids: 97}}", "id: 'p0' " + Tokens(3),
           "input {}", Tokens(300), Tokens(4)});
  ASSERT_TRUE(out.status.ok()) << out.status.error_message();
  std::vector<std::string> errors;
  for (const auto& event : out.events) {
    if (event.has_error()) errors.push_back(event.error().message());
  }
  EXPECT_THAT(
      errors,
      ::testing::ElementsAre(
          "prompt.input.token_ids.ids[0]: 97 is outside [0, 97)",
          "prompt.id: 'p0' is used twice",
          "prompt.input: exactly one of text, token_ids and chat must be set",
          "prompt.input: 300 tokens exceed the model's context of 256"));
  EXPECT_EQ(out.events.back().finished().prompts(), 6);
  EXPECT_EQ(out.events.back().finished().failed(), 4);
}

TEST_F(ManyTest, BadStreams) {
  EXPECT_EQ(Run("request {model: 'x'}", {}).status.error_code(),
            grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Run("request {model: 'tiny' input {text: 'a'}}", {Tokens(1)})
                .status.error_message(),
            "spec.request.input: must not be set; send each prompt in its own "
            "message");
  grpc::ClientContext context;
  auto stream = stub_->AnalyzeMany(&context);
  pb::AnalyzeManyRequest first;
  first.mutable_prompt()->set_id("a");
  stream->Write(first);
  pb::AnalyzeManyEvent event;
  EXPECT_FALSE(stream->Read(&event));
  EXPECT_EQ(stream->Finish().error_message(),
            "spec: must be in the first message");
}

TEST_F(ManyTest, AnEmptyStreamIsFine) {
  const Many out = Run("request {model: 'tiny'}", {});
  EXPECT_TRUE(out.status.ok());
  ASSERT_EQ(out.events.size(), 1u);
  EXPECT_EQ(out.events[0].finished().prompts(), 0);
}

std::vector<float> Floats(const std::string& bytes) {
  std::vector<float> out(bytes.size() / sizeof(float));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

TEST_F(ManyTest, AggregateIsMeanAndVarianceOverPrompts) {
  const std::vector<std::string> inputs = {
      Tokens(3), Tokens(8), "input {token_ids {ids: 99}}", Tokens(5)};
  const Many out = Run("request {model: 'tiny'} aggregate: true", inputs);
  ASSERT_TRUE(out.status.ok()) << out.status.error_message();
  std::map<std::pair<int, int>, pb::AggregateEntry> entries;
  for (const auto& event : out.events) {
    EXPECT_FALSE(event.prompt().event().has_layer());
    for (const auto& entry : event.aggregate().entries()) {
      entries[{entry.layer(), entry.point()}] = entry;
    }
  }
  EXPECT_EQ(entries.size(), 6u);
  std::vector<std::vector<float>> norms;
  for (int i : {0, 1, 3}) {
    const Analysis alone = Analyze("model: 'tiny' " + inputs[i]);
    for (const pb::Layer* layer : alone.layers()) {
      if (layer->layer() == 1 && layer->point() == pb::HOOK_ROT_K) {
        norms.push_back(Floats(layer->data()));
      }
    }
  }
  ASSERT_EQ(norms.size(), 3u);
  const pb::AggregateEntry& entry = entries[{1, pb::HOOK_ROT_K}];
  EXPECT_EQ(entry.count(), 3);
  EXPECT_EQ(entry.massive_count().count(), 3);
  const std::vector<float> mean = Floats(entry.mean());
  const std::vector<float> variance = Floats(entry.variance());
  ASSERT_EQ(mean.size(), 2u * 8);  // heads and dims
  ASSERT_EQ(variance.size(), mean.size());
  for (const auto& n : norms) ASSERT_EQ(n.size(), mean.size());
  for (size_t i = 0; i < mean.size(); ++i) {
    double m = 0, v = 0;
    for (const auto& n : norms) m += n[i] / 3.0;
    for (const auto& n : norms) v += (n[i] - m) * (n[i] - m) / 3.0;
    EXPECT_NEAR(mean[i], m, 1e-5 * std::abs(m));
    EXPECT_NEAR(variance[i], v, 1e-5 * v + 1e-9);
  }
}

TEST_F(ManyTest, AggregateIsTheSameEveryTime) {
  std::vector<std::string> inputs;
  for (int i = 0; i < 30; ++i) inputs.push_back(Tokens(2 + i % 7));
  std::string first;
  for (int round = 0; round < 3; ++round) {
    const Many out = Run("request {model: 'tiny'} aggregate: true", inputs);
    std::string bytes;
    for (const auto& event : out.events) {
      for (const auto& entry : event.aggregate().entries()) {
        bytes += entry.mean() + entry.variance();
      }
    }
    EXPECT_FALSE(bytes.empty());
    if (round == 0) first = bytes;
    EXPECT_EQ(bytes, first);
  }
}

class ScoreTest : public ManyTest {
 protected:
  grpc::Status Score(const std::string& request, pb::ScoreResponse* response) {
    grpc::ClientContext context;
    return stub_->Score(&context, Parse<pb::ScoreRequest>(request), response);
  }
};

TEST_F(ScoreTest, AgreesWithAnalyze) {
  const Analysis out = Analyze(
      "model: 'tiny' input {token_ids {ids: [5, 9, 20, 31]}} compare {}"
      " arms {name: 'clean'} arms {name: 'copy'}");
  ASSERT_TRUE(out.status.ok()) << out.status.error_message();
  pb::Comparison comparison;
  for (const auto& event : out.events) {
    if (event.has_comparison()) comparison = event.comparison();
  }
  pb::ScoreResponse response;
  const grpc::Status status = Score(
      "model: 'tiny' pairs {context {token_ids {ids: [5, 9]}} "
      "continuation {token_ids {ids: [20, 31]}}} "
      "pairs {context {token_ids {ids: [5, 9, 20]}} "
      "continuation {token_ids {ids: [31]}}}",
      &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.results_size(), 2);
  const pb::ScoreResult& first = response.results(0);
  EXPECT_EQ(first.context_tokens(), 2);
  EXPECT_EQ(first.continuation_tokens(), 2);
  ASSERT_EQ(first.token_logprobs_size(), 2);
  EXPECT_FLOAT_EQ(first.token_logprobs(0), comparison.token_logprob(2));
  EXPECT_FLOAT_EQ(first.token_logprobs(1), comparison.token_logprob(3));
  EXPECT_NEAR(first.logprob(),
              first.token_logprobs(0) + first.token_logprobs(1), 1e-6);
  EXPECT_EQ(response.results(1).token_logprobs(0), first.token_logprobs(1));
  EXPECT_EQ(first.token_greedy(0), comparison.top1_id(1) == 20);
}

TEST_F(ScoreTest, ManyPairsInOneCall) {
  std::string request = "model: 'tiny'";
  for (int i = 0; i < 300; ++i) {
    request += " pairs {context {token_ids {ids: [" + std::to_string(i % 90) +
               ", 4]}} continuation {token_ids {ids: [7]}}}";
  }
  pb::ScoreResponse response;
  ASSERT_TRUE(Score(request, &response).ok());
  ASSERT_EQ(response.results_size(), 300);
  EXPECT_EQ(response.results(3).logprob(), response.results(93).logprob());
}

TEST_F(ScoreTest, AnArmChangesTheScore) {
  const std::string pair =
      "pairs {context {token_ids {ids: [5, 9, 11, 60]}} continuation "
      "{token_ids {ids: [20]}}";
  pb::ScoreResponse response;
  ASSERT_TRUE(Score("model: 'tiny' " + pair + "} " + pair +
                        " arm {disruptions {top_k {k: 4} replace: ZERO}}}",
                    &response)
                  .ok());
  EXPECT_NE(response.results(0).logprob(), response.results(1).logprob());
}

// Under every kind of rule, Score gives a token the log-probability that
// Generate gives it.
TEST_F(ScoreTest, ADisruptedArmAgreesWithGenerate) {
  const std::string select = "top_k {k: 3} ";
  const std::string rules[] = {
      select,
      select + "kv_cache: ATTENTION_ONLY",
      select + "phase: DECODE",
      select + "phase: BOTH positions {begin: 1 end: 3}",
      select + "phase: BOTH reselect: true",
      select + "phase: BOTH kv_cache: ATTENTION_ONLY axis: PER_TOKEN",
      "random_k {k: 3} phase: BOTH axis: PER_TOKEN",
      "random_k {k: 2} kv_grouping: QUERY_HEAD kv_cache: ATTENTION_ONLY"};
  for (const std::string& rule : rules) {
    const std::string arm = " arm {name: 'a' disruptions {" + rule + "}} ";
    grpc::ClientContext context;
    auto reader = stub_->Generate(
        &context, Parse<pb::GenerateRequest>(
                      "model: 'tiny' " + Tokens(6) + arm +
                      "generate {max_new_tokens: 5 ignore_eos: true}"));
    std::string ids;
    std::vector<float> logprobs;
    for (pb::GenerateEvent event; reader->Read(&event);) {
      if (!event.has_token()) continue;
      ids += " ids: " + std::to_string(event.token().id());
      logprobs.push_back(event.token().logprob());
    }
    ASSERT_TRUE(reader->Finish().ok());
    ASSERT_EQ(logprobs.size(), 5u) << rule;
    pb::ScoreResponse response;
    std::string prompt = Tokens(6);
    prompt.replace(prompt.find("input"), 5, "context");
    const grpc::Status status =
        Score("model: 'tiny' pairs {" + prompt + " continuation {token_ids {" +
                  ids + "}}}" + arm,
              &response);
    ASSERT_TRUE(status.ok()) << rule << status.error_message();
    const pb::ScoreResult& result = response.results(0);
    ASSERT_EQ(result.token_logprobs_size(), 5);
    EXPECT_EQ(result.context_tokens(), 6);
    EXPECT_EQ(result.continuation_tokens(), 5);
    EXPECT_TRUE(result.is_greedy()) << rule;
    for (int i = 0; i < 5; ++i) {
      EXPECT_NEAR(result.token_logprobs(i), logprobs[i], 1e-5) << rule;
    }
  }
}

// A rule of generated tokens must not do nothing in silence.
TEST_F(ManyTest, ARuleOfGeneratedTokensNeedsSome) {
  const std::string arms =
      "arms {name: 'a' disruptions {top_k {k: 1} phase: DECODE}}";
  const Analysis out = Analyze("model: 'tiny' " + Tokens(4) + arms);
  EXPECT_EQ(out.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(out.status.error_message(),
              ::testing::StartsWith("arms[0].disruptions[0].phase: DECODE"));
  const Analysis generating = Analyze("model: 'tiny' " + Tokens(4) + arms +
                                      " generate {max_new_tokens: 3}");
  EXPECT_TRUE(generating.status.ok()) << generating.status.error_message();
}

TEST_F(ManyTest, GenerateIsGreedyAndRepeatable) {
  const auto request = Parse<pb::GenerateRequest>(
      "model: 'tiny' " + Tokens(4) + " generate {max_new_tokens: 6}");
  std::vector<int> first;
  for (int round = 0; round < 2; ++round) {
    grpc::ClientContext context;
    auto reader = stub_->Generate(&context, request);
    pb::GenerateEvent event;
    std::vector<int> ids;
    bool finished = false;
    while (reader->Read(&event)) {
      if (event.has_token()) {
        EXPECT_FALSE(finished);
        EXPECT_EQ(event.token().step(), static_cast<int>(ids.size()));
        ids.push_back(event.token().id());
      } else {
        finished = true;
        EXPECT_EQ(event.finished().prompt_tokens(), 4);
        EXPECT_EQ(event.finished().summary().generated_tokens(), 6);
        EXPECT_EQ(event.finished().summary().stop_reason(), "length");
      }
    }
    EXPECT_TRUE(reader->Finish().ok());
    EXPECT_TRUE(finished);
    ASSERT_EQ(ids.size(), 6u);
    if (round == 0) first = ids;
    EXPECT_EQ(ids, first);
  }
}

TEST_F(ManyTest, TokenCallsNeedATokenizer) {
  grpc::ClientContext a, b;
  pb::TokenizeResponse tokens;
  pb::DetokenizeResponse text;
  EXPECT_EQ(
      stub_
          ->Tokenize(
              &a, Parse<pb::TokenizeRequest>("model: 'tiny' input {text: 'x'}"),
              &tokens)
          .error_message(),
      "model 'tiny' takes no text (there is no tokenizer in the model's "
      "files)");
  EXPECT_EQ(
      stub_
          ->Detokenize(
              &b, Parse<pb::DetokenizeRequest>("model: 'tiny' token_ids: 3"),
              &text)
          .error_code(),
      grpc::StatusCode::FAILED_PRECONDITION);
}

}  // namespace
}  // namespace qk
