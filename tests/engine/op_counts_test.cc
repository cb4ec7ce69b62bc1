// Counts the ops of passes: a layer's launches and copies must not depend on
// how many sequences share the pass, since each costs a GPU the same time,
// however little it does.
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/engine/forward_driver.h"
#include "tests/engine/forwarding_backend.h"

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

struct What {
  bool capture = false;
  bool rules = false;
  bool attention_only = false;
  bool decode = false;  // the pass after the prompt's
};

class OpCountsTest : public ::testing::Test {
 protected:
  RunSpec Spec(int tokens, const What& what) {
    RunSpec spec;
    for (int i = 0; i < tokens; ++i) spec.tokens.push_back(i % 90);
    spec.arms = {{"arm", model_, {}}};
    if (what.rules) {
      DisruptionRule rule;
      rule.stat_span = rule.positions = {0, tokens};
      rule.layers = {0, 1};
      rule.phase = 3;
      if (what.attention_only) {
        rule.kv_cache = DisruptionRule::KvCache::kAttentionOnly;
      }
      spec.arms[0].rules = {rule};
    }
    spec.capture.off = !what.capture;
    spec.capture.layers = {0, 1};
    spec.capture.points = {HookPoint::kRotQ, HookPoint::kRotK, HookPoint::kV};
    spec.capture.phase = 3;
    spec.generate.emplace();
    spec.generate->max_new_tokens = 3;
    return spec;
  }

  // The ops of one layer of a pass of `sequences` sequences: of the second
  // layer's step.
  Counts OfALayer(int sequences, const What& what) {
    Recorder recorder;
    std::vector<std::unique_ptr<qk::Run>> runs;
    for (int i = 0; i < sequences; ++i) {
      runs.push_back(qk::Run::Create(Spec(2 + i % 3, what), &recorder).value());
      EXPECT_TRUE(runs.back()->Reserve().ok());
    }
    Counts layer;
    for (int i = 0; i <= (what.decode ? 1 : 0); ++i) {
      std::vector<Sequence*> all;
      for (auto& run : runs) run->AppendReady(model_.get(), &all);
      Pass pass(*model_, all);
      pass.RunStep();
      backend_.counts.clear();
      pass.RunStep();
      layer = std::exchange(backend_.counts, {});
      while (!pass.done()) pass.RunStep();
      const absl::Status status = pass.Finish();
      for (size_t j = 0; j < runs.size(); ++j) {
        runs[j]->AfterPass(absl::MakeConstSpan(all).subspan(j, 1), status, 0);
      }
    }
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
    for (const What& what :
         {What{.decode = decode}, What{.capture = true, .decode = decode},
          What{.rules = true, .decode = decode},
          What{.capture = true, .rules = true, .decode = decode}}) {
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
  const What what = {.rules = true, .attention_only = true};
  const Counts many = OfALayer(64, what);
  EXPECT_EQ(many.count("Upload"), 0u);
  EXPECT_EQ(many.at("Fetch"), 1);
  EXPECT_EQ(many.at("AppendKv"), 1);
  EXPECT_EQ(many.at("Attention"), 1);
}

TEST_F(OpCountsTest, ALayersOps) {
  const auto expect = [&](const What& what, int ops) {
    const Counts counts = OfALayer(64, what);
    EXPECT_EQ(All(counts), ops) << Text(counts);
  };
  expect({}, 11);
  expect({.capture = true}, 11 + 5);
  expect({.rules = true}, 11 + 5);
}

}  // namespace
}  // namespace qk::testing
