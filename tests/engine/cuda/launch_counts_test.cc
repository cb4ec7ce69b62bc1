// Counts what a layer costs a GPU in launches and copies. They must not depend
// on how many sequences share the pass.
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/engine/cuda/backend_testing.h"
#include "tests/engine/layer_step.h"

namespace qk::testing {
namespace {

using cuda_on_cpu::CallCounts;

std::string Text(const CallCounts& counts) {
  return absl::StrCat(counts.launches, " launches, ", counts.to_device,
                      " copies to the device, ", counts.to_host,
                      " to the host, ", counts.on_device, " on it, ",
                      counts.allocations, " allocations, ", counts.waits,
                      " waits");
}

class LaunchCountsTest : public ::testing::Test {
 protected:
  CallCounts OfALayer(const std::string& name, int sequences,
                      const PassKind& kind) {
    const auto model =
        LoadGolden(name, ComputeType::kBF16, device_.backend.get());
    CallCounts counts;
    AroundALayer(
        model, sequences, kind, [&] { device_.runtime->Clear(); },
        [&] { counts = device_.runtime->counts(); });
    counts.all = 0;  // events and questions cost next to nothing
    return counts;
  }

  EmulatedDevice device_;
};

TEST_F(LaunchCountsTest, ADenseLayer) {
  struct Case {
    PassKind kind;
    int most;
  };
  for (const Case& c : {Case{{}, 16}, Case{{.capture = true}, 16 + 10},
                        Case{{.rules = true}, 16 + 18},
                        Case{{.capture = true, .rules = true}, 16 + 10 + 18}}) {
    for (const bool decode : {false, true}) {
      PassKind kind = c.kind;
      kind.decode = decode;
      const CallCounts one = OfALayer("tiny_llama_gqa", 1, kind);
      const CallCounts many = OfALayer("tiny_llama_gqa", 64, kind);
      SCOPED_TRACE(absl::StrCat(kind.capture, kind.rules, decode, ": ",
                                Text(one), "; of 64: ", Text(many)));
      EXPECT_EQ(one, many);
      EXPECT_GE(one.launches, 11);
      EXPECT_LE(one.launches, c.most);
      EXPECT_EQ(one.to_device, 0);
      EXPECT_LE(one.to_host, 1);
      EXPECT_EQ(one.on_device, 0);
      EXPECT_LE(one.allocations, 1);  // for logits: it is the last layer
      EXPECT_EQ(one.waits, 0);
    }
  }
}

// The launches of the second layer of each family, plain, with bf16 weights. An
// input of a product is rounded by the op that makes it. Where windows
// alternate, the layer's attention is the first of its kind in the pass: its
// plan goes up, and its result is rounded by a launch.
TEST_F(LaunchCountsTest, ALayerOfEachFamily) {
  const std::pair<const char*, int> kLaunches[] = {
      {"tiny_llama_gqa", 11}, {"tiny_gemma2", 16},  {"tiny_gemma3", 17},
      {"tiny_gpt2", 9},       {"tiny_gpt_neo", 10}, {"tiny_gpt_neox", 12},
      {"tiny_opt", 9},        {"tiny_phi3", 11},    {"tiny_qwen2", 11},
      {"tiny_qwen3", 13},     {"tiny_mistral", 11},
  };
  for (const auto& [name, launches] : kLaunches) {
    const CallCounts counts = OfALayer(name, 3, {});
    EXPECT_EQ(counts.launches, launches) << name << ": " << Text(counts);
    EXPECT_LE(counts.to_device, 1) << name;
    EXPECT_EQ(counts.to_host + counts.waits, 0) << name;
  }
}

}  // namespace
}  // namespace qk::testing
