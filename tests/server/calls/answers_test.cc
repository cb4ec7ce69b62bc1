// Tests that no answer of a unary call exceeds what gRPC clients accept by
// default. The largest legal answer of each method is asked for, or built where
// asking would take a server with thousands of models, users or requests.
#include <cstdint>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "qkscope/v1/admin.grpc.pb.h"
#include "server/calls/model_info.h"
#include "server/calls/pages.h"
#include "tests/engine/tokenizer/tokenizer_testing.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

using google::protobuf::Message;
using grpc::StatusCode;
using ::testing::HasSubstr;
using testing::ServerTest;
using testing::TempFolder;

constexpr size_t kDefaultLimit = 4 << 20;
constexpr int kMaxInt = std::numeric_limits<int>::max();

std::string ReadWhole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// Sets every scalar field to a value that takes the most bytes; strings to
// `text`, repeated fields to one such value.
void FillAll(const std::string& text, Message* message) {
  using Field = google::protobuf::FieldDescriptor;
  const auto* r = message->GetReflection();
  const auto* type = message->GetDescriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const Field* f = type->field(i);
    switch (f->cpp_type()) {
#define QK_FILL(kind, Kind, value)                        \
  case Field::CPPTYPE_##kind:                             \
    f->is_repeated() ? r->Add##Kind(message, f, (value))  \
                     : r->Set##Kind(message, f, (value)); \
    break;
      QK_FILL(INT32, Int32, -1)
      QK_FILL(INT64, Int64, -1)
      QK_FILL(UINT32, UInt32, ~0u)
      QK_FILL(UINT64, UInt64, ~uint64_t{0})
      QK_FILL(DOUBLE, Double, -0.1)
      QK_FILL(FLOAT, Float, -0.1f)
      QK_FILL(BOOL, Bool, true)
      QK_FILL(ENUM, EnumValue, 1)
      QK_FILL(STRING, String, text)
#undef QK_FILL
      case Field::CPPTYPE_MESSAGE:
        FillAll(text, f->is_repeated() ? r->AddMessage(message, f)
                                       : r->MutableMessage(message, f));
        break;
    }
  }
}

// The largest model that the configurations' limits allow: 1,024 layers and
// heads of 1,024 dims, with two kinds of RoPE.
ModelEntry LargestModel() {
  ModelEntry entry;
  entry.name = std::string(128, 'm');
  entry.failure = absl::InvalidArgumentError(std::string(100'000, 'x'));
  ModelConfig& config = entry.description.config;
  config.architecture = "architecture";
  config.vision.num_layers = 1024;
  entry.description.weights_dtype = std::string(500, 'd');
  for (int i = 0; i < 1024; ++i) {
    LayerConfig& layer = config.layers.emplace_back();
    layer.attention.num_heads = layer.attention.num_kv_heads = 1 << 20;
    layer.attention.head_dim = 1024;
    layer.attention.sliding_window = 1 << 24;
    layer.attention.rope.theta = i % 2 == 0 ? 1e4 : 1e6;
    layer.attention.rope.rotary_dims = 1024;
    layer.attention.rope.frequencies.assign(512, i % 2 == 0 ? 0.1 : 0.2);
  }
  return entry;
}

// Asks for a list in parts, checks that they are all of it, and returns their
// sizes.
template <typename Response, typename Entry>
std::vector<size_t> Pages(
    const std::vector<Entry>& entries,
    google::protobuf::RepeatedPtrField<Entry>* (Response::*list)()) {
  std::vector<size_t> sizes;
  std::optional<int> next = 0;
  size_t seen = 0;
  while (next.has_value()) {
    Response response;
    const int offset = *next;
    EXPECT_EQ(static_cast<size_t>(offset), seen);
    next = FillPage(
        static_cast<int>(entries.size()), offset,
        [&](int i) { return entries[i]; }, (response.*list)());
    if (next.has_value()) response.set_next_offset(kMaxInt);
    for (const Entry& entry : *(response.*list)()) {
      EXPECT_EQ(entry.SerializeAsString(), entries[seen++].SerializeAsString());
    }
    sizes.push_back(response.ByteSizeLong());
  }
  EXPECT_EQ(seen, entries.size());
  return sizes;
}

class AnswersTest : public ServerTest {
 protected:
  // "long" has a context of a million tokens, and a tokenizer of six tokens.
  void SetUp() override {
    ServerOptions options = TinyOptions();
    const std::string golden = testing::GoldenModel("tiny_llama_gqa");
    std::string config = ReadWhole(golden + "/config.json");
    const std::string context = "\"max_position_embeddings\": 256";
    const size_t at = config.find(context);
    ASSERT_NE(at, std::string::npos);
    config.replace(at, context.size(), "\"max_position_embeddings\": 1048576");
    folder_.Write("config.json", config);
    folder_.Write("model.safetensors",
                  ReadWhole(golden + "/model.safetensors"));
    folder_.Write("tokenizer.json", testing::TinyJson());
    options.models.push_back({"long", folder_.path(), ComputeType::kF32, ""});
    StartServer(options);
    const absl::Status loaded = server_->LoadModels();
    ASSERT_TRUE(loaded.ok()) << loaded.message();
  }

  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (pb::Analysis::Stub::*method)(
                        grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    return (stub_.get()->*method)(&context, request, response);
  }

  std::vector<size_t> TokenizeAll(const std::string& text);
  std::vector<size_t> DetokenizeMost();
  std::vector<size_t> ScoreMost();
  std::vector<size_t> EstimateMost();

  const TempFolder folder_;
};

// 1 MiB of text in which every letter is a token.
std::vector<size_t> AnswersTest::TokenizeAll(const std::string& text) {
  pb::TokenizeRequest request;
  request.set_model("long");
  request.mutable_input()->set_text(text);
  std::vector<size_t> sizes;
  int token = 0;
  for (bool more = true; more;) {
    pb::TokenizeResponse response;
    const grpc::Status status =
        Call(&pb::Analysis::Stub::Tokenize, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    if (!status.ok()) return {kDefaultLimit + 1};
    for (const pb::TokenPiece& piece : response.tokens()) {
      // Token 0 is <s>.
      EXPECT_EQ(piece.id(), token == 0 ? 5 : text[token - 1] - 'a');
      EXPECT_EQ(piece.begin(), token == 0 ? 0 : token - 1);
      EXPECT_EQ(piece.end(), token);
      if (::testing::Test::HasFailure()) return {kDefaultLimit + 1};
      ++token;
    }
    EXPECT_EQ(response.total_tokens(), static_cast<int>(text.size()) + 1);
    sizes.push_back(response.ByteSizeLong());
    more = response.has_next_offset();
    if (more) {
      EXPECT_EQ(response.next_offset(), token);
    }
    request.set_offset(response.next_offset());
  }
  EXPECT_EQ(token, static_cast<int>(text.size()) + 1);
  EXPECT_GT(sizes.size(), 1u);
  return sizes;
}

std::vector<size_t> AnswersTest::DetokenizeMost() {
  pb::DetokenizeRequest request;
  request.set_model("long");
  const int most = static_cast<int>(kMaxAnswerBytes / 3);
  for (int i = 0; i < most; ++i) request.add_token_ids(4);  // "abc"
  pb::DetokenizeResponse response;
  EXPECT_TRUE(Call(&pb::Analysis::Stub::Detokenize, request, &response).ok());
  EXPECT_EQ(response.text().size(), size_t{3} * most);
  const size_t size = response.ByteSizeLong();
  for (const int more : {1, 2'500'000}) {
    for (int i = 0; i < more; ++i) request.add_token_ids(4);
    const grpc::Status status =
        Call(&pb::Analysis::Stub::Detokenize, request, &response);
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(status.error_message(),
              "token_ids: their text exceeds 3.9 MiB; send fewer at once");
  }
  return {size};
}

// What a request may ask for, with every number as large as it gets.
std::vector<size_t> AnswersTest::ScoreMost() {
  pb::ScoreRequest request;
  request.set_model("long");
  const auto add_pair = [&request](int tokens) {
    pb::ScorePair* pair = request.add_pairs();
    pair->mutable_context()->mutable_token_ids()->add_ids(1);
    auto* ids = pair->mutable_continuation()->mutable_token_ids();
    for (int i = 0; i < tokens; ++i) ids->add_ids(2);
  };
  const int most = static_cast<int>((kMaxAnswerBytes - 64) / 5);
  add_pair(most + 1);
  pb::ScoreResponse response;
  const grpc::Status status =
      Call(&pb::Analysis::Stub::Score, request, &response);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(),
            "pairs: the answer would have 3.9 MiB, limit 3.9 MiB; send fewer "
            "pairs at once, or set totals_only");
  std::vector<size_t> sizes;
  for (const int pairs : {1, Limits().max_score_pairs}) {
    response.Clear();
    for (int i = 0; i < pairs; ++i) {
      pb::ScoreResult* result = response.add_results();
      FillAll("", result);
      result->clear_token_logprobs();
      result->clear_token_greedy();
      result->set_context_tokens(kMaxInt);
      result->set_continuation_tokens(kMaxInt);
      result->set_non_finite(kMaxInt);
      const int tokens = static_cast<int>((kMaxAnswerBytes / pairs - 64) / 5);
      for (int t = 0; t < tokens; ++t) {
        result->add_token_logprobs(-1);
        result->add_token_greedy(true);
      }
    }
    sizes.push_back(response.ByteSizeLong());
  }
  return sizes;
}

std::vector<size_t> AnswersTest::EstimateMost() {
  pb::AnalyzeRequest request;
  request.set_model("long");
  request.mutable_capture()->set_off(true);
  std::vector<size_t> sizes;
  int refused = 0;
  for (const int tokens : {1000, 400'000, 600'000, 1'000'000}) {
    auto* ids = request.mutable_input()->mutable_token_ids();
    while (ids->ids_size() < tokens) ids->add_ids(1);
    pb::EstimateResponse response;
    const grpc::Status status =
        Call(&pb::Analysis::Stub::Estimate, request, &response);
    // The server says so itself; it is not the client that refuses.
    refused += !status.ok();
    if (!status.ok()) {
      EXPECT_THAT(status.error_message(), HasSubstr("the summary needs"));
      continue;
    }
    sizes.push_back(response.ByteSizeLong());
  }
  EXPECT_EQ(refused, 1);
  return sizes;
}

// Of a model with a thousand layers.
pb::Baseline LargestBaseline() {
  pb::Baseline baseline;
  FillAll(std::string(128, 's'), &baseline);
  pb::BaselineDrift drift;
  FillAll("", &drift);
  for (int i = 0; i < 5 * 1000; ++i) *baseline.add_drifts() = drift;
  return baseline;
}

TEST_F(AnswersTest, NoneExceedsWhatClientsAcceptByDefault) {
  const auto filled = [](auto message) {
    FillAll(std::string(10'000, 's'), &message);
    return std::vector<size_t>{message.ByteSizeLong()};
  };
  const auto copies = [](auto entry) {
    FillAll(std::string(64, 's'), &entry);
    return std::vector<decltype(entry)>(
        2 * kDefaultLimit / entry.ByteSizeLong(), entry);
  };
  const std::map<std::string, std::function<std::vector<size_t>()>> largest = {
      {"GetServerInfo",
       [&] {
         pb::ServerInfo info;
         EXPECT_TRUE(Call(&pb::Analysis::Stub::GetServerInfo, {}, &info).ok());
         return std::vector<size_t>{info.ByteSizeLong()};
       }},
      {"ListModels",
       [&] {
         return Pages(std::vector<pb::ModelInfo>(
                          200, ModelInfoOf(LargestModel(), BackendInfo())),
                      &pb::ListModelsResponse::mutable_models);
       }},
      {"GetModel",
       [] {
         return std::vector<size_t>{
             ModelInfoOf(LargestModel(), BackendInfo()).ByteSizeLong()};
       }},
      {"Score", [&] { return ScoreMost(); }},
      {"Estimate", [&] { return EstimateMost(); }},
      {"Tokenize",
       [&] {
         // "ca" is no merge, so every letter is a token of its own.
         std::string text(Limits().max_text_bytes, 'c');
         for (size_t i = 1; i < text.size(); i += 2) text[i] = 'a';
         return TokenizeAll(text);
       }},
      {"Detokenize", [&] { return DetokenizeMost(); }},
      {"GetUsage",
       [&] {
         return Pages(copies(pb::UserUsage()),
                      &pb::GetUsageResponse::mutable_users);
       }},
      {"ListRequests",
       [&] {
         return Pages(copies(pb::ListedRequest()),
                      &pb::ListRequestsResponse::mutable_requests);
       }},
      {"Cancel", [&] { return filled(pb::CancelResponse()); }},
      {"SaveBaseline",
       [] { return std::vector<size_t>{LargestBaseline().ByteSizeLong()}; }},
      {"ListBaselines",
       [] {
         return Pages(std::vector<pb::Baseline>(200, LargestBaseline()),
                      &pb::ListBaselinesResponse::mutable_baselines);
       }},
      {"RemoveBaseline", [&] { return filled(pb::RemoveBaselineResponse()); }},
      {"UnloadModel", [&] { return filled(pb::UnloadModelResponse()); }},
      {"ReloadConfig", [&] { return filled(pb::ReloadConfigResponse()); }},
  };
  std::set<std::string> unary;
  for (const auto* file : {pb::AnalyzeRequest::descriptor()->file(),
                           pb::LoadModelRequest::descriptor()->file()}) {
    for (int i = 0; i < file->service(0)->method_count(); ++i) {
      const auto* method = file->service(0)->method(i);
      if (method->server_streaming()) continue;
      SCOPED_TRACE(method->name());
      unary.insert(method->name());
      const auto it = largest.find(method->name());
      ASSERT_NE(it, largest.end()) << "has no largest answer here";
      const std::vector<size_t> sizes = it->second();
      EXPECT_FALSE(sizes.empty());
      for (const size_t size : sizes) EXPECT_LE(size, kDefaultLimit);
    }
  }
  EXPECT_EQ(unary.size(), largest.size());
}

TEST_F(AnswersTest, OffsetsSkipEntries) {
  pb::ListModelsRequest models;
  pb::ListModelsResponse listed;
  ASSERT_TRUE(Call(&pb::Analysis::Stub::ListModels, models, &listed).ok());
  ASSERT_EQ(listed.models_size(), 2);
  EXPECT_FALSE(listed.has_next_offset());
  models.set_offset(1);
  pb::ListModelsResponse second;
  ASSERT_TRUE(Call(&pb::Analysis::Stub::ListModels, models, &second).ok());
  ASSERT_EQ(second.models_size(), 1);
  EXPECT_EQ(second.models(0).name(), listed.models(1).name());

  pb::TokenizeRequest tokens;
  tokens.set_model("long");
  tokens.mutable_input()->set_text("cab");
  tokens.set_offset(2);
  pb::TokenizeResponse pieces;
  ASSERT_TRUE(Call(&pb::Analysis::Stub::Tokenize, tokens, &pieces).ok());
  EXPECT_EQ(pieces.total_tokens(), 3);  // <s> c ab
  ASSERT_EQ(pieces.tokens_size(), 1);
  EXPECT_EQ(pieces.tokens(0).piece(), "ab");
  EXPECT_EQ(pieces.tokens(0).begin(), 1);

  // Past the end there is nothing; a list may have become shorter.
  pb::GetUsageRequest usage;
  usage.set_offset(kMaxInt);
  pb::GetUsageResponse users;
  ASSERT_TRUE(Call(&pb::Analysis::Stub::GetUsage, usage, &users).ok());
  EXPECT_EQ(users.users_size(), 0);
  EXPECT_FALSE(users.has_next_offset());
}

TEST_F(AnswersTest, ANegativeOffsetIsRefused) {
  const auto refused = [&](auto method, auto request, auto response) {
    request.set_offset(-1);
    const grpc::Status status = Call(method, request, &response);
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(status.error_message(), "offset: must be >= 0, got -1");
  };
  refused(&pb::Analysis::Stub::ListModels, pb::ListModelsRequest(),
          pb::ListModelsResponse());
  refused(&pb::Analysis::Stub::GetUsage, pb::GetUsageRequest(),
          pb::GetUsageResponse());
  refused(&pb::Analysis::Stub::ListRequests, pb::ListRequestsRequest(),
          pb::ListRequestsResponse());
  refused(&pb::Analysis::Stub::Tokenize, pb::TokenizeRequest(),
          pb::TokenizeResponse());
}

}  // namespace
}  // namespace qk
