// Records the tensors at a sequence's hook points, in the forms of
// proto/qkscope/v1/spec.proto's CaptureForm, and hands out finished frames.
// Everything runs as backend ops. Nothing waits for the copies to the host.
#ifndef QKSCOPE_ENGINE_HOOKS_CAPTURE_H_
#define QKSCOPE_ENGINE_HOOKS_CAPTURE_H_

#include <compare>
#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/backend/backend.h"
#include "engine/hooks/hook_ops.h"
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
  // Bytes of HookOps' memory that a frame needs.
  int64_t staging_bytes() const { return staging_bytes_; }
  absl::Status Reserve(Backend* backend);

  // Adds the jobs of a frame if it is wanted. Returns the number of values that
  // they read, 0 if it is not. `by_query`: K or V has one head per query head.
  // Otherwise the frame has the model's KV heads, even if `x` repeats each for
  // its group.
  int64_t Record(HookPoint point, int layer, Stage stage, const RowSpan& span,
                 const HeadRows& x, bool by_query, HookOps& ops);
  // Whether a frame of the point is wanted, of any stage.
  bool Wants(HookPoint point, int layer, const RowSpan& span) const;
  // Bytes of HookOps' memory that a frame of the pattern needs; 0: none is
  // wanted.
  int64_t PatternBytes(int layer, const RowSpan& span) const;
  // Makes that frame. The job lacks the sequence; HookOps does not run it.
  PatternJob RecordPattern(int layer, const RowSpan& span, HookOps& ops);
  // Counts `seconds` as time that the capture took.
  void Charge(double seconds) { seconds_ += seconds; }
  // Emits the norms over all decode steps. Called once, after the last step.
  // False: there are none.
  bool FinishDecode(HookOps& ops);

  // Returns the finished frames that have arrived on the host.
  std::vector<LayerFrame> TakeFrames();
  double seconds() const { return seconds_; }

  // The number of heads in a frame of the point.
  static int64_t NumHeads(const CaptureSpec& spec,
                          const AttentionConfig& attention, HookPoint point,
                          bool by_query);

 private:
  struct Pending {
    LayerFrame frame;
    int rope_length = 0;  // as in RowSpan
    StagedResult data;
  };

  // How the heads that a frame counts lie in a tensor.
  struct HeadView {
    int heads = 0;   // of the tensor without repetitions; 0: there is no frame
    int group = 1;   // query heads that read each of them
    int copies = 1;  // how often the tensor repeats each
    auto operator<=>(const HeadView&) const = default;
  };
  // The wanted heads of a tensor, for the frame and for ops.
  struct ChosenHeads {
    std::vector<int> ids;
    HeadSet set;
  };

  bool Wants(HookPoint point, int layer, Stage stage,
             const RowSpan& span) const;
  HeadView ViewOf(HookPoint point, int layer, const RowSpan& span, int physical,
                  bool by_query) const;
  void AddHeadList(const HeadView& view);
  ChosenHeads PatternHeads(int layer, const RowSpan& span) const;
  ChosenHeads HeadsFor(const HeadView& view, const RowSpan& span) const;
  void MakeRoom(const AttentionConfig& attention, int64_t rows);
  double* DecodeSum(HookPoint point, int layer, Stage stage,
                    const HeadView& view);
  void AddFrame(HookPoint point, int layer, Stage stage, const RowSpan& span,
                std::vector<int> shape, RawDtype dtype, std::vector<int> heads,
                int group);
  // Takes room for the newest frame.
  HookOps::Room RoomForFrame(HookOps& ops, int64_t scratch_bytes = 0);
  RowSet RowsOf(const RowSpan& span) const;

  const ModelConfig& config_;
  const RunSpec& spec_;
  int arm_;
  Backend* backend_ = nullptr;
  int64_t widest_ = 0;            // heads * head_dim
  std::vector<int> layer_index_;  // (layers): index in the spec, or -1
  int64_t staging_bytes_ = 0;
  DeviceBuffer decode_;  // (wanted layers, points, stages, widest)
  std::vector<HeadView> decode_views_;  // index as in decode_
  int decode_rope_length_ = 0;          // of the last decode step
  // The positions that the spec lists, then a list of places of heads for each
  // view that needs one.
  std::vector<int32_t> lists_;
  std::map<HeadView, Range> head_lists_;  // places in lists_
  DeviceBuffer device_lists_;             // the device's copy of lists_
  std::deque<Pending> pending_;
  double seconds_ = 0;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_HOOKS_CAPTURE_H_
