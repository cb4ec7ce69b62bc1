// Tests Analyze, Estimate and the calls about models over the wire.
#include <set>
#include <string>

#include "engine/base/crc32c.h"
#include "engine/base/sha256.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

using testing::Analysis;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pointwise;
using testing::ServerTest;
using testing::Tokens;

// Compares the two messages of a pair.
MATCHER(SameMessage, "") {
  return google::protobuf::util::MessageDifferencer::Equals(std::get<0>(arg),
                                                            std::get<1>(arg));
}

class AnalyzeTest : public ServerTest {
 protected:
  void SetUp() override { StartTiny(); }
};

TEST_F(AnalyzeTest, EventsComeInOrderAndWithoutGaps) {
  const Analysis out = Analyze("model: 'tiny' " + Tokens(10));
  ASSERT_TRUE(out.status.ok()) << out.status.error_message();
  ASSERT_TRUE(out.events.front().has_accepted());
  EXPECT_EQ(out.events.front().accepted().request_id().size(), 16u);
  int64_t seq = 0;
  int layer = 0;
  for (const pb::AnalyzeEvent& event : out.events) {
    if (event.has_accepted()) {
      EXPECT_EQ(seq, 0);
      continue;
    }
    EXPECT_EQ(event.seq(), seq++);
    EXPECT_EQ(event.has_started(), event.seq() == 0);
    if (event.has_layer()) {
      EXPECT_GE(event.layer().layer(), layer);
      layer = event.layer().layer();
    }
  }
  ASSERT_NE(out.finished(), nullptr);
  EXPECT_EQ(out.finished()->events(), out.events.back().seq());
  EXPECT_EQ(out.finished()->prompt_tokens(), 10);
  // The model has two layers; Q has 4 heads of 8 dims, K and V have 2.
  ASSERT_EQ(out.layers().size(), 6u);
  for (const pb::Layer* layer : out.layers()) {
    EXPECT_THAT(layer->shape(),
                ElementsAre(layer->point() == pb::HOOK_ROT_Q ? 4 : 2, 8));
    EXPECT_TRUE(layer->has_statistics());
  }
  EXPECT_EQ(out.finished()->streamed_bytes(), 2 * (32 + 16 + 16) * 4);
}

TEST_F(AnalyzeTest, StartedHoldsTheExpandedRequest) {
  const Analysis out =
      Analyze("model: 'tiny' " + Tokens(4) +
              " arms {name: 'clean'} arms {name: 'a' preset "
              "{name: 'rope_with_llm/llama'}} compare {} client_tag: 'tag'");
  ASSERT_TRUE(out.status.ok()) << out.status.error_message();
  const pb::Started& started = out.events[1].started();
  EXPECT_EQ(started.token_ids_size(), 4);
  EXPECT_EQ(started.expanded().compare().baseline(), "clean");
  EXPECT_EQ(started.expanded().arms(1).disruptions_size(), 1);
  EXPECT_GT(started.estimate().peak_extra_bytes(), 0);
  const pb::Manifest& manifest = out.finished()->manifest();
  EXPECT_EQ(manifest.client_tag(), "tag");
  EXPECT_EQ(manifest.weights_sha256().size(), 64u);
  EXPECT_EQ(manifest.compute_type(), "f32");
  EXPECT_FALSE(manifest.device().empty());
  EXPECT_FALSE(manifest.kernel_ids().empty());
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(
      manifest.expanded(), started.expanded()));
}

TEST_F(AnalyzeTest, DigestsAndChecksumsFitThePayloads) {
  const Analysis out =
      Analyze("model: 'tiny' " + Tokens(9) +
              " capture {form: RAW raw_sha256: true stage: BEFORE_AND_AFTER}"
              " arms {name: 'a' disruptions {top_k {k: 1}}}");
  ASSERT_TRUE(out.status.ok()) << out.status.error_message();
  std::map<std::tuple<int, int, int>, const pb::PayloadDigest*> digests;
  for (const auto& digest : out.finished()->manifest().digests()) {
    digests[{digest.layer(), digest.point(), digest.stage()}] = &digest;
  }
  EXPECT_EQ(digests.size(), 12u);
  ASSERT_EQ(out.layers().size(), 12u);
  for (const pb::Layer* layer : out.layers()) {
    const auto* digest =
        digests.at({layer->layer(), layer->point(), layer->stage()});
    Sha256 sha;
    sha.Update(layer->data().data(), layer->data().size());
    EXPECT_EQ(digest->sha256(), sha.FinishHex());
    EXPECT_EQ(digest->crc32c(),
              Crc32c(layer->data().data(), layer->data().size()));
    EXPECT_EQ(layer->crc32c(), digest->crc32c());
    EXPECT_EQ(digest->bytes(), layer->total_bytes());
    EXPECT_EQ(layer->total_bytes(), static_cast<int64_t>(layer->data().size()));
  }
}

TEST_F(AnalyzeTest, SameRequestSameDigests) {
  const std::string request = "model: 'tiny' " + Tokens(12);
  const Analysis a = Analyze(request), b = Analyze(request);
  ASSERT_NE(a.finished(), nullptr);
  ASSERT_NE(b.finished(), nullptr);
  const auto& digests = a.finished()->manifest().digests();
  EXPECT_EQ(digests.size(), 6);  // two layers; Q, K and V
  for (const auto& digest : digests) EXPECT_EQ(digest.sha256().size(), 64u);
  EXPECT_THAT(b.finished()->manifest().digests(),
              Pointwise(SameMessage(), digests));
  // Digests that do not depend on the content would be equal too.
  const Analysis other = Analyze("model: 'tiny' " + Tokens(13));
  ASSERT_NE(other.finished(), nullptr);
  ASSERT_EQ(other.finished()->manifest().digests_size(), 6);
  for (int i = 0; i < 6; ++i) {
    EXPECT_NE(other.finished()->manifest().digests(i).sha256(),
              digests[i].sha256());
  }
}

TEST_F(AnalyzeTest, ComparisonAppliedAndLogitsCome) {
  const Analysis out = Analyze(
      "model: 'tiny' " + Tokens(8) +
      " arms {name: 'clean'} arms {name: 'top' disruptions {top_k {k: 2}}}"
      " compare {} logits {top_n: 3}");
  ASSERT_TRUE(out.status.ok()) << out.status.error_message();
  int applied = 0, logits = 0;
  std::set<std::string> compared;
  for (const pb::AnalyzeEvent& event : out.events) {
    if (event.has_applied()) {
      ++applied;
      EXPECT_EQ(event.applied().arm(), "top");
      EXPECT_EQ(event.applied().chosen(0).dims_size(), 2);
      EXPECT_EQ(event.applied().replaced(),
                event.applied().chosen_size() * 2 * 8);
    }
    if (event.has_logits()) {
      ++logits;
      EXPECT_EQ(event.logits().positions(0).position(), 7);
      EXPECT_EQ(event.logits().positions(0).ids_size(), 3);
    }
    if (event.has_comparison()) {
      compared.insert(event.comparison().arm());
      EXPECT_EQ(event.comparison().baseline(), "clean");
      EXPECT_EQ(event.comparison().kl_size(), 8);
    }
  }
  EXPECT_EQ(applied, 2 * 2);  // layers, Q and K
  EXPECT_EQ(logits, 2);
  EXPECT_THAT(compared, ElementsAre("clean", "top"));
}

TEST_F(AnalyzeTest, CapturedHeadsAreNamed) {
  const Analysis out = Analyze("model: 'tiny' " + Tokens(5) +
                               " capture {heads: [1, 3] positions: [0, 4]}");
  ASSERT_TRUE(out.status.ok()) << out.status.error_message();
  EXPECT_EQ(out.layers().size(), 6u);
  for (const pb::Layer* layer : out.layers()) {
    EXPECT_THAT(layer->positions(), ElementsAre(0, 4));
    if (layer->point() == pb::HOOK_ROT_Q) {
      EXPECT_THAT(layer->heads(), ElementsAre(1, 3));
    } else {
      EXPECT_THAT(layer->heads(), ElementsAre(0, 1));  // that serve them
    }
  }
}

TEST_F(AnalyzeTest, BadRequestsAreRefusedByName) {
  const Analysis layer =
      Analyze("model: 'tiny' " + Tokens(5) + " capture {layers: 2}");
  EXPECT_EQ(layer.status.error_code(), grpc::StatusCode::OUT_OF_RANGE);
  EXPECT_EQ(layer.status.error_message(),
            "capture.layers[0]: 2 is outside [0, 2)");
  EXPECT_TRUE(layer.events.empty());
  const Analysis text = Analyze("model: 'tiny' input {text: 'a'}");
  EXPECT_EQ(text.status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(
      text.status.error_message(),
      "input.text: model 'tiny' takes no text (there is no tokenizer in the "
      "model's files); send token_ids");
  const Analysis model = Analyze("model: 'x' " + Tokens(1));
  EXPECT_EQ(model.status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(model.status.error_message(),
            "model 'x' is not loaded; see ListModels");
}

TEST_F(AnalyzeTest, AStringFieldThatIsNotUtf8NeverReachesTheHandler) {
  pb::AnalyzeRequest request;
  request.set_model("\xff");
  const Analysis out = Analyze(request);
  EXPECT_FALSE(out.status.ok());
}

TEST_F(AnalyzeTest, EstimateIsWhatComes) {
  const auto request = testing::Parse<pb::AnalyzeRequest>(
      "model: 'tiny' " + Tokens(10) + " capture {form: RAW}");
  grpc::ClientContext context;
  pb::EstimateResponse response;
  ASSERT_TRUE(stub_->Estimate(&context, request, &response).ok());
  EXPECT_EQ(response.estimate().prompt_tokens(), 10);
  EXPECT_EQ(response.estimate().queue_position(), 0);
  const Analysis out = Analyze(request);
  ASSERT_NE(out.finished(), nullptr);
  EXPECT_GT(out.finished()->streamed_bytes(), 0);
  EXPECT_EQ(out.finished()->streamed_bytes(),
            response.estimate().streamed_bytes());
}

TEST_F(AnalyzeTest, DecodeCaptureAndTokens) {
  const Analysis out = Analyze(
      "model: 'tiny' " + Tokens(5) +
      " generate {max_new_tokens: 3} capture {phase: BOTH form: RAW points: "
      "HOOK_V layers: 1}");
  ASSERT_TRUE(out.status.ok()) << out.status.error_message();
  int tokens = 0, steps = 0;
  for (const pb::AnalyzeEvent& event : out.events) {
    if (event.has_token()) {
      EXPECT_EQ(event.token().step(), tokens++);
    }
    if (event.has_layer() && event.layer().phase() == pb::DECODE) {
      EXPECT_EQ(event.layer().step(), steps++);
      EXPECT_THAT(event.layer().positions(), ElementsAre(5 + steps - 1));
    }
  }
  EXPECT_EQ(tokens, 3);
  EXPECT_EQ(steps, 2);  // nothing is computed from the last token
  EXPECT_EQ(out.finished()->arms(0).generated_tokens(), 3);
  EXPECT_EQ(out.finished()->arms(0).stop_reason(), "length");
}

TEST_F(AnalyzeTest, ServerInfo) {
  grpc::ClientContext context;
  pb::ServerInfo info;
  ASSERT_TRUE(stub_->GetServerInfo(&context, {}, &info).ok());
  EXPECT_EQ(info.version(), "test");
  EXPECT_EQ(info.backends(0).name(), "cpu");
  EXPECT_EQ(info.backends(0).threads(), 1);
  EXPECT_EQ(info.presets_size(), 8);
  EXPECT_FALSE(info.chat_formats().empty());
  EXPECT_EQ(info.limits().max_arms(), 64);
  EXPECT_EQ(info.limits().max_chunk_bytes(), 256 * 1024);
}

TEST_F(AnalyzeTest, ModelInfo) {
  grpc::ClientContext list_context, get_context, bad_context;
  pb::ListModelsResponse list;
  ASSERT_TRUE(stub_->ListModels(&list_context, {}, &list).ok());
  ASSERT_EQ(list.models_size(), 1);
  pb::GetModelRequest request;
  request.set_model("tiny");
  pb::ModelInfo model;
  ASSERT_TRUE(stub_->GetModel(&get_context, request, &model).ok());
  EXPECT_EQ(model.state(), pb::ModelInfo::READY);
  EXPECT_EQ(model.num_layers(), 2);
  EXPECT_EQ(model.vocab_size(), 97);
  EXPECT_EQ(model.context_length(), 256);
  ASSERT_EQ(model.layers_size(), 2);
  EXPECT_EQ(model.layers(0).num_heads(), 4);
  EXPECT_EQ(model.layers(0).num_kv_heads(), 2);
  ASSERT_EQ(model.rope_size(), 1);
  EXPECT_EQ(model.layers(1).rope(), 0);
  EXPECT_EQ(model.rope(0).wavelengths_size(), 4);
  EXPECT_NEAR(model.rope(0).wavelengths(0), 6.283185, 1e-5);
  int matrices = 0;
  for (const pb::MatMulGroup& group : model.matmuls()) {
    matrices += group.matrices();
    EXPECT_EQ(group.passed_over(), "");
  }
  EXPECT_FALSE(model.device().empty());
  EXPECT_EQ(matrices, 2 * 7 + 1);  // q, k, v, o, gate, up, down; lm_head
  const Analysis out = Analyze("model: 'tiny' " + Tokens(4));
  ASSERT_TRUE(out.status.ok()) << out.status.error_message();
  EXPECT_THAT(out.finished()->manifest().kernel_ids(),
              Contains("matmul.f32:" + model.matmuls(0).kernel()));
  request.set_model("a/b");
  EXPECT_EQ(stub_->GetModel(&bad_context, request, &model).error_message(),
            "model: invalid name (allowed [A-Za-z0-9._-]{1,128})");
}

}  // namespace
}  // namespace qk
