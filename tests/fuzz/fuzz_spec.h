// What holds for every spec that the server's conversion accepts, and what the
// engine relies on.
#ifndef QKSCOPE_TESTS_FUZZ_FUZZ_SPEC_H_
#define QKSCOPE_TESTS_FUZZ_FUZZ_SPEC_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "engine/base/check.h"
#include "engine/images.h"
#include "engine/types/model_config.h"
#include "engine/types/spec.h"

namespace qk::fuzz {

inline void CheckIndices(const std::vector<int>& values, int size) {
  for (size_t i = 0; i < values.size(); ++i) {
    QK_CHECK(values[i] >= 0 && values[i] < size);
    QK_CHECK(i == 0 || values[i - 1] < values[i]);
  }
}

inline void CheckSpan(Range span, int64_t end) {
  QK_CHECK(span.begin >= 0 && span.begin < span.end && span.end <= end);
}

inline int Heads(const DisruptionRule& rule, Qkv tensor,
                 const AttentionConfig& attention) {
  const bool by_query =
      tensor == Qkv::kQ ||
      rule.kv_grouping == DisruptionRule::KvGrouping::kQueryHead;
  return by_query ? attention.num_heads : attention.num_kv_heads;
}

inline void CheckRuleInLayer(const DisruptionRule& rule,
                             const AttentionConfig& attention) {
  QK_CHECK(attention.num_heads > 0);
  for (const Qkv tensor : rule.tensors) {
    const int heads = Heads(rule, tensor, attention);
    CheckIndices(rule.heads, heads);
    for (const HeadDim& entry : rule.entries) {
      QK_CHECK(entry.head >= 0 && entry.head < heads);
      QK_CHECK(entry.dim >= 0 && entry.dim < attention.head_dim);
    }
  }
  QK_CHECK(rule.k >= 0 && rule.k <= attention.head_dim);
  if (rule.select == DisruptionRule::Select::kRandomK) {
    QK_CHECK(rule.exclude_top >= 0);
    QK_CHECK(rule.exclude_top <= attention.head_dim - rule.k);
  }
}

inline void CheckRule(const DisruptionRule& rule, const ModelConfig& config,
                      int64_t tokens) {
  QK_CHECK(!rule.tensors.empty() && rule.tensors.size() <= 3);
  CheckIndices(rule.layers, config.num_layers(rule.vision));
  for (const int layer : rule.layers) {
    CheckRuleInLayer(rule, config.attention(rule.vision, layer));
  }
  QK_CHECK(std::isfinite(rule.lambda) && rule.lambda > 0);
  QK_CHECK(std::abs(rule.factor) <= std::numeric_limits<float>::max());
  QK_CHECK(rule.phase >= 1 && rule.phase <= 3);
  CheckSpan(rule.stat_span, rule.vision ? kMaxPatches : tokens);
  CheckSpan(rule.positions, rule.vision ? kMaxPatches : tokens);
}

inline void CheckCapture(const CaptureSpec& capture, const ModelConfig& config,
                         int tokens) {
  CheckIndices(capture.layers, config.num_layers());
  CheckIndices(capture.vision_layers, config.vision.num_layers);
  CheckIndices(capture.positions, tokens);
  for (const int layer : capture.layers) {
    QK_CHECK(config.has_attention(layer));
    CheckIndices(capture.heads, config.layers[layer].attention.num_heads);
  }
  QK_CHECK(!capture.points.empty());
  QK_CHECK(capture.points.size() <= kNumHookPoints);
  QK_CHECK(capture.phase >= 1 && capture.phase <= 3);
  QK_CHECK(capture.stage >= 1 && capture.stage <= 3);
}

inline void CheckGenerate(const GenerateSpec& generate,
                          const ModelConfig& config, int tokens) {
  QK_CHECK(generate.max_new_tokens >= 1);
  QK_CHECK(generate.max_new_tokens <= config.context_length - tokens);
  const SamplingSpec& sampling = generate.sampling;
  QK_CHECK(std::isfinite(sampling.temperature) && sampling.temperature >= 0);
  QK_CHECK(sampling.top_p > 0 && sampling.top_p <= 1 && sampling.top_k >= 0);
  for (const int32_t id : generate.stop_ids) {
    QK_CHECK(id >= 0 && id < config.vocab_size);
  }
  for (const std::string& stop : generate.stop_strings) {
    QK_CHECK(!stop.empty());
  }
}

inline void CheckSpec(const RunSpec& spec, const ModelConfig& config) {
  const int tokens = static_cast<int>(spec.tokens.size());
  const int all = tokens + static_cast<int>(spec.continuation.size());
  QK_CHECK(tokens >= 1 && all <= config.context_length);
  QK_CHECK(spec.continuation.empty() || !spec.generate.has_value());
  for (int i = 0; i < all; ++i) {
    QK_CHECK(spec.token_at(i) >= 0 && spec.token_at(i) < config.vocab_size);
  }
  QK_CHECK(CheckImages(spec.images, spec.tokens, config.vision).ok());
  QK_CHECK(!spec.arms.empty());
  for (const ArmSpec& arm : spec.arms) {
    QK_CHECK(!arm.name.empty() && arm.model != nullptr);
    for (const DisruptionRule& rule : arm.rules) {
      QK_CHECK(!rule.vision || !spec.images.empty());
      CheckRule(rule, config, tokens);
    }
  }
  CheckCapture(spec.capture, config, tokens);
  QK_CHECK(std::isfinite(spec.statistics.lambda) && spec.statistics.lambda > 0);
  QK_CHECK(spec.statistics.top_n >= 0);
  const int baseline = spec.baseline.value_or(0);
  QK_CHECK(baseline >= 0 && baseline < static_cast<int>(spec.arms.size()));
  if (spec.logits.has_value()) {
    QK_CHECK(spec.logits->top_n >= 1);
    QK_CHECK(spec.logits->top_n <= config.vocab_size);
    QK_CHECK(!spec.logits->positions.empty());
    CheckIndices(spec.logits->positions, tokens);
  }
  if (spec.score.has_value()) {
    QK_CHECK(spec.score->begin >= 1);
    CheckSpan(*spec.score, all);
  }
  if (spec.generate.has_value()) CheckGenerate(*spec.generate, config, tokens);
}

}  // namespace qk::fuzz

#endif  // QKSCOPE_TESTS_FUZZ_FUZZ_SPEC_H_
