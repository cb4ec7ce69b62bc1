// One arm of a run on the device: its tokens, cache, rules, capture, and
// requests for logits.
#ifndef QKSCOPE_ENGINE_SEQUENCE_H_
#define QKSCOPE_ENGINE_SEQUENCE_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "engine/backend/backend.h"
#include "engine/hooks/capture.h"
#include "engine/hooks/disrupt.h"
#include "engine/hooks/hook_ops.h"
#include "engine/hooks/run_hooks.h"
#include "engine/model/kv_cache.h"
#include "engine/model/model.h"
#include "engine/model/workspace.h"
#include "engine/run/run.h"
#include "engine/types/rope_rows.h"
#include "engine/types/row_span.h"
#include "engine/types/spec.h"
#include "engine/vision.h"

namespace qk {

// What a sequence wants to know of the logits of one row of a pass.
struct LogitsRequest {
  int position = 0;     // absolute
  int32_t target = -1;  // the id whose log-probability is wanted; -1: none
  int top_n = 0;
  bool want_logits = false;  // the whole row on the host, for sampling
};

struct LogitsResult {
  LogitsRow row;
  std::vector<int32_t> ids;     // (top_n), most likely first
  std::vector<float> logprobs;  // (top_n)
  std::vector<float> logits;    // (vocab) if wanted
};

class Sequence {
 public:
  // `spec`, `cancelled` and `sink` must outlive the sequence. `vision`: the
  // tower's pass of another arm of the same model, to share; null: the sequence
  // makes its own if there are images.
  Sequence(const RunSpec& spec, int arm, const std::atomic<bool>& cancelled,
           RunSink* sink, std::shared_ptr<Vision> vision = nullptr);

  // Takes all memory: pages for the prompt and what follows it, the buffers of
  // rules and capture, and the prompt's final hidden rows if the run compares
  // arms.
  absl::Status Reserve();
  // Bytes that Reserve takes, without the pages, the tower's buffers and the
  // model's workspace.
  int64_t extra_bytes() const;
  // Bytes of the workspace's staging() that a result needs.
  int64_t staging_bytes() const;

  const Model& model() const { return *spec_.arms[arm_].model; }
  int arm() const { return arm_; }
  bool cancelled() const { return cancelled_; }

  // --- what it runs next
  bool in_prefill() const { return cached_ < prompt_tokens(); }
  int prompt_tokens() const { return static_cast<int>(spec_.tokens.size()); }
  // The rows of the sequence's next pass: the prompt, then one generated token,
  // or as many of the continuation's as may run together. When the sequence
  // grows past LongRoPE's original context, all rows run again first.
  RowSpan NextSpan() const;
  // Whether tokens are known that are not in the cache.
  bool has_next() const { return cached_ < static_cast<int>(tokens_.size()); }
  // Token ids of those rows.
  absl::Span<const int32_t> NextTokens() const;
  void AppendToken(int32_t id);
  // The most rows that a pass of the sequence has.
  int max_rows() const { return std::max(prompt_tokens(), decode_rows_); }
  // Rows that the tower must still run before them. 0 if another arm owns the
  // tower's pass.
  int TowerRows() const;
  // The cache now holds these rows.
  void Advance(const RowSpan& span);
  // The coordinates by which RoPE rotates the row at a position.
  RopePosition rope_position(int position) const;
  // The length of the first `positions` positions, not fewer than the prompt's,
  // by which RoPE's scaling chooses frequencies.
  int rope_length(int positions) const;

  // --- images
  // The arm whose tower's pass `arm` uses: the first one with the same model
  // whose tower is undisrupted, or `arm` itself.
  static int TowerOwner(const RunSpec& spec, int arm);
  // The tower's pass over the images. It must be done before the prompt's rows
  // go through the layers. Null without images and after prefill.
  const std::shared_ptr<Vision>& vision() const { return vision_; }
  // Where the tower's rows lie in the prompt.
  const std::vector<Range>& image_places() const { return image_places_; }

  // --- called from the forward pass
  // A hook point fires. `x`: what attention reads; `kept`: what the cache
  // keeps, if that is another tensor.
  HookedTensor Hook(HookPoint point, const RowSpan& span, const HeadRows& x,
                    const HeadRows& kept);
  // Fires the pattern's point. Returns the bytes of HookOps' memory that its
  // frame needs, 0 if nothing is captured.
  int64_t HookPattern(int layer, const RowSpan& span);
  Capture& capture() { return capture_; }
  Disruptor& disruptor() { return disruptor_; }
  const Disruptor& disruptor() const { return disruptor_; }
  // The sequence's copies of K and V (prompt, heads, head_dim), used if the
  // layer's layout asks for them.
  float* k_copy() const { return k_copy_.as<float>(); }
  float* v_copy() const { return v_copy_.as<float>(); }
  // What an op needs to know of the rows; row_begin is the batch's.
  SequenceRows rows(int row_begin, const RowSpan& span) const;
  // Pages of the layer that hold `heads` heads of k_copy and v_copy.
  FreshPages fresh_pages(int layer, int heads) const;
  // Sends the captured frames and reports that have arrived on the host.
  void Deliver();

  // --- logits
  std::vector<LogitsRequest> logits_requests;  // of the next pass
  std::vector<LogitsResult> logits_results;    // of the last pass
  // The prompt's rows that lm_head takes (prompt, embedding_size); null if the
  // run compares nothing.
  float* kept_rows() const { return kept_rows_.as<float>(); }

  // Sends the norms summed over decode steps, and the reports of what was
  // written in all of them. Waits for the device if there are any.
  absl::Status FinishDecode();
  double capture_seconds() const { return capture_.seconds(); }
  // How often each hook point fired.
  const std::array<int64_t, kNumHookPoints>& hooks_fired() const {
    return fired_;
  }

 private:
  int max_positions() const;
  int MaxDecodeRows() const;
  bool MustRecompute(int from, int to) const;
  void RestartIfRopeChanges();
  void SetImages();
  HookedTensor HookVision(int image, HookPoint point, const HeadRows& x);
  HookOps MakeHookOps() const;

  const RunSpec& spec_;
  const int arm_;
  const std::atomic<bool>& cancelled_;
  RunSink* sink_;
  std::vector<int32_t> tokens_;  // prompt, then continuation or generated
  int cached_ = 0;               // positions in the cache
  int recomputed_ = 0;           // positions that run for the second time
  int least_rope_length_ = 0;    // by which these are rotated
  int decode_rows_ = 1;          // at most, of a pass
  std::shared_ptr<Vision> vision_;
  const bool shares_vision_;
  std::vector<Range> image_places_;
  std::vector<RopePosition> rope_positions_;  // (prompt); empty: no images
  int decode_shift_ = 0;  // RoPE position minus position of generated tokens
  PageList pages_;
  std::vector<void*> page_list_;  // of pages_
  Disruptor disruptor_;
  // (images) if a rule acts on the tower, else empty.
  std::vector<Disruptor> vision_disruptors_;
  Capture capture_;
  DeviceBuffer k_copy_, v_copy_;
  DeviceBuffer fresh_;  // pages of one layer
  DeviceBuffer kept_rows_;
  DeviceBuffer mamba_states_;  // all Mamba layers, one after another
  std::array<int64_t, kNumHookPoints> fired_{};
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_SEQUENCE_H_
