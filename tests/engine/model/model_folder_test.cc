// Tests folders as people have them: fields that change nothing, tensors under
// other names, tokenizers that are not understood, and folders that are no
// model. A golden's own logits are the oracle: golden_test compares them with
// transformers.
#include <cstring>
#include <filesystem>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "tests/engine/formats/testing.h"
#include "tests/engine/forward_driver.h"
#include "tests/engine/test_backend.h"

namespace qk::testing {
namespace {

namespace fs = std::filesystem;

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A copy of a golden's folder, to be changed.
class ModelFolderTest : public ::testing::Test {
 protected:
  ModelFolderTest() : backend_(MakeTestBackend(1)) {}

  void Copy(const std::string& golden) {
    golden_ = golden;
    config_ = ReadFile(GoldenPath(golden + "/config.json"));
    const std::string weights =
        ReadFile(GoldenPath(golden + "/model.safetensors"));
    uint64_t size = 0;
    std::memcpy(&size, weights.data(), sizeof(size));
    header_ = weights.substr(8, size);
    data_ = weights.substr(8 + size);
    folder_.Write("config.json", config_);
    WriteWeights(header_, data_);
  }

  void WriteWeights(std::string header, const std::string& data) {
    header.resize((header.size() + 7) / 8 * 8, ' ');
    folder_.Write("model.safetensors",
                  absl::StrCat(Raw(uint64_t{header.size()}), header, data));
  }

  void RenameTensors(
      const std::vector<std::pair<std::string, std::string>>& names) {
    const std::string renamed = absl::StrReplaceAll(header_, names);
    ASSERT_NE(renamed, header_);
    WriteWeights(renamed, data_);
  }

  // Adds a tensor of one zero.
  void AddTensor(const std::string& name) {
    std::string header = header_;
    header.resize(header.rfind('}'));
    absl::StrAppend(&header, ",\"", name,
                    R"(":{"dtype":"F32","shape":[1],"data_offsets":[)",
                    data_.size(), ",", data_.size() + 4, "]}}");
    WriteWeights(header, data_ + std::string(4, '\0'));
  }

  // Writes `members` ("\"a\": 1,") in front of the config's own.
  void AddToConfig(const std::string& members) {
    folder_.Write("config.json", absl::StrCat("{", members, config_.substr(1)));
  }

  absl::StatusOr<std::shared_ptr<const Model>> Load(
      const std::string& path, const IgnoredParts& ignored = {}) {
    ModelOptions options;
    options.kv_cache_bytes = 4 << 20;
    options.max_rows_per_pass = 128;
    options.ignored = ignored;
    return Model::Load(path, options, backend_.get());
  }

  std::vector<float> Logits(const std::shared_ptr<const Model>& model) {
    const JsonDocument golden = ReadJson(GoldenPath(golden_ + "/golden.json"));
    CaptureSpec capture;
    capture.off = true;
    Driven driven(model,
                  ReadPrompt(golden.root().Get("prompts")->Get("p0").value()),
                  {}, capture);
    std::vector<int> positions(driven.prompt().ids.size());
    std::iota(positions.begin(), positions.end(), 0);
    driven.Request(positions);
    RunPass({&driven});
    return driven.Logits();
  }

  // Expects that the folder loads with the golden's logits.
  void ExpectGolden(const IgnoredParts& ignored = {}) {
    const auto original = Load(GoldenPath(golden_));
    ASSERT_TRUE(original.ok()) << original.status();
    const auto model = Load(folder_.path(), ignored);
    ASSERT_TRUE(model.ok()) << model.status();
    const std::vector<float> expected = Logits(*original);
    ASSERT_FALSE(expected.empty());
    EXPECT_EQ(Logits(*model), expected);
  }

  void ExpectRefused(absl::string_view message,
                     const IgnoredParts& ignored = {}) {
    const auto description =
        DescribeModel(folder_.path(), ComputeType::kF32, ignored);
    ASSERT_FALSE(description.ok()) << message;
    EXPECT_THAT(std::string(description.status().message()),
                HasSubstr(std::string(message)));
  }

  const std::unique_ptr<Backend> backend_;
  TempFolder folder_;
  std::string golden_, config_, header_, data_;
};

constexpr const char* kGoldens[] = {
    "tiny_llama_gqa", "tiny_mistral",  "tiny_qwen2", "tiny_qwen3",
    "tiny_gemma2",    "tiny_phi3",     "tiny_gpt2",  "tiny_opt",
    "tiny_gpt_neo",   "tiny_gpt_neox", "tiny_jamba"};

// What releases 4.30 to 4.57 of transformers dump, and older fields.
TEST_F(ModelFolderTest, FieldsThatChangeNothing) {
  for (const char* golden : kGoldens) {
    SCOPED_TRACE(golden);
    Copy(golden);
    AddToConfig(R"("add_cross_attention": false,
      "cross_attention_hidden_size": null, "pruned_heads": {},
      "tie_encoder_decoder": false, "torchscript": false, "n_special": 0,
      "predict_special_tokens": true, "_num_labels": 1,
      "max_sequence_length": 77, "_flash_attn_2_enabled": true,
      "finetuning_task": "a task", "max_new_tokens": 5,
      "length_penalty": NaN, "max_time": Infinity,)");
    ExpectGolden();
  }
}

TEST_F(ModelFolderTest, ValuesThatChangeSomething) {
  const std::pair<const char*, const char*> kCases[] = {
      {"add_cross_attention", "true"},
      {"pruned_heads", R"({"0": [1]})"},
      {"tie_encoder_decoder", "true"},
      {"partial_rotary_factor", "0.5"},
      {"use_bidirectional_attention", "true"},
      {"nobodys", "1"}};
  for (const auto& [field, value] : kCases) {
    Copy("tiny_llama_gqa");
    AddToConfig(absl::StrCat("\"", field, "\": ", value, ","));
    ExpectRefused(
        absl::StrCat("config: ", field, ": a field that is not implemented"));
  }
}

TEST_F(ModelFolderTest, AnOperatorIgnoresFields) {
  Copy("tiny_llama_gqa");
  AddToConfig(R"("nobodys": {"a": 1}, "another.one": 2,)");
  ExpectRefused(
      "nobodys: a field that is not implemented, got an object; to "
      "load the model as if the field was missing, name it in the "
      "model's `ignore`");
  const IgnoredParts ignored = {{"nobodys", "another.one"}, {}};
  ExpectGolden(ignored);
  const auto description =
      DescribeModel(folder_.path(), ComputeType::kF32, ignored);
  ASSERT_TRUE(description.ok());
  EXPECT_THAT(description->ignored.fields,
              ElementsAre("nobodys", "another.one"));
  ExpectRefused("ignore: config: nobody: missing", {{"nobody"}, {}});
  ExpectRefused("ignore: config: nobodys.b: missing", {{"nobodys.b"}, {}});
}

TEST_F(ModelFolderTest, AFieldInsideAnotherIsIgnored) {
  Copy("tiny_llama_linear");
  const std::string extended = absl::StrReplaceAll(
      config_, {{"\"factor\": 4.0", "\"factor\": 4.0, \"alpha\": 3"}});
  ASSERT_NE(extended, config_);
  folder_.Write("config.json", extended);
  ExpectRefused("rope_scaling.alpha: a field that is not implemented");
  ExpectGolden({{"rope_scaling.alpha"}, {}});
}

// A field that is used may be ignored too: the model is read without it.
TEST_F(ModelFolderTest, AUsedFieldThatIsIgnoredIsMissing) {
  Copy("tiny_llama_gqa");
  ExpectRefused("hidden_size: missing", {{"hidden_size"}, {}});
}

TEST_F(ModelFolderTest, TensorsThatAreNotUsed) {
  Copy("tiny_llama_gqa");
  AddTensor("mtp.layers.0.weight");
  ExpectRefused(
      "extra 'mtp.layers.0.weight': not a tensor of this "
      "configuration; to load the model without it, name it in the "
      "model's `ignore_tensors`");
  ExpectGolden({{}, {"mtp.layers.0.weight"}});
  ExpectGolden({{}, {"mtp.*"}});
  ExpectGolden({{}, {"m*p.*.0.*ght", "*p.layers*"}});
  ExpectRefused("ignore_tensors: 'mtp' names no tensor of the files",
                {{}, {"mtp.*", "mtp"}});
  ExpectRefused(
      "ignore_tensors: '*.weight' names 'lm_head.weight', which is a "
      "weight of the model",
      {{}, {"*.weight"}});
}

TEST_F(ModelFolderTest, TensorsThatTheCodeComputes) {
  for (const char* name :
       {"model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq", "model.layers.1.attn.masked_bias"}) {
    Copy("tiny_llama_gqa");
    AddTensor(name);
    ExpectGolden();
  }
}

// As AutoModel saves a model, without its head. Two of the goldens have no
// prefix in their own files: they get it.
TEST_F(ModelFolderTest, NamesWithoutTheModelsPrefix) {
  struct Case {
    const char* golden;
    const char* prefix;
  };
  const Case kCases[] = {
      {"tiny_llama_tied", "model."},  {"tiny_llama_gqa", "model."},
      {"tiny_mistral", "model."},     {"tiny_qwen2", "model."},
      {"tiny_qwen3", "model."},       {"tiny_gemma2", "model."},
      {"tiny_phi3", "model."},        {"tiny_opt", "model."},
      {"tiny_gpt2", "transformer."},  {"tiny_gpt_neo", "transformer."},
      {"tiny_gpt_neox", "gpt_neox."}, {"tiny_jamba", "model."}};
  int without = 0;
  for (const auto& [golden, prefix] : kCases) {
    SCOPED_TRACE(golden);
    Copy(golden);
    const std::string quoted = absl::StrCat("\"", prefix);
    if (absl::StrContains(header_, quoted)) {
      RenameTensors({{quoted, "\""}});
    } else {
      ++without;
      RenameTensors({{"\"h.", absl::StrCat("\"", prefix, "h.")},
                     {"\"ln_f", absl::StrCat("\"", prefix, "ln_f")},
                     {"\"wte", absl::StrCat("\"", prefix, "wte")},
                     {"\"wpe", absl::StrCat("\"", prefix, "wpe")}});
    }
    ExpectGolden();
  }
  EXPECT_LE(without, 2);
}

TEST_F(ModelFolderTest, ATiedModelWithItsHeadOnly) {
  const std::pair<const char*, const char*> kCases[] = {
      {"tiny_llama_tied", "model.embed_tokens.weight"},
      {"tiny_opt", "model.decoder.embed_tokens.weight"}};
  for (const auto& [golden, embedding] : kCases) {
    SCOPED_TRACE(golden);
    Copy(golden);
    RenameTensors({{embedding, "lm_head.weight"}});
    ExpectGolden();
  }
  // An untied model needs both.
  Copy("tiny_llama_gqa");
  RenameTensors({{"model.embed_tokens.weight", "model.unknown.weight"}});
  ExpectRefused("missing 'model.embed_tokens.weight'");
}

// The model is served without text.
TEST_F(ModelFolderTest, ATokenizerThatIsNotUnderstood) {
  const std::pair<const char*, const char*> kCases[] = {
      {"not JSON", "tokenizer: not valid JSON at byte 0"},
      {R"({"model": {"type": "WordPiece", "vocab": {}}})",
       "tokenizer: model: unsupported tokenizer model \"WordPiece\""}};
  for (const auto& [tokenizer, problem] : kCases) {
    Copy("tiny_llama_gqa");
    folder_.Write("tokenizer.json", tokenizer);
    ExpectGolden();
    const auto model = Load(folder_.path());
    ASSERT_TRUE(model.ok());
    EXPECT_EQ((*model)->tokenizer(), nullptr);
    EXPECT_EQ((*model)->description().text_problem, problem);
  }
}

TEST_F(ModelFolderTest, ATokenizerWithMoreTokensThanEmbeddings) {
  Copy("tiny_llama_gqa");
  std::string vocab;
  for (int id = 0; id < 200; ++id) {
    absl::StrAppend(&vocab, id == 0 ? "" : ",", "\"t", id, "\":", id);
  }
  folder_.Write("tokenizer.json",
                absl::StrCat(R"({"model": {"type": "BPE", "vocab": {)", vocab,
                             R"(}, "merges": []}, "pre_tokenizer": {"type":)",
                             R"( "ByteLevel", "add_prefix_space": false},)",
                             R"( "decoder": {"type": "ByteLevel"}})"));
  const auto model = Load(folder_.path());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->description().text_problem, "");
  ASSERT_NE((*model)->tokenizer(), nullptr);
  EXPECT_EQ((*model)->tokenizer()->vocab_size(), 200);
  EXPECT_EQ((*model)->config().vocab_size, 97);
}

TEST_F(ModelFolderTest, NoTokenizer) {
  Copy("tiny_llama_gqa");
  const auto description = DescribeModel(folder_.path(), ComputeType::kF32);
  ASSERT_TRUE(description.ok());
  EXPECT_EQ(description->text_problem,
            "there is no tokenizer in the model's files");
  EXPECT_THAT(description->warnings, IsEmpty());
}

TEST_F(ModelFolderTest, FilesThatGitLfsHasNotFetched) {
  const std::string pointer =
      absl::StrCat("version https://git-lfs.github.com/spec/v1\noid sha256:",
                   std::string(64, '0'), "\nsize 1234567\n");
  Copy("tiny_llama_gqa");
  folder_.Write("model.safetensors", pointer);
  ExpectRefused(
      "model.safetensors: a git-lfs pointer, not the file itself: "
      "run `git lfs pull`");
  Copy("tiny_llama_gqa");
  folder_.Write("tokenizer.json", pointer);
  const auto description = DescribeModel(folder_.path(), ComputeType::kF32);
  ASSERT_TRUE(description.ok()) << description.status();
  EXPECT_THAT(description->text_problem,
              HasSubstr("tokenizer.json: a git-lfs pointer"));
  const std::string gguf = folder_.Write("a.gguf", pointer);
  ExpectError(DescribeModel(gguf, ComputeType::kF32).status(),
              "a.gguf: a git-lfs pointer");
}

TEST_F(ModelFolderTest, FoldersThatAreNoModel) {
  const auto expect = [](const TempFolder& folder, const std::string& message) {
    const auto description = DescribeModel(folder.path(), ComputeType::kF32);
    ASSERT_FALSE(description.ok()) << message;
    EXPECT_THAT(std::string(description.status().message()),
                HasSubstr(message));
  };
  const TempFolder empty;
  expect(empty, "has no config.json, so it is no model");
  const TempFolder adapter;
  adapter.Write("adapter_config.json", "{}");
  expect(adapter, "an adapter (LoRA), not a model: merge it");
  const TempFolder cache;
  fs::create_directories(cache.path() + "/snapshots/0a1b");
  cache.Write("snapshots/0a1b/config.json", "{}");
  expect(cache, "name the snapshot inside, snapshots/0a1b");
  const TempFolder quantized;
  quantized.Write("b.gguf", "x");
  quantized.Write("a.gguf", "x");
  expect(quantized,
         "has no config.json, but GGUF files: name the file, a.gguf");
  const TempFolder outer;
  fs::create_directories(outer.path() + "/inner");
  outer.Write("inner/config.json", "{}");
  expect(outer, "there is a model in its folder inner");
  const auto missing = DescribeModel("some/where/model", ComputeType::kF32);
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(std::string(missing.status().message()),
            "some/where/model: no such file or folder");
  const std::string file = empty.Write("model.bin", "x");
  ExpectError(DescribeModel(file, ComputeType::kF32).status(),
              "model.bin: must be a folder, a .gguf or a .safetensors file");
}

// As transformers 4.52 to 4.57 save it: the text's fields twice.
TEST_F(ModelFolderTest, Qwen2VlWithItsTextTwice) {
  Copy("tiny_qwen2_vl");
  AddToConfig(absl::StrCat("\"text_config\": ", config_, ","));
  ExpectGolden();
  const std::string other = absl::StrReplaceAll(
      config_, {{"\"hidden_size\": 32", "\"hidden_size\": 40"}});
  ASSERT_NE(other, config_);
  AddToConfig(absl::StrCat("\"text_config\": ", other, ","));
  ExpectRefused("config: hidden_size: 32, but text_config says 40");
}

}  // namespace
}  // namespace qk::testing
