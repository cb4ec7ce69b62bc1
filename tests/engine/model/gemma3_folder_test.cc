// Tests folders of Gemma 3 with a vision tower: the tensors' names, the ignored
// tensors, and which head the model has.
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/formats/json.h"
#include "engine/model/model.h"
#include "tests/engine/formats/testing.h"

namespace qk::testing {
namespace {

constexpr int kVocab = 97, kHidden = 24;

// The names that other writers use, as replacements of the golden's.
struct Layout {
  const char* name;
  std::vector<std::pair<absl::string_view, absl::string_view>> renamed;
  const char* head;
};

const Layout& Published() {
  static const Layout layout = {"published", {}, "language_model.lm_head"};
  return layout;
}

const Layout& Newer() {
  static const Layout layout = {
      "newer",
      {{"language_model.model.", "model.language_model."},
       {"vision_tower.vision_model.", "model.vision_tower."},
       {"multi_modal_projector.", "model.multi_modal_projector."}},
      "lm_head"};
  return layout;
}

const Layout& WithoutHeadClass() {
  static const Layout layout = {"without a class of its own for the head",
                                {{"language_model.model.", "language_model."}},
                                "lm_head"};
  return layout;
}

// A folder with the golden's weights under another header.
class Gemma3FolderTest : public ::testing::Test {
 protected:
  Gemma3FolderTest() {
    const std::string from =
        std::string(QK_SOURCE_DIR) + "/tests/goldens/tiny_gemma3_vl/";
    config_ = ReadFile(from + "config.json");
    const std::string weights = ReadFile(from + "model.safetensors");
    uint64_t size = 0;
    std::memcpy(&size, weights.data(), sizeof(size));
    header_ = weights.substr(8, size);
    data_ = weights.substr(8 + size);
    WriteConfig(config_);
    WriteWeights(Published());
  }

  void Replace(const std::string& from, const std::string& to) {
    ASSERT_NE(config_.find(from), std::string::npos) << from;
    WriteConfig(absl::StrReplaceAll(config_, {{from, to}}));
  }
  void WriteConfig(const std::string& config) {
    folder_.Write("config.json", config);
  }

  void WriteWeights(const Layout& layout) {
    Write(absl::StrReplaceAll(header_, layout.renamed), data_);
  }

  // Adds a head that is a copy of the embedding, or differs in its last byte.
  void WriteHeadToo(const Layout& layout, bool differs = false) {
    std::string head = Embedding();
    if (differs) head.back() ^= 1;
    std::string header = absl::StrReplaceAll(header_, layout.renamed);
    header.resize(header.rfind('}'));
    absl::StrAppend(&header, ",\"", layout.head, ".weight\":{\"dtype\":\"F32\"",
                    ",\"shape\":[", kVocab, ",", kHidden,
                    "],\"data_offsets\":[", data_.size(), ",",
                    data_.size() + head.size(), "]}}");
    Write(header, data_ + head);
  }

  absl::StatusOr<ModelDescription> Describe() {
    return DescribeModel(folder_.path(), ComputeType::kF32);
  }

  // Returns -1 if the model does not load.
  int64_t Parameters() {
    const auto d = Describe();
    EXPECT_TRUE(d.ok()) << d.status();
    return d.ok() ? d->parameters : -1;
  }

  std::string config_;

 private:
  std::string Embedding() const {
    const auto header = JsonDocument::Parse("header", header_, {});
    int64_t begin = -1;
    const absl::Status status =
        header->root()
            .Get("language_model.model.embed_tokens.weight")
            ->GetArray("data_offsets")
            ->ForEachElement([&](JsonValue offset) {
              if (begin < 0) begin = *offset.AsInt64();
              return absl::OkStatus();
            });
    EXPECT_TRUE(status.ok()) << status;
    return data_.substr(begin, size_t{4} * kVocab * kHidden);
  }

  void Write(std::string header, const std::string& data) {
    header.resize((header.size() + 7) / 8 * 8, ' ');
    folder_.Write("model.safetensors",
                  absl::StrCat(Raw(uint64_t{header.size()}), header, data));
  }

  TempFolder folder_;
  std::string header_, data_;
};

// Counts the language model alone. A layer has four norms, the norms of Q and
// K, q and o, k and v, and the MLP.
constexpr int64_t kText = kVocab * kHidden + kHidden +
                          2 * (4 * kHidden + 2 * 4 + 2 * 32 * kHidden +
                               2 * 16 * kHidden + 3 * 23 * kHidden);

TEST_F(Gemma3FolderTest, TensorsAreFoundAsEveryWriterNamesThem) {
  for (const Layout& layout : {Published(), Newer(), WithoutHeadClass()}) {
    WriteWeights(layout);
    EXPECT_EQ(Parameters(), kText) << layout.name;
  }
}

TEST_F(Gemma3FolderTest, OtherPartsAreNotPassedOver) {
  for (const char* part : {"vision_tower.", "multi_modal_projector."}) {
    const std::string other = absl::StrCat("another_", part);
    WriteWeights({"", {{part, other}}, ""});
    ExpectError(Describe().status(), absl::StrCat("extra '", other));
  }
}

TEST_F(Gemma3FolderTest, OtherFamiliesPassOverNothing) {
  WriteConfig(R"({"model_type": "gemma3_text", "head_dim": 4, "hidden_size": 24,
                "intermediate_size": 23, "num_hidden_layers": 2,
                "vocab_size": 97})");
  WriteWeights({"", {{"language_model.model.", "model."}}, ""});
  ExpectError(Describe().status(), "extra 'multi_modal_projector.");
}

TEST_F(Gemma3FolderTest, MissingTensorIsNamed) {
  WriteWeights({"", {{"layers.1.mlp.up_proj", "layers.1.mlp.my_proj"}}, ""});
  ExpectError(Describe().status(),
              "missing 'language_model.model.layers.1.mlp.up_proj.weight'");
}

TEST_F(Gemma3FolderTest, HeadThatIsTiedIsNotRead) {
  for (const Layout& layout : {Published(), Newer(), WithoutHeadClass()}) {
    WriteHeadToo(layout);
    EXPECT_EQ(Parameters(), kText) << layout.name;
  }
}

TEST_F(Gemma3FolderTest, HeadThatIsTiedMustBeTheEmbedding) {
  for (const Layout& layout : {Published(), Newer(), WithoutHeadClass()}) {
    WriteHeadToo(layout, /*differs=*/true);
    ExpectError(Describe().status(),
                absl::StrCat("'", layout.head, ".weight': differs from '"));
  }
}

// Either part of the file may say that the head is not tied: transformers 5
// writes the outer field, and "true" into the inner one.
TEST_F(Gemma3FolderTest, HeadOfItsOwn) {
  constexpr char kOuter[] = "\"model_type\": \"gemma3\",";
  constexpr char kInner[] = "\"model_type\": \"gemma3_text\",";
  constexpr char kUntied[] = "\"tie_word_embeddings\": false,";
  for (const Layout& layout : {Published(), Newer(), WithoutHeadClass()}) {
    for (const char* where : {kOuter, kInner}) {
      Replace(where, absl::StrCat(where, kUntied));
      WriteHeadToo(layout);
      EXPECT_EQ(Parameters(), kText + kVocab * kHidden) << layout.name;
      WriteWeights(layout);
      ExpectError(Describe().status(),
                  absl::StrCat("missing '", layout.head, ".weight'"));
    }
  }
}

TEST_F(Gemma3FolderTest, EosIds) {
  constexpr char kOuter[] = "\"eos_token_id\": [\n    1,\n    90\n  ],";
  constexpr char kInner[] = "\"model_type\": \"gemma3_text\",";
  const auto ids = [&] { return Describe()->config.eos_ids; };
  EXPECT_EQ(ids(), (std::vector<int32_t>{1, 90}));
  const std::string with_inner = absl::StrCat(kInner, "\"eos_token_id\": 7,");
  Replace(kInner, with_inner);
  EXPECT_EQ(ids(), (std::vector<int32_t>{1, 90}));
  config_ = absl::StrReplaceAll(config_, {{kInner, with_inner}});
  Replace(kOuter, "");
  EXPECT_EQ(ids(), (std::vector<int32_t>{7}));
}

}  // namespace
}  // namespace qk::testing
