// Passes whose second layer is looked at: its ops, or its launches and copies.
#ifndef QKSCOPE_TESTS_ENGINE_LAYER_STEP_H_
#define QKSCOPE_TESTS_ENGINE_LAYER_STEP_H_

#include <functional>
#include <memory>
#include <vector>

#include "tests/engine/forward_driver.h"

namespace qk::testing {

// What a pass does beside the model's own work.
struct PassKind {
  bool capture = false;
  bool rules = false;
  bool attention_only = false;
  bool decode = false;  // the pass after the prompt's
  // Logits of all rows of the prompt. Without, the second layer, which is the
  // last one, goes on after attention with a sequence's last row alone.
  bool all_logits = true;
};

inline RunSpec SpecOf(std::shared_ptr<const Model> model, int tokens,
                      const PassKind& kind) {
  RunSpec spec;
  for (int i = 0; i < tokens; ++i) spec.tokens.push_back(i % 90);
  spec.arms = {{"arm", std::move(model), {}}};
  if (kind.rules) {
    DisruptionRule rule;
    rule.stat_span = rule.positions = {0, tokens};
    rule.layers = {0, 1};
    rule.phase = 3;
    if (kind.attention_only) {
      rule.kv_cache = DisruptionRule::KvCache::kAttentionOnly;
    }
    spec.arms[0].rules = {rule};
  }
  spec.capture.off = !kind.capture;
  spec.capture.layers = {0, 1};
  spec.capture.points = {HookPoint::kRotQ, HookPoint::kRotK, HookPoint::kV};
  spec.capture.phase = 3;
  if (kind.all_logits) {
    spec.logits.emplace();
    spec.logits->top_n = 0;
    for (int i = 0; i < tokens; ++i) spec.logits->positions.push_back(i);
  }
  spec.generate.emplace();
  spec.generate->max_new_tokens = 3;
  return spec;
}

// Runs a pass of `sequences` prompts of 2 to 4 tokens. Calls begin and end
// before and after the step of its second layer.
inline void AroundALayer(const std::shared_ptr<const Model>& model,
                         int sequences, const PassKind& kind,
                         const std::function<void()>& begin,
                         const std::function<void()>& end) {
  Recorder recorder;
  std::vector<std::unique_ptr<qk::Run>> runs;
  for (int i = 0; i < sequences; ++i) {
    runs.push_back(
        qk::Run::Create(SpecOf(model, 2 + i % 3, kind), &recorder).value());
    EXPECT_TRUE(runs.back()->Reserve().ok());
  }
  for (int i = 0; i <= (kind.decode ? 1 : 0); ++i) {
    std::vector<Sequence*> all;
    for (auto& run : runs) run->AppendReady(model.get(), &all);
    Pass pass(*model, all);
    pass.RunStep();
    begin();
    pass.RunStep();
    end();
    while (!pass.done()) pass.RunStep();
    const absl::Status status = pass.Finish();
    for (size_t j = 0; j < runs.size(); ++j) {
      runs[j]->AfterPass(absl::MakeConstSpan(all).subspan(j, 1), status, 0);
    }
  }
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_LAYER_STEP_H_
