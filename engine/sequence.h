// One arm of a run on the device: its tokens, cache, rules, capture, and what
// it wants from the head of the model.
#ifndef QKSCOPE_ENGINE_SEQUENCE_H_
#define QKSCOPE_ENGINE_SEQUENCE_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "engine/backend/backend.h"
#include "engine/hooks/capture.h"
#include "engine/hooks/disrupt.h"
#include "engine/model/kv_cache.h"
#include "engine/model/model.h"
#include "engine/model/workspace.h"
#include "engine/run/run.h"
#include "engine/types/pass_step.h"
#include "engine/types/rope_rows.h"
#include "engine/types/spec.h"
#include "engine/vision.h"

namespace qk {

// What a sequence wants of the logits after one of the pass's rows.
struct HeadRequest {
  int position = 0;     // absolute
  int32_t target = -1;  // its log-probability; -1: none
  int top_n = 0;
  bool want_logits = false;  // the whole row on the host, for sampling
};

struct HeadResult {
  LogitsRow row;
  std::vector<int32_t> ids;     // (top_n), most likely first
  std::vector<float> logprobs;  // (top_n)
  std::vector<float> logits;    // (vocab) if wanted
};

class Sequence {
 public:
  // `spec`, `cancelled` and `sink` must outlive the sequence. `vision`: another
  // arm's, of the same model; null: a tower's pass of its own, if there are
  // images.
  Sequence(const RunSpec& spec, int arm, const std::atomic<bool>& cancelled,
           RunSink* sink, std::shared_ptr<Vision> vision = nullptr);

  // Takes all memory: pages for the prompt and max_new_tokens, rules, capture,
  // and the prompt's final hidden rows where they are to be compared.
  absl::Status Reserve();
  // Bytes that Reserve takes beside pages and the tower's.
  int64_t extra_bytes() const;

  const Model& model() const { return *spec_.arms[arm_].model; }
  int arm() const { return arm_; }
  bool cancelled() const { return cancelled_; }

  // --- what it runs next
  bool in_prefill() const { return cached_ < prompt_tokens(); }
  int prompt_tokens() const { return static_cast<int>(spec_.tokens.size()); }
  PassStep NextStep() const;
  // Token ids of the next step's rows.
  absl::Span<const int32_t> NextTokens() const;
  void AppendToken(int32_t id) { tokens_.push_back(id); }
  // Rows of the tower's pass before it, if that is this sequence's own.
  int TowerRows() const;
  // The step's rows are in the cache.
  void Advance(const PassStep& step);
  // What RoPE turns the row at a position with.
  RopePosition rope_position(int position) const;

  // --- images
  // The first arm of `spec` whose tower's rows are `arm`'s too: the model's,
  // undisrupted, or its own.
  static int ArmOfTower(const RunSpec& spec, int arm);
  // The tower's pass over them, to be done before the prompt's rows go through
  // the layers; null without images and after prefill.
  const std::shared_ptr<Vision>& vision() const { return vision_; }
  // Where the tower's rows lie in the prompt.
  const std::vector<Range>& image_places() const { return image_places_; }

  // --- called from the forward pass
  // A hook point: captures before, disrupts, captures after. `x`: what
  // attention reads.
  void Hook(HookPoint point, int layer, const PassStep& step,
            const HeadRows& x);
  void HookPattern(int layer, const PassStep& step, const float* q,
                   const AttentionRows& rows);
  Disruptor& disruptor() { return disruptor_; }
  const Disruptor& disruptor() const { return disruptor_; }
  // Own copies of K and V (prompt, heads, head_dim), where the layer's layout
  // asks for them.
  float* k_copy() const { return k_copy_.as<float>(); }
  float* v_copy() const { return v_copy_.as<float>(); }
  // What a Mamba layer keeps of the rows so far.
  struct MambaState {
    float* conv = nullptr;  // (inner, kernel - 1)
    float* scan = nullptr;  // (inner, state)
  };
  MambaState mamba_state(int layer) const;
  // This layer's pages for storing, and for attention to read.
  std::vector<KvPage> CachePages(int layer) const;
  // Pages that hold `heads` heads of the step's rows; those of earlier rows
  // are the cache's.
  std::vector<KvPage> FreshPages(int layer, int heads, const PassStep& step);
  // Sends captured frames and reports that have arrived.
  void Deliver();

  // --- the head
  std::vector<HeadRequest> head_requests;  // of the next pass
  std::vector<HeadResult> head_results;    // of the last pass
  // The prompt's rows as lm_head takes them (prompt, embedding_size), if they
  // are kept; else null.
  float* kept_rows() const { return kept_rows_.as<float>(); }

  // Sends what was summed over decode steps. Waits for the device if there is
  // anything.
  absl::Status FinishDecodeCapture();
  double capture_seconds() const { return capture_.seconds(); }
  // How often each hook point fired.
  const std::array<int64_t, kNumHookPoints>& hooks_fired() const {
    return fired_;
  }

 private:
  int max_positions() const;
  void SetImages();
  void HookVision(int image, HookPoint point, int layer, const HeadRows& x);

  const RunSpec& spec_;
  const int arm_;
  const std::atomic<bool>& cancelled_;
  RunSink* sink_;
  std::vector<int32_t> tokens_;  // prompt and generated
  int cached_ = 0;               // positions in the cache
  std::shared_ptr<Vision> vision_;
  const bool shares_vision_;
  std::vector<Range> image_places_;
  std::vector<RopePosition> rope_positions_;  // (prompt); empty: no images
  int decode_shift_ = 0;  // of a generated token's RoPE position
  PageList pages_;
  Disruptor disruptor_;
  // (images) if a rule is of the tower, else empty.
  std::vector<Disruptor> vision_disruptors_;
  Capture capture_;
  DeviceBuffer k_copy_, v_copy_;
  DeviceBuffer fresh_;  // pages of one layer
  DeviceBuffer kept_rows_;
  DeviceBuffer mamba_states_;  // of all Mamba layers, one after another
  std::array<int64_t, kNumHookPoints> fired_{};
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_SEQUENCE_H_
