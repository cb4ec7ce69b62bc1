// A model that is only a description, and a tokenizer that makes one token of
// each byte, for the tests of request validation.
#ifndef QKSCOPE_TESTS_SERVER_CONVERT_CONVERT_TESTING_H_
#define QKSCOPE_TESTS_SERVER_CONVERT_CONVERT_TESTING_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/convert/convert.h"

namespace qk::testing {

// The id is byte + 1; id 0 is "<s>", which comes first if asked for.
class ByteTokenizer : public Tokenizer {
 public:
  explicit ByteTokenizer(std::string sha256 = "aa") : sha256_(sha256) {}

  absl::StatusOr<std::vector<TokenSpan>> Encode(
      absl::string_view text, const EncodeOptions& options) const override {
    std::vector<TokenSpan> out;
    if (options.add_special_tokens.value_or(false)) out.push_back({0, 0, 0});
    for (uint32_t i = 0; i < text.size(); ++i) {
      if (options.parse_special && text.substr(i, 3) == "<s>") {
        out.push_back({0, i, i + 3});
        i += 2;
        continue;
      }
      out.push_back({static_cast<unsigned char>(text[i]) + 1, i, i + 1});
    }
    return out;
  }
  absl::StatusOr<std::string> Decode(absl::Span<const int32_t> ids,
                                     bool keep_special) const override {
    std::string text;
    for (int32_t id : ids) {
      if (id != 0 || keep_special) text += Piece(id);
    }
    return text;
  }
  std::string Piece(int32_t id) const override {
    return id == 0 ? "<s>" : std::string(1, static_cast<char>(id - 1));
  }
  bool IsSpecial(int32_t id) const override { return id == 0; }
  std::optional<int32_t> FindSpecial(absl::string_view text) const override {
    if (text == "<s>") return 0;
    return std::nullopt;
  }
  int32_t vocab_size() const override { return 257; }
  std::optional<int32_t> bos_id() const override { return 0; }
  const std::vector<int32_t>& stop_ids() const override { return stop_ids_; }
  bool adds_special_tokens_by_default() const override { return false; }
  bool runs_pattern() const override { return false; }
  const std::string& sha256_hex() const override { return sha256_; }

 private:
  std::string sha256_;
  std::vector<int32_t> stop_ids_ = {0};
};

// The model has `layers` layers of 4 query heads, 2 KV heads and head_dim 8, a
// vocabulary of 257 and a context of 64. With `sliding`, odd layers have a
// sliding window.
inline ModelConfig SmallConfig(int layers = 3, bool sliding = false) {
  ModelConfig config;
  config.architecture = "llama";
  config.hidden_size = 32;
  config.vocab_size = 257;
  config.context_length = 64;
  for (int i = 0; i < layers; ++i) {
    LayerConfig layer;
    layer.attention.num_heads = 4;
    layer.attention.num_kv_heads = 2;
    layer.attention.head_dim = 8;
    if (sliding && i % 2 == 1) layer.attention.sliding_window = 16;
    config.layers.push_back(layer);
  }
  return config;
}

// The same model with a vision tower of 2 layers of 2 heads x 8. A patch is one
// value, and 2 x 2 patches take the place of a token 200.
inline ModelConfig SmallVisionConfig() {
  ModelConfig config = SmallConfig();
  VisionConfig& vision = config.vision;
  vision.num_layers = 2;
  vision.hidden_size = 16;
  vision.channels = vision.temporal_patch_size = vision.patch_size = 1;
  vision.merge_size = 2;
  vision.attention.num_heads = vision.attention.num_kv_heads = 2;
  vision.attention.head_dim = 8;
  vision.image_token = 200;
  return config;
}

// Models by name: "m" has a tokenizer, "bare" has none, "short" has fewer
// embeddings than its tokenizer has tokens; tests may add others.
class FakeModels {
 public:
  FakeModels() {
    Add("m", SmallConfig(), &tokenizer_);
    Add("bare", SmallConfig(), nullptr);
    ModelConfig short_config = SmallConfig();
    short_config.vocab_size = 100;
    Add("short", short_config, &tokenizer_);
  }

  void Add(const std::string& name, ModelConfig config,
           const Tokenizer* tokenizer) {
    configs_[name] = std::move(config);
    ModelView& view = views_[name];
    view.name = name;
    view.config = &configs_[name];
    view.tokenizer = tokenizer;
    if (tokenizer == nullptr) view.text_problem = "it is bare";
  }

  ConvertContext Context() const {
    ConvertContext context;
    context.find_model =
        [this](const std::string& name) -> absl::StatusOr<ModelView> {
      const auto it = views_.find(name);
      if (it == views_.end()) {
        return absl::NotFoundError(
            absl::StrCat("model '", name, "' is not loaded; see ListModels"));
      }
      return it->second;
    };
    context.limits = limits;
    return context;
  }

  Limits limits;

 private:
  ByteTokenizer tokenizer_;
  std::map<std::string, ModelConfig> configs_;
  std::map<std::string, ModelView> views_;
};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_SERVER_CONVERT_CONVERT_TESTING_H_
