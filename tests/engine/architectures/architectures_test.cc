// Reads the published models' config.json files (tests/goldens/published, with
// LongRoPE factors replaced by the right number of stand-ins) and names every
// weight with its shape, without any weights.
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/engine/architectures/architectures_testing.h"
#include "tests/engine/formats/listed_source.h"
#include "tests/engine/formats/testing.h"

namespace qk::testing {
namespace {

struct Published {
  const char* name;
  int64_t parameters;  // as the models' pages count them
  int layers;
  int context;
};

const Published kPublished[] = {
    {"Llama-2-7b-hf", 6738415616, 32, 4096},
    {"Meta-Llama-3-8B", 8030261248, 32, 8192},
    {"Llama-3.1-8B", 8030261248, 32, 131072},
    {"Llama-3.2-1B", 1235814400, 16, 131072},
    {"SmolLM2-1.7B", 1711376384, 24, 8192},
    {"Mistral-7B-v0.1", 7241732096, 32, 32768},
    {"Qwen2-7B", 7615616512, 28, 131072},
    {"Qwen2.5-7B", 7615616512, 28, 131072},
    {"Qwen3-8B", 8190735360, 36, 40960},
    {"gemma-2-9b", 9241705984, 42, 8192},
    {"gemma-3-1b-pt", 999885952, 26, 32768},
    // The count leaves out the vision tower and the projector.
    {"gemma-3-4b-it", 3880263168, 34, 131072},
    {"Phi-3-mini-4k-instruct", 3821079552, 32, 4096},
    {"Phi-3-mini-128k-instruct", 3821079552, 32, 131072},
    {"Phi-3.5-mini-instruct", 3821079552, 32, 131072},
    {"gpt2-xl", 1557611200, 48, 1024},
    {"opt-6.7b", 6658473984, 32, 2048},
    {"opt-350m", 331196416, 24, 2048},
    {"gpt-neo-2.7B", 2651307520, 32, 2048},
    {"pythia-6.9b", 6857302016, 32, 2048},
    {"gpt-neox-20b", 20554567680, 44, 2048},
    {"Jamba-v0.1", 51570323328, 32, 262144},
    {"Qwen2-VL-7B-Instruct", 8291375616, 28, 32768},
};

Architecture ReadPublished(const std::string& name) {
  const std::string path =
      absl::StrCat(QK_SOURCE_DIR, "/tests/goldens/published/", name, ".json");
  const auto config = JsonDocument::Parse("config", ReadFile(path), {});
  EXPECT_TRUE(config.ok()) << config.status();
  auto a = ArchitectureFromConfig(config->root());
  EXPECT_TRUE(a.ok()) << name << ": " << a.status();
  return a.ok() ? *std::move(a) : Architecture{};
}

void PrintTo(const Published& p, std::ostream* out) { *out << p.name; }

class PublishedTest : public ::testing::TestWithParam<Published> {};

TEST_P(PublishedTest, EveryWeightIsNamed) {
  const Published& expected = GetParam();
  const Architecture a = ReadPublished(expected.name);
  EXPECT_EQ(a.config.num_layers(), expected.layers);
  EXPECT_EQ(a.config.context_length, expected.context);
  ASSERT_EQ(a.layers.size(), a.config.layers.size());
  EXPECT_EQ(Parameters(a), expected.parameters);
  double cache = 0;  // bytes of a token, bf16
  for (const LayerConfig& layer : a.config.layers) {
    cache += 2.0 * 2.0 * layer.attention.kv_size();
  }
  std::printf("%-26s %6.2f GB of bf16 weights, %7.1f kB of cache per token\n",
              expected.name, expected.parameters * 2e-9, cache * 1e-3);
}

std::string TestName(const ::testing::TestParamInfo<Published>& info) {
  std::string name = info.param.name;
  for (char& c : name) c = absl::ascii_isalnum(c) ? c : '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Models, PublishedTest, ::testing::ValuesIn(kPublished),
                         TestName);

int Windows(const Architecture& a) {
  int windows = 0;
  for (const LayerConfig& layer : a.config.layers) {
    windows += layer.attention.sliding_window.has_value();
  }
  return windows;
}

TEST(FeaturesTest, Windows) {
  EXPECT_EQ(Windows(ReadPublished("Mistral-7B-v0.1")), 32);
  EXPECT_EQ(Windows(ReadPublished("Qwen2-7B")), 0);
  const Architecture gemma2 = ReadPublished("gemma-2-9b");
  EXPECT_EQ(Windows(gemma2), 21);
  EXPECT_EQ(gemma2.config.layers[0].attention.sliding_window, 4096);
  EXPECT_FALSE(gemma2.config.layers[1].attention.sliding_window.has_value());
  const Architecture gemma3 = ReadPublished("gemma-3-1b-pt");
  EXPECT_EQ(Windows(gemma3), 22);
  EXPECT_FALSE(gemma3.config.layers[5].attention.sliding_window.has_value());
  const Architecture pictures = ReadPublished("gemma-3-4b-it");
  EXPECT_EQ(Windows(pictures), 29);
  EXPECT_EQ(pictures.config.layers[0].attention.sliding_window, 1024);
  const Architecture neo = ReadPublished("gpt-neo-2.7B");
  EXPECT_EQ(Windows(neo), 16);
  EXPECT_EQ(neo.config.layers[1].attention.sliding_window, 256);
}

TEST(FeaturesTest, Gemma) {
  const Architecture two = ReadPublished("gemma-2-9b");
  const AttentionConfig& attention = two.config.layers[0].attention;
  EXPECT_EQ(two.config.norm_placement, NormPlacement::kSandwich);
  EXPECT_EQ(attention.softcap, 50.0f);
  EXPECT_EQ(two.config.logit_softcap, 30.0f);
  EXPECT_EQ(attention.scale, 0.0625f);
  EXPECT_FLOAT_EQ(two.config.embedding_scale, 59.866518f);
  EXPECT_EQ(two.layers[0].post_mlp_norm.weight.plus, 1.0f);
  EXPECT_EQ(two.layers[0].q_proj.plus, 0.0f);
  EXPECT_TRUE(two.config.tied_lm_head);
  const Architecture three = ReadPublished("gemma-3-1b-pt");
  EXPECT_EQ(three.config.layers[0].attention.rope.theta, 10000.0);
  EXPECT_EQ(three.config.layers[5].attention.rope.theta, 1000000.0);
  EXPECT_EQ(three.config.layers[0].attention.softcap, 0.0f);
  EXPECT_EQ(three.layers[0].k_norm.plus, 1.0f);
}

// The file has few fields; the rest are transformers' defaults.
TEST(FeaturesTest, Gemma3WithPictures) {
  const Architecture a = ReadPublished("gemma-3-4b-it");
  EXPECT_EQ(a.config.architecture, "gemma3");
  EXPECT_EQ(a.config.vocab_size, 262208);
  EXPECT_EQ(a.config.norm_eps, 1e-6f);
  EXPECT_TRUE(a.config.tied_lm_head);
  EXPECT_EQ(a.config.vision.num_layers, 0);
  const AttentionConfig& near = a.config.layers[0].attention;
  EXPECT_EQ(near.num_heads, 8);
  EXPECT_EQ(near.num_kv_heads, 4);
  EXPECT_EQ(near.head_dim, 256);
  EXPECT_EQ(near.scale, 0.0625f);
  EXPECT_TRUE(near.qk_norm);
  EXPECT_EQ(near.rope.theta, 10000.0);
  EXPECT_EQ(near.rope.frequencies[0], 1.0);
  const AttentionConfig& far = a.config.layers[5].attention;
  EXPECT_EQ(far.rope.theta, 1000000.0);
  EXPECT_EQ(far.rope.frequencies[0], 0.125);
}

TEST(FeaturesTest, FusedProjections) {
  const Architecture phi = ReadPublished("Phi-3-mini-4k-instruct");
  const LayerWeightRefs& p = phi.layers[3];
  EXPECT_EQ(p.v_proj.name, "model.layers.3.self_attn.qkv_proj.weight");
  EXPECT_EQ(p.v_proj.fused_rows, 9216);
  EXPECT_EQ(p.v_proj.first_row, 6144);
  EXPECT_EQ(p.mlps[0].up_proj.first_row, 8192);
  const Architecture neox = ReadPublished("pythia-6.9b");
  const WeightRef& k = neox.layers[0].k_proj;
  EXPECT_EQ(k.fused_rows, 12288);
  EXPECT_EQ(k.first_row, 128);
  EXPECT_EQ(k.block_rows, 128);
  EXPECT_EQ(k.block_stride, 384);
  EXPECT_EQ(neox.layers[0].k_bias.first_row, 128);
  EXPECT_EQ(neox.config.layers[0].attention.rope.rotary_dims, 32);
  EXPECT_TRUE(neox.config.parallel_residual);
  const Architecture gpt2 = ReadPublished("gpt2-xl");
  EXPECT_TRUE(gpt2.layers[0].k_proj.transposed);
  EXPECT_FALSE(gpt2.layers[0].k_bias.transposed);
  EXPECT_EQ(gpt2.layers[0].k_bias.first_row, 1600);
}

TEST(FeaturesTest, Opt) {
  const Architecture large = ReadPublished("opt-6.7b");
  EXPECT_EQ(large.config.position_rows, 2050);
  EXPECT_EQ(large.config.position_offset, 2);
  EXPECT_TRUE(large.config.final_norm);
  EXPECT_TRUE(large.project_in.name.empty());
  const Architecture small = ReadPublished("opt-350m");
  EXPECT_EQ(small.config.norm_placement, NormPlacement::kPost);
  EXPECT_FALSE(small.config.final_norm);
  EXPECT_EQ(small.config.embedding_size, 512);
  EXPECT_EQ(small.project_in.shape, (std::vector<int64_t>{1024, 512}));
  EXPECT_EQ(small.project_out.shape, (std::vector<int64_t>{512, 1024}));
}

TEST(FeaturesTest, Jamba) {
  const Architecture a = ReadPublished("Jamba-v0.1");
  for (int i = 0; i < 32; ++i) {
    const LayerConfig& layer = a.config.layers[i];
    EXPECT_EQ(layer.attention.num_heads > 0, i % 8 == 4) << i;
    EXPECT_EQ(layer.mamba.inner_size > 0, i % 8 != 4) << i;
    EXPECT_EQ(layer.mlp.num_experts, i % 2 == 1 ? 16 : 1) << i;
    EXPECT_TRUE(layer.attention.rope.frequencies.empty());
  }
  EXPECT_EQ(a.layers[0].mamba.a_log.name, "model.layers.0.mamba.A_log");
  EXPECT_EQ(a.layers[1].mlps[15].up_proj.name,
            "model.layers.1.feed_forward.experts.15.up_proj.weight");
}

TEST(FeaturesTest, LongRope) {
  const RopeConfig rope =
      ReadPublished("Phi-3-mini-128k-instruct").config.layers[0].attention.rope;
  EXPECT_EQ(rope.scaling, "longrope");
  EXPECT_EQ(rope.original_context, 4096);
  EXPECT_NEAR(rope.attention_factor, 1.19023808, 1e-8);
  EXPECT_EQ(rope.FrequenciesFor(4096), rope.frequencies);
  EXPECT_EQ(rope.FrequenciesFor(4097), rope.long_frequencies);
}

TEST(FeaturesTest, MRope) {
  const Architecture a = ReadPublished("Qwen2-VL-7B-Instruct");
  EXPECT_EQ(a.config.layers[0].attention.rope.sections,
            (std::vector<int>{16, 24, 24}));
}

// A source that has only names.
class NamesSource : public ListedSource {
 public:
  explicit NamesSource(const Tensors& tensors) {
    for (const auto& [name, shape] : tensors) {
      tensors_.push_back({name, DType::kF32, shape, {}});
    }
  }
};

struct Renamed {
  const char* model;
  const char* ours;
  const char* theirs;
};

TEST(ResolvePrefixesTest, PublishedNamesAreFound) {
  for (const Renamed& r :
       {Renamed{"gpt2-xl", "transformer.", ""},
        Renamed{"gpt-neo-2.7B", "transformer.", ""},
        Renamed{"opt-350m", "model.decoder.", "decoder."},
        Renamed{"pythia-6.9b", "embed_out.", "lm_head."},
        Renamed{"gemma-3-4b-it", "", "language_model."},
        Renamed{"gemma-3-4b-it", "model.", "model.language_model."},
        Renamed{"gemma-3-4b-it", "model.", "language_model."},
        Renamed{"Qwen2-VL-7B-Instruct", "model.", "model.language_model."},
        Renamed{"Qwen2-VL-7B-Instruct", "model.", "language_model."},
        Renamed{"Qwen2-VL-7B-Instruct", "model.", ""},
        Renamed{"Qwen2-VL-7B-Instruct", "visual.", "model.visual."}}) {
    Architecture a = ReadPublished(r.model);
    const Tensors ours = FileTensors(a);
    Tensors theirs;
    for (const auto& [name, shape] : ours) {
      theirs[absl::StartsWith(name, r.ours)
                 ? absl::StrCat(r.theirs,
                                name.substr(std::string(r.ours).size()))
                 : name] = shape;
    }
    EXPECT_NE(ours, theirs);
    Architecture same = a;
    ResolvePrefixes(NamesSource(ours), &same);
    EXPECT_EQ(FileTensors(same), ours) << r.model;
    ResolvePrefixes(NamesSource(theirs), &a);
    EXPECT_EQ(FileTensors(a), theirs) << r.model << " " << r.theirs;
  }
}

}  // namespace
}  // namespace qk::testing
