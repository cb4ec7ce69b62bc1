// The first byte chooses a message; the rest is its wire format.
#include <map>
#include <memory>
#include <string>

#include "engine/model/model.h"
#include "google/protobuf/stubs/logging.h"
#include "server/calls/run_cost.h"
#include "server/convert/convert.h"
#include "server/convert/image_decode.h"
#include "tests/engine/test_backend.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_spec.h"
#include "tests/server/convert/convert_testing.h"

namespace qk {
namespace {

// Goldens with a tokenizer of bytes: these are the smallest real models.
class Models {
 public:
  Models() {
    const auto llama = Load("tiny_llama_gqa");
    Add("m", llama, &tokenizer_);
    Add("copy", llama, &tokenizer_);
    Add("bare", llama, nullptr);
    Add("images", Load("tiny_qwen2_vl_image"), &tokenizer_);
    Add("windows", Load("tiny_gemma3"), &tokenizer_);
    const auto jamba = Load("tiny_jamba");
    Add("jamba", jamba, &tokenizer_);
    // Both layers are copies of Jamba's first one, which has no attention.
    ModelConfig& no_attention = Add("mamba", jamba, &tokenizer_);
    no_attention.layers.assign(2, no_attention.layers[0]);
    QK_CHECK(!no_attention.has_attention(0));
  }

  ConvertContext Context() const {
    ConvertContext context;
    context.find_model =
        [this](const std::string& name) -> absl::StatusOr<ModelView> {
      const auto found = views_.find(name);
      if (found != views_.end()) return found->second;
      return absl::NotFoundError(
          absl::StrCat("model '", name, "' is not loaded"));
    };
    return context;
  }

 private:
  std::shared_ptr<const Model> Load(const std::string& golden) {
    ModelOptions options;
    options.kv_cache_bytes = 1 << 20;
    options.max_rows_per_pass = 64;
    auto model = Model::Load(QK_SOURCE_DIR "/tests/goldens/" + golden, options,
                             backend_.get());
    QK_CHECK(model.ok());
    return *std::move(model);
  }

  ModelConfig& Add(const std::string& name, std::shared_ptr<const Model> model,
                   const Tokenizer* tokenizer) {
    ModelConfig& config = configs_[name];
    config = model->config();
    config.vocab_size = tokenizer_.vocab_size();
    views_[name] = {name, &config, tokenizer, "", std::move(model)};
    return config;
  }

  const std::unique_ptr<Backend> backend_ = testing::MakeTestBackend(1);
  const testing::ByteTokenizer tokenizer_;
  std::map<std::string, ModelConfig> configs_;
  std::map<std::string, ModelView> views_;
};

const ConvertContext& Context() {
  static const Models& models = *new Models();
  static const ConvertContext& context = *new ConvertContext(models.Context());
  return context;
}

// Returns whether an image takes long to resize under sanitizers.
bool HasLargeImage(const pb::Input& input) {
  for (const pb::Image& image : input.images()) {
    const auto pixels = DecodeImage(image.encoded());
    if (pixels.ok() && pixels->rgb.size() > 1 << 18) return true;
  }
  return false;
}

void CheckCost(const RunSpec& spec, const pb::AnalyzeRequest& expanded) {
  const Limits& limits = Context().limits;
  const auto cost = CostOf(spec, expanded, limits);
  if (!cost.ok()) {
    QK_CHECK(absl::IsResourceExhausted(cost.status()));
    return fuzz::CheckMessage(cost.status());
  }
  const RunEstimate& engine = cost->engine;
  QK_CHECK(engine.stream_bytes >= 0);
  QK_CHECK(engine.stream_bytes <= limits.max_response_bytes);
  QK_CHECK(engine.kv_pages >= 1 && engine.prefill_rows >= 1);
  QK_CHECK(engine.peak_extra_bytes >= engine.stream_bytes);
  QK_CHECK(cost->buffer_bytes >= engine.stream_bytes);
  const int tokens = static_cast<int>(spec.tokens.size());
  QK_CHECK(EstimatesOf(*cost, tokens, {}).peak_extra_bytes() > 0);
}

void Check(const absl::StatusOr<ConvertedRequest>& request) {
  if (!request.ok()) return fuzz::CheckMessage(request.status());
  fuzz::CheckSpec(request->spec, *request->model.config);
  CheckCost(request->spec, request->expanded);
  // The expanded request has only digests of images.
  if (!request->spec.images.empty()) return;
  const auto again = ConvertAnalyze(request->expanded, Context());
  QK_CHECK(again.ok());
  QK_CHECK(again->expanded.SerializeAsString() ==
           request->expanded.SerializeAsString());
}

void Check(const pb::AnalyzeRequest& request) {
  if (HasLargeImage(request.input())) return;
  Check(ConvertAnalyze(request, Context()));
}

void Check(const pb::AnalyzeManyRequest& request) {
  pb::AnalyzeManySpec spec;
  spec.mutable_request()->set_model("m");
  pb::Input input;
  input.set_text("abc");
  if (request.has_spec()) spec = request.spec();
  if (request.has_prompt()) input = request.prompt().input();
  if (HasLargeImage(input)) return;
  const absl::Status status = CheckManySpec(spec, Context());
  if (!status.ok()) return fuzz::CheckMessage(status);
  Check(ConvertPrompt(spec, input, Context()));
}

void Check(const pb::GenerateRequest& request) {
  if (HasLargeImage(request.input())) return;
  Check(ConvertGenerate(request, Context()));
}

void Check(const pb::ScoreRequest& request) {
  const auto score = ConvertScore(request, Context());
  if (!score.ok()) return fuzz::CheckMessage(score.status());
  QK_CHECK(!score->specs.empty());
  QK_CHECK(score->specs.size() == score->context_tokens.size());
  for (size_t i = 0; i < score->specs.size(); ++i) {
    const RunSpec& spec = score->specs[i];
    QK_CHECK(spec.score.has_value());
    QK_CHECK(spec.score->begin == score->context_tokens[i]);
    fuzz::CheckSpec(spec, *score->model.config);
    CheckCost(spec, {});
  }
}

void Check(const pb::TokenizeRequest& request) {
  const auto model = FindModel(request.model(), Context());
  if (!model.ok()) return fuzz::CheckMessage(model.status());
  const auto tokens =
      ConvertInput(request.input(), "", *model, Context().limits, std::nullopt);
  if (!tokens.ok()) return fuzz::CheckMessage(tokens.status());
  for (const TokenSpan& token : *tokens) {
    QK_CHECK(token.id >= 0 && token.id < model->config->vocab_size);
    QK_CHECK(token.begin <= token.end);
    QK_CHECK(!request.input().has_text() ||
             token.end <= request.input().text().size());
  }
}

void Check(const pb::DetokenizeRequest& request) {
  const auto model = FindModel(request.model(), Context());
  if (!model.ok()) return fuzz::CheckMessage(model.status());
  const int size = model->config->vocab_size;
  const auto ids = CheckTokenIds(request.token_ids(), "", size);
  if (!ids.ok()) return fuzz::CheckMessage(ids.status());
  for (const int32_t id : *ids) QK_CHECK(id >= 0 && id < size);
}

template <typename Message>
void ParseAndCheck(const void* data, size_t size) {
  Message message;
  if (message.ParseFromArray(data, static_cast<int>(size))) Check(message);
}

}  // namespace
}  // namespace qk

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr void (*kChecks[])(const void*, size_t) = {
      qk::ParseAndCheck<qk::pb::AnalyzeRequest>,
      qk::ParseAndCheck<qk::pb::AnalyzeManyRequest>,
      qk::ParseAndCheck<qk::pb::ScoreRequest>,
      qk::ParseAndCheck<qk::pb::GenerateRequest>,
      qk::ParseAndCheck<qk::pb::TokenizeRequest>,
      qk::ParseAndCheck<qk::pb::DetokenizeRequest>};
  if (size == 0) return 0;
  google::protobuf::SetLogHandler(nullptr);  // as the server does
  kChecks[data[0] % std::size(kChecks)](data + 1, size - 1);
  return 0;
}
