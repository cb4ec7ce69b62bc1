// Counts the ops of passes: a layer's launches and copies must not depend on
// how many sequences share the pass, since each costs a GPU the same time,
// however little it does.
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/engine/forwarding_backend.h"
#include "tests/engine/layer_step.h"

namespace qk::testing {
namespace {

using Counts = std::map<std::string, int>;  // by op

class CountingBackend : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  Counts counts;

 private:
  bool Before(const char* op) override {
    ++counts[op];
    return true;
  }
};

class OpCountsTest : public ::testing::Test {
 protected:
  // The ops of one layer of a pass of `sequences` sequences.
  Counts OfALayer(int sequences, const PassKind& kind) {
    Counts layer;
    AroundALayer(
        model_, sequences, kind, [&] { backend_.counts.clear(); },
        [&] { layer = std::exchange(backend_.counts, {}); });
    return layer;
  }

  static int All(const Counts& counts) {
    int sum = 0;
    for (const auto& [op, n] : counts) sum += n;
    return sum;
  }
  static std::string Text(const Counts& counts) {
    std::string text;
    for (const auto& [op, n] : counts) absl::StrAppend(&text, op, " ", n, "; ");
    return text;
  }

  CountingBackend backend_{MakeTestBackend(2)};
  const std::shared_ptr<const Model> model_ =
      LoadGolden("tiny_llama_gqa", ComputeType::kF32, &backend_);
};

TEST_F(OpCountsTest, ALayersOpsAreTheSameForOneAndForManySequences) {
  for (const bool decode : {false, true}) {
    for (const PassKind& what :
         {PassKind{.decode = decode},
          PassKind{.capture = true, .decode = decode},
          PassKind{.rules = true, .decode = decode},
          PassKind{.capture = true, .rules = true, .decode = decode},
          PassKind{.decode = decode, .all_logits = false}}) {
      const Counts one = OfALayer(1, what), many = OfALayer(64, what);
      EXPECT_EQ(Text(one), Text(many));
      EXPECT_EQ(one.count("Upload"), 0u);
      const auto fetches = one.find("Fetch");
      EXPECT_LE(fetches == one.end() ? 0 : fetches->second, 1);
    }
  }
}

// These sequences have copies of K and V, so some of their ops are their own;
// none of these is a copy to or from the host.
TEST_F(OpCountsTest, RulesOnAttentionOnlyCopyNothingMore) {
  const PassKind what = {.rules = true, .attention_only = true};
  const Counts many = OfALayer(64, what);
  EXPECT_EQ(many.count("Upload"), 0u);
  EXPECT_EQ(many.at("Fetch"), 1);
  EXPECT_EQ(many.at("AppendKv"), 1);
  EXPECT_EQ(many.at("Attention"), 1);
}

TEST_F(OpCountsTest, ALayersOps) {
  const auto expect = [&](const PassKind& what, int ops) {
    const Counts counts = OfALayer(64, what);
    EXPECT_EQ(All(counts), ops) << Text(counts);
  };
  expect({}, 11);
  expect({.capture = true}, 11 + 5);
  expect({.rules = true}, 11 + 5);
  // Two tensors are gathered, and copied back.
  expect({.all_logits = false}, 11 + 4);
}

}  // namespace
}  // namespace qk::testing
