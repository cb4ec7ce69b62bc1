#include "engine/hooks/capture.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "absl/algorithm/container.h"
#include "engine/base/check.h"

namespace qk {
namespace {

int BytesOf(RawDtype dtype) { return dtype == RawDtype::kF32 ? 4 : 2; }

bool IsQueryPoint(HookPoint point) {
  return point == HookPoint::kQ || point == HookPoint::kRotQ ||
         point == HookPoint::kZ || point == HookPoint::kPattern;
}

bool HasRope(HookPoint point) {
  return point == HookPoint::kQ || point == HookPoint::kK ||
         point == HookPoint::kRotQ || point == HookPoint::kRotK;
}

int64_t Product(absl::Span<const int> shape) {
  int64_t n = 1;
  for (int dim : shape) n *= dim;
  return n;
}

// Adds the time until it goes out of scope.
class Stopwatch {
 public:
  explicit Stopwatch(double* seconds)
      : seconds_(seconds), start_(std::chrono::steady_clock::now()) {}
  ~Stopwatch() {
    *seconds_ +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_)
            .count();
  }

 private:
  double* seconds_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace

Capture::Capture(const ModelConfig& config, const RunSpec& spec, int arm)
    : config_(config),
      spec_(spec),
      arm_(arm),
      layer_index_(config.num_layers(), -1) {
  if (spec.capture.off) return;
  for (size_t i = 0; i < spec.capture.layers.size(); ++i) {
    layer_index_[spec.capture.layers[i]] = static_cast<int>(i);
  }
  const int64_t tokens = static_cast<int64_t>(spec.tokens.size());
  const int64_t rows =
      spec.capture.positions.empty()
          ? tokens
          : static_cast<int64_t>(spec.capture.positions.size());
  const int64_t last =
      tokens + (spec.generate.has_value() ? spec.generate->max_new_tokens : 0);
  const bool pattern =
      absl::c_linear_search(spec.capture.points, HookPoint::kPattern);
  for (int layer : spec.capture.layers) {
    const AttentionConfig& a = config.layers[layer].attention;
    MakeRoom(a, rows);
    if (pattern) {
      staging_bytes_ = std::max(staging_bytes_, rows * a.num_heads * last * 4);
    }
  }
  if (spec.capture.vision_layers.empty()) return;
  for (const Image& image : spec.images) {
    MakeRoom(config.vision.attention, image.patches());
  }
}

// For frames of a layer's Q, K, V and Z, of `rows` rows.
void Capture::MakeRoom(const AttentionConfig& attention, int64_t rows) {
  widest_ = std::max<int64_t>(widest_, attention.q_size());
  int64_t bytes = int64_t{4} * attention.q_size();
  if (spec_.capture.form == CaptureForm::kNormPerToken) {
    bytes = 4 * rows * attention.num_heads;
  } else if (spec_.capture.form == CaptureForm::kRaw) {
    bytes = rows * attention.q_size() * BytesOf(spec_.capture.raw_dtype);
  }
  staging_bytes_ = std::max(staging_bytes_, bytes);
}

int64_t Capture::bytes() const {
  if (spec_.capture.off) return 0;
  int64_t bytes = 8 * widest_ + staging_bytes_;
  if (Has(spec_.capture.phase, Phase::kDecode) &&
      spec_.capture.form == CaptureForm::kNormOverTokens) {
    bytes += 8 * widest_ * static_cast<int64_t>(spec_.capture.layers.size()) *
             kNumHookPoints * 2;
  }
  return bytes;
}

absl::Status Capture::Reserve(Backend* backend) {
  backend_ = backend;
  if (spec_.capture.off) return absl::OkStatus();
  QK_ASSIGN_OR_RETURN(squares_, backend->Allocate(8 * widest_));
  QK_ASSIGN_OR_RETURN(staging_, backend->Allocate(staging_bytes_));
  const int64_t decode = bytes() - 8 * widest_ - staging_bytes_;
  if (decode > 0) {
    QK_ASSIGN_OR_RETURN(decode_, backend->Allocate(decode));
    backend->Zero(decode_.as<void>(), decode);
    decode_heads_.assign(decode / (8 * widest_), 0);
  }
  return absl::OkStatus();
}

std::vector<int> Capture::HeadsOf(const CaptureSpec& spec,
                                  const AttentionConfig& attention,
                                  HookPoint point, int physical) {
  std::vector<int> heads;
  if (spec.heads.empty()) {
    heads.resize(physical);
    std::iota(heads.begin(), heads.end(), 0);
    return heads;
  }
  const int group = IsQueryPoint(point) || physical == attention.num_heads
                        ? 1
                        : attention.group_size();
  for (int head : spec.heads) {
    if (heads.empty() || heads.back() != head / group) {
      heads.push_back(head / group);
    }
  }
  return heads;
}

std::vector<int> Capture::ChosenHeads(HookPoint point, int layer,
                                      const PassStep& pass,
                                      int physical) const {
  if (pass.image >= 0) return HeadsOf({}, {}, point, physical);
  return HeadsOf(spec_.capture, config_.layers[layer].attention, point,
                 physical);
}

bool Capture::Wants(HookPoint point, int layer, Stage stage,
                    const PassStep& pass) const {
  const CaptureSpec& c = spec_.capture;
  if (c.off || !Has(c.stage, stage) || !Has(c.phase, pass.phase) ||
      !absl::c_linear_search(c.points, point)) {
    return false;
  }
  return pass.image >= 0 ? absl::c_binary_search(c.vision_layers, layer)
                         : layer_index_[layer] >= 0;
}

std::vector<int> Capture::RowsOf(const PassStep& pass) const {
  std::vector<int> rows;
  if (pass.phase == Phase::kDecode) return {0};
  if (spec_.capture.positions.empty() || pass.image >= 0) {
    rows.resize(pass.rows);
    std::iota(rows.begin(), rows.end(), 0);
    return rows;
  }
  for (int position : spec_.capture.positions) {
    rows.push_back(position - pass.first_position);
  }
  return rows;
}

LayerFrame& Capture::Add(HookPoint point, int layer, Stage stage,
                         const PassStep& pass, std::vector<int> shape,
                         RawDtype dtype, std::vector<int> heads) {
  Pending& pending = pending_.emplace_back();
  LayerFrame& frame = pending.frame;
  frame.heads = std::move(heads);
  frame.no_rope =
      (point == HookPoint::kRotQ || point == HookPoint::kRotK) &&
      config_.attention(pass.image >= 0, layer).rope.frequencies.empty();
  frame.arm = arm_;
  frame.layer = layer;
  frame.point = point;
  frame.stage = stage;
  frame.phase = pass.phase;
  frame.step = pass.step;
  frame.position = pass.phase == Phase::kDecode ? pass.first_position : -1;
  frame.image = pass.image;
  frame.form = spec_.capture.form;
  frame.dtype = dtype;
  frame.shape = std::move(shape);
  frame.data.resize(Product(frame.shape) * BytesOf(dtype));
  QK_CHECK(static_cast<int64_t>(frame.data.size()) <= staging_bytes_);
  return frame;
}

void Capture::Send(const void* device, LayerFrame* frame) {
  backend_->Download(frame->data.data(), device,
                     static_cast<int64_t>(frame->data.size()));
  pending_.back().mark = backend_->MarkDownloads();
}

void Capture::EmitNorms(HookPoint point, int layer, Stage stage,
                        const PassStep& pass, const double* squares, int heads,
                        int head_dim) {
  const std::vector<int> chosen = ChosenHeads(point, layer, pass, heads);
  LayerFrame& frame =
      Add(point, layer, stage, pass,
          {static_cast<int>(chosen.size()), head_dim}, RawDtype::kF32, chosen);
  backend_->FinishNorms(squares, chosen, head_dim, staging_.as<float>());
  Send(staging_.as<void>(), &frame);
}

double* Capture::DecodeSum(HookPoint point, int layer, Stage stage, int heads) {
  const size_t index =
      (static_cast<size_t>(layer_index_[layer]) * kNumHookPoints +
       static_cast<size_t>(point)) *
          2 +
      (stage == Stage::kAfter ? 1 : 0);
  decode_heads_[index] = heads;
  return decode_.as<double>() + index * widest_;
}

void Capture::Record(HookPoint point, int layer, Stage stage,
                     const PassStep& pass, const HeadRows& x) {
  if (!Wants(point, layer, stage, pass)) return;
  const Stopwatch watch(&seconds_);
  const std::vector<int> rows = RowsOf(pass);
  const int count = static_cast<int>(rows.size());
  if (spec_.capture.form == CaptureForm::kNormOverTokens) {
    if (pass.phase == Phase::kDecode) {
      backend_->AddMoments(x, rows,
                           {DecodeSum(point, layer, stage, x.heads), nullptr});
      return;
    }
    backend_->Zero(squares_.as<void>(), int64_t{8} * x.heads * x.head_dim);
    backend_->AddMoments(x, rows, {squares_.as<double>(), nullptr});
    EmitNorms(point, layer, stage, pass, squares_.as<double>(), x.heads,
              x.head_dim);
    return;
  }
  const std::vector<int> heads = ChosenHeads(point, layer, pass, x.heads);
  const int chosen = static_cast<int>(heads.size());
  if (spec_.capture.form == CaptureForm::kNormPerToken) {
    LayerFrame& frame =
        Add(point, layer, stage, pass, {count, chosen}, RawDtype::kF32, heads);
    backend_->TokenNorms(x, rows, heads, staging_.as<float>());
    Send(staging_.as<void>(), &frame);
    return;
  }
  LayerFrame& frame =
      Add(point, layer, stage, pass, {count, chosen, x.head_dim},
          spec_.capture.raw_dtype, heads);
  backend_->CopyOut(x, rows, heads, spec_.capture.raw_dtype,
                    staging_.as<void>());
  Send(staging_.as<void>(), &frame);
}

bool Capture::WantsPattern(int layer, const PassStep& pass) const {
  return Wants(HookPoint::kPattern, layer, Stage::kBefore, pass) ||
         Wants(HookPoint::kPattern, layer, Stage::kAfter, pass);
}

void Capture::RecordPattern(int layer, const PassStep& pass, const float* q,
                            const AttentionRows& rows, ComputeType type) {
  const Stopwatch watch(&seconds_);
  const AttentionConfig& a = config_.layers[layer].attention;
  const std::vector<int> chosen = RowsOf(pass);
  const int keys = pass.first_position + pass.rows;
  // One stage: no rule acts on the pattern.
  const std::vector<int> heads =
      ChosenHeads(HookPoint::kPattern, layer, pass, a.num_heads);
  LayerFrame& frame = Add(
      HookPoint::kPattern, layer, Stage::kBefore, pass,
      {static_cast<int>(chosen.size()), static_cast<int>(heads.size()), keys},
      RawDtype::kF32, heads);
  backend_->AttentionPattern(q, a, rows, chosen, heads, keys, type,
                             staging_.as<float>());
  Send(staging_.as<void>(), &frame);
}

bool Capture::FinishDecode() {
  bool any = false;
  for (size_t i = 0; i < decode_heads_.size(); ++i) {
    if (decode_heads_[i] == 0) continue;
    any = true;
    const HookPoint point = static_cast<HookPoint>(i / 2 % kNumHookPoints);
    const int layer = spec_.capture.layers[i / 2 / kNumHookPoints];
    PassStep all;
    all.phase = Phase::kDecode;
    EmitNorms(point, layer, i % 2 == 1 ? Stage::kAfter : Stage::kBefore, all,
              decode_.as<double>() + i * widest_, decode_heads_[i],
              config_.layers[layer].attention.head_dim);
    pending_.back().frame.position = -1;
  }
  return any;
}

std::vector<LayerFrame> Capture::TakeFrames() {
  std::vector<LayerFrame> done;
  size_t i = 0;
  for (; i < pending_.size() && backend_->DownloadsArrived(pending_[i].mark);
       ++i) {
    LayerFrame& frame = pending_[i].frame;
    if (frame.form == CaptureForm::kNormOverTokens) {
      const Stopwatch watch(&seconds_);
      const auto* norms = reinterpret_cast<const float*>(frame.data.data());
      // The two coordinates of a tower's RoPE have no wavelength in tokens.
      const std::vector<double> wavelengths =
          HasRope(frame.point) && frame.image < 0
              ? config_.layers[frame.layer].attention.rope.Wavelengths()
              : std::vector<double>();
      frame.statistics = ComputeStatistics(
          absl::MakeConstSpan(norms, Product(frame.shape)), frame.shape[0],
          frame.shape[1], frame.heads, wavelengths, spec_.statistics.lambda,
          spec_.statistics.top_n);
    }
    done.push_back(std::move(frame));
  }
  pending_.erase(pending_.begin(), pending_.begin() + i);
  return done;
}

}  // namespace qk
