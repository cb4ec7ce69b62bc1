// Records what a sequence's hooks see (spec.proto's CaptureForm) and hands out
// finished frames. Everything runs as backend ops; results reach the host by
// copies that nothing waits for.
#ifndef QKSCOPE_ENGINE_HOOKS_CAPTURE_H_
#define QKSCOPE_ENGINE_HOOKS_CAPTURE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/backend/backend.h"
#include "engine/types/model_config.h"
#include "engine/types/pass_step.h"
#include "engine/types/results.h"
#include "engine/types/spec.h"

namespace qk {

class Capture {
 public:
  Capture(const ModelConfig& config, const RunSpec& spec, int arm);

  // Device memory that Reserve takes, bytes.
  int64_t bytes() const;
  absl::Status Reserve(Backend* backend);

  void Record(HookPoint point, int layer, Stage stage, const PassStep& pass,
              const HeadRows& x);
  bool WantsPattern(int layer, const PassStep& pass) const;
  void RecordPattern(int layer, const PassStep& pass, const float* q,
                     const AttentionRows& rows, ComputeType type);
  // Emits the norms over all decode steps. Once, after the last step. False:
  // there are none.
  bool FinishDecode();

  // Finished frames, as far as they have arrived on the host.
  std::vector<LayerFrame> TakeFrames();
  double seconds() const { return seconds_; }

  // Heads of a tensor with `physical` heads that the spec wants, ascending.
  static std::vector<int> HeadsOf(const CaptureSpec& spec,
                                  const AttentionConfig& attention,
                                  HookPoint point, int physical);

 private:
  struct Pending {
    LayerFrame frame;
    int64_t mark = 0;
  };

  // Heads of a tensor: for the frame, and for ops.
  struct ChosenHeads {
    std::vector<int> ids;
    HeadSet set;
  };

  bool Wants(HookPoint point, int layer, Stage stage,
             const PassStep& pass) const;
  void AddHeadList(int group);
  ChosenHeads HeadsFor(HookPoint point, int layer, const PassStep& pass,
                       int physical) const;
  void MakeRoom(const AttentionConfig& attention, int64_t rows);
  double* DecodeSum(HookPoint point, int layer, Stage stage, int heads);
  LayerFrame& Add(HookPoint point, int layer, Stage stage, const PassStep& pass,
                  std::vector<int> shape, RawDtype dtype,
                  std::vector<int> heads);
  void EmitNorms(HookPoint point, int layer, Stage stage, const PassStep& pass,
                 const double* squares, int heads, int head_dim);
  RowSet RowsOf(const PassStep& pass) const;
  void Send(const void* device, LayerFrame* frame);

  const ModelConfig& config_;
  const RunSpec& spec_;
  int arm_;
  Backend* backend_ = nullptr;
  int64_t widest_ = 0;            // heads * head_dim
  std::vector<int> layer_index_;  // (layers): place in spec, or -1
  DeviceBuffer squares_;          // (widest) f64
  DeviceBuffer staging_;          // one frame's payload
  int64_t staging_bytes_ = 0;
  DeviceBuffer decode_;            // (wanted layers, points, stages, widest)
  std::vector<int> decode_heads_;  // by the same index; 0: nothing summed
  // The spec's positions and then its heads, as far as it lists any: the heads
  // once for each number of query heads that a head of a tensor stands for.
  std::vector<int32_t> lists_;
  std::map<int, Range> head_lists_;  // in lists_, by that number
  DeviceBuffer device_lists_;        // a copy
  // A frame's bytes are written while others are added and taken: it stays
  // where it is, as a deque's elements do.
  std::deque<Pending> pending_;
  double seconds_ = 0;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_HOOKS_CAPTURE_H_
