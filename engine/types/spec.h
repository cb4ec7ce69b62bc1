// What a request asks of the engine, as plain data: arms with their disruption
// rules, capture, comparison, generation. server/convert/ makes these structs
// from messages and checks every field; the engine relies on that.
//
// Terms: arXiv:2502.01563 (massive values, disruption); hook points carry
// TransformerLens's names.
#ifndef QKSCOPE_ENGINE_TYPES_SPEC_H_
#define QKSCOPE_ENGINE_TYPES_SPEC_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace qk {

class Model;

enum class Qkv { kQ = 0, kK = 1, kV = 2 };

enum class HookPoint {
  kQ = 0,        // (rows, num_heads, head_dim), q_proj's output
  kK = 1,        // (rows, num_kv_heads, head_dim), k_proj's output
  kV = 2,        // (rows, num_kv_heads, head_dim), v_proj's output
  kRotQ = 3,     // Q after RoPE
  kRotK = 4,     // K after RoPE
  kZ = 5,        // (rows, num_heads, head_dim), attention before o_proj
  kPattern = 6,  // (rows, num_heads, keys), attention probabilities
};
inline constexpr int kNumHookPoints = 7;

enum class CaptureForm { kNormOverTokens, kNormPerToken, kRaw };
enum class Phase { kPrefill = 1, kDecode = 2 };
enum class Stage { kBefore = 1, kAfter = 2 };
enum class RawDtype { kF32, kF16, kBF16 };

// A set of phases or stages, by the bits of the enums above.
using PhaseSet = unsigned;
using StageSet = unsigned;
inline bool Has(unsigned set, Phase phase) {
  return (set & static_cast<unsigned>(phase)) != 0;
}
inline bool Has(unsigned set, Stage stage) {
  return (set & static_cast<unsigned>(stage)) != 0;
}

// Positions [begin, end).
struct Range {
  int begin = 0;
  int end = 0;
  int size() const { return end - begin; }
  bool Contains(int position) const {
    return begin <= position && position < end;
  }
};

// One image has this many patches at most.
inline constexpr int64_t kMaxPatches = int64_t{1} << 20;
inline constexpr Range kAllPatches = {0, static_cast<int>(kMaxPatches)};

struct HeadDim {
  int head = 0;
  int dim = 0;
};

// proto/qkscope/v1/spec.proto's DisruptionRule defines the exact meaning.
struct DisruptionRule {
  enum class Point { kPostRope, kPreRope };
  enum class Select { kTopK, kBottomK, kRandomK, kThreshold, kExplicit };
  enum class Axis { kPerHead, kPerToken };
  enum class Replace { kPooledMean, kPerDimMean, kZero, kScale };
  enum class KvGrouping { kKvHead, kQueryHead };
  enum class KvCache { kPersist, kAttentionOnly };

  std::vector<Qkv> tensors = {Qkv::kQ, Qkv::kK};
  Point point = Point::kPostRope;
  Select select = Select::kTopK;
  int k = 1;                     // kTopK, kBottomK, kRandomK
  uint64_t seed = 0;             // kRandomK
  int exclude_top = 1;           // kRandomK
  double lambda = 5.0;           // kThreshold
  std::vector<HeadDim> entries;  // kExplicit
  Axis axis = Axis::kPerHead;
  Replace replace = Replace::kPooledMean;
  double factor = 1.0;  // kScale
  KvGrouping kv_grouping = KvGrouping::kKvHead;
  PhaseSet phase = static_cast<unsigned>(Phase::kPrefill);
  bool reselect = false;
  KvCache kv_cache = KvCache::kPersist;
  Range stat_span;          // absolute, within the prompt, not empty
  Range positions;          // absolute, within the prompt
  std::vector<int> layers;  // ascending, resolved: never means "all"
  std::vector<int> heads;   // ascending; empty = all
  // The rule acts on the vision tower: layers and heads are the tower's, an
  // image's patches are the positions, and stat_span and positions are
  // kAllPatches.
  bool vision = false;
};

struct CaptureSpec {
  bool off = false;
  std::vector<int> layers;  // ascending, resolved
  // The vision tower's layers, ascending; empty = none. All heads and patches
  // are captured.
  std::vector<int> vision_layers;
  std::vector<int> heads;      // query heads, ascending; empty = all
  std::vector<int> positions;  // prompt positions, ascending; empty = all
  std::vector<HookPoint> points = {HookPoint::kRotQ, HookPoint::kRotK,
                                   HookPoint::kV};
  CaptureForm form = CaptureForm::kNormOverTokens;
  PhaseSet phase = static_cast<unsigned>(Phase::kPrefill);
  StageSet stage = static_cast<unsigned>(Stage::kBefore);
  RawDtype raw_dtype = RawDtype::kF32;
};

struct StatisticsSpec {
  double lambda = 5.0;
  int top_n = 8;
};

struct SamplingSpec {
  double temperature = 0.0;  // 0: greedy
  double top_p = 1.0;
  int top_k = 0;  // 0: off
  uint64_t seed = 0;
};

struct GenerateSpec {
  int max_new_tokens = 0;
  SamplingSpec sampling;
  std::vector<std::string> stop_strings;
  std::vector<int32_t> stop_ids;  // includes the model's own
};

struct LogitsSpec {
  int top_n = 10;
  std::vector<int> positions;  // prompt positions, ascending
};

struct ArmSpec {
  std::string name;
  std::shared_ptr<const Model> model;
  std::vector<DisruptionRule> rules;
};

// An image as patches of pixels, in the order of transformers'
// Qwen2VLImageProcessor: by frame, then by row and column of merged patches,
// then by row and column within one. A patch holds (channels, frames, rows,
// columns).
struct Image {
  int frames = 0;  // of the grid of patches
  int rows = 0;
  int columns = 0;
  std::vector<float> values;  // (patches, VisionConfig::patch_values)

  int64_t patches() const { return int64_t{frames} * rows * columns; }
};

struct RunSpec {
  std::vector<int32_t> tokens;  // 1 or more, all inside the vocabulary
  // Tokens after the prompt that run as decode rows, as if they had been
  // generated. Excludes `generate`.
  std::vector<int32_t> continuation;
  // In the order of their placeholders in `tokens`. CheckImages accepts them.
  std::vector<Image> images;
  std::vector<ArmSpec> arms;  // 1 or more
  CaptureSpec capture;
  StatisticsSpec statistics;
  std::optional<int> baseline;  // compare with this arm
  std::optional<LogitsSpec> logits;
  // Positions of tokens, those of the continuation included, whose
  // log-probability and greedy flag are wanted; begin >= 1.
  std::optional<Range> score;
  std::optional<GenerateSpec> generate;

  int32_t token_at(int position) const {
    const int prompt = static_cast<int>(tokens.size());
    return position < prompt ? tokens[position]
                             : continuation[position - prompt];
  }
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TYPES_SPEC_H_
