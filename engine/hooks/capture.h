// Records the tensors at a sequence's hook points, in the forms of
// proto/qkscope/v1/spec.proto's CaptureForm, and hands out finished frames.
// Everything runs as backend ops. Nothing waits for the copies to the host.
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
#include "engine/types/results.h"
#include "engine/types/row_span.h"
#include "engine/types/spec.h"

namespace qk {

class Capture {
 public:
  Capture(const ModelConfig& config, const RunSpec& spec, int arm);

  // Device memory that Reserve takes, bytes.
  int64_t bytes() const;
  absl::Status Reserve(Backend* backend);

  void Record(HookPoint point, int layer, Stage stage, const RowSpan& span,
              const HeadRows& x);
  bool WantsPattern(int layer, const RowSpan& span) const;
  void RecordPattern(int layer, const RowSpan& span, const float* q,
                     const AttentionRows& rows, ComputeType type);
  // Emits the norms over all decode steps. Called once, after the last step.
  // False: there are none.
  bool FinishDecode();

  // Returns the finished frames that have arrived on the host.
  std::vector<LayerFrame> TakeFrames();
  double seconds() const { return seconds_; }

  // The heads that the spec wants from a tensor of `physical` heads, ascending.
  static std::vector<int> HeadsOf(const CaptureSpec& spec,
                                  const AttentionConfig& attention,
                                  HookPoint point, int physical);

 private:
  struct Pending {
    LayerFrame frame;
    int64_t mark = 0;
  };

  // The wanted heads of a tensor, for the frame and for ops.
  struct ChosenHeads {
    std::vector<int> ids;
    HeadSet set;
  };

  bool Wants(HookPoint point, int layer, Stage stage,
             const RowSpan& span) const;
  void AddHeadList(int group);
  ChosenHeads HeadsFor(HookPoint point, int layer, const RowSpan& span,
                       int physical) const;
  void MakeRoom(const AttentionConfig& attention, int64_t rows);
  double* DecodeSum(HookPoint point, int layer, Stage stage, int heads);
  LayerFrame& AddFrame(HookPoint point, int layer, Stage stage,
                       const RowSpan& span, std::vector<int> shape,
                       RawDtype dtype, std::vector<int> heads);
  void EmitNorms(HookPoint point, int layer, Stage stage, const RowSpan& span,
                 const double* squares, int heads, int head_dim);
  RowSet RowsOf(const RowSpan& span) const;
  void DownloadFrame(const void* device, LayerFrame* frame);

  const ModelConfig& config_;
  const RunSpec& spec_;
  int arm_;
  Backend* backend_ = nullptr;
  int64_t widest_ = 0;            // heads * head_dim
  std::vector<int> layer_index_;  // (layers): index in the spec, or -1
  DeviceBuffer squares_;          // (widest) f64
  DeviceBuffer staging_;          // one frame's payload
  int64_t staging_bytes_ = 0;
  DeviceBuffer decode_;            // (wanted layers, points, stages, widest)
  std::vector<int> decode_heads_;  // index as in decode_; 0: nothing is summed
  // The positions that the spec lists, then the heads: one list of heads for
  // each number of query heads that a tensor's head stands for.
  std::vector<int32_t> lists_;
  std::map<int, Range> head_lists_;  // places in lists_, by that number
  DeviceBuffer device_lists_;        // the device's copy of lists_
  // A frame must stay in place while its bytes arrive and other frames are
  // added and taken, so this is a deque.
  std::deque<Pending> pending_;
  double seconds_ = 0;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_HOOKS_CAPTURE_H_
