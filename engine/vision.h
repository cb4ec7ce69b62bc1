// Runs a vision tower over a request's images. vision.cc has the equations.
#ifndef QKSCOPE_ENGINE_VISION_H_
#define QKSCOPE_ENGINE_VISION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/backend/backend.h"
#include "engine/hooks/hook_ops.h"
#include "engine/hooks/run_hooks.h"
#include "engine/model/model.h"
#include "engine/model/workspace.h"
#include "engine/types/spec.h"

namespace qk {

struct LayerWeights;

// Called at a hook point of the tower's attention with one image's rows
// (patches, heads, head_dim); says who hooks them.
using VisionHook =
    std::function<HookedTensor(int image, HookPoint point, const HeadRows& x)>;

// The tower's pass over some images, layer by layer. An image's rows do not
// depend on the other images.
//
//   Vision vision(model, images);
//   vision.AddHook(hook);
//   absl::Status status = vision.Reserve();
//   while (!vision.done()) vision.RunLayer(ops);
class Vision {
 public:
  // `model` and `images` must outlive the object. CheckImages must have
  // accepted the images.
  Vision(const Model& model, absl::Span<const Image> images);

  // The number of patches of all images.
  int rows() const { return rows_; }
  // Bytes that Reserve takes. Only its first call takes them.
  int64_t bytes() const;
  absl::Status Reserve();

  // The hook is called for each layer, point and image. The rules of one hook
  // at most may change an image's rows.
  void AddHook(VisionHook hook) { hooks_.push_back(std::move(hook)); }

  bool done() const { return next_layer_ == config_.num_layers; }
  // The first call embeds the patches, the last one merges them.
  void RunLayer(HookOps& ops);

  // All images' rows (rows after merging, text's hidden). Valid once done.
  const float* embeddings() const { return embeddings_.as<float>(); }

 private:
  // One frame of an image. Attention does not look beyond a frame.
  struct Frame {
    int row_begin = 0;
    int rows = 0;
    int page_begin = 0;
  };

  std::vector<std::pair<DeviceBuffer*, int64_t>> Buffers();
  void FillRope();
  void Embed();
  void Attention(const LayerWeights& w, int layer, HookOps& ops);
  void Mlp(const LayerWeights& w);
  void Merge();
  void Hook(absl::Span<const std::pair<HookPoint, float*>> points, int layer,
            HookOps& ops) const;
  int64_t PageBytes() const;
  int tile_rows() const { return model_.workspace().mlp_rows(); }

  const Model& model_;
  const VisionConfig& config_;
  const absl::Span<const Image> images_;
  std::vector<VisionHook> hooks_;
  std::vector<Frame> frames_;
  int rows_ = 0;   // all images' patches
  int pages_ = 0;  // all frames' pages
  int next_layer_ = 0;
  // Each is (rows, hidden).
  DeviceBuffer hidden_, normed_, q_, k_, v_, z_;
  DeviceBuffer rope_;                    // (rows, 2, head_dim / 2)
  DeviceBuffer kv_;                      // pages of one layer
  std::unique_ptr<RowTable> row_table_;  // a sequence for each frame
  DeviceBuffer tile_;                    // some rows of patches or of the MLP
  DeviceBuffer embeddings_;              // (rows after merging, text's hidden)
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_VISION_H_
