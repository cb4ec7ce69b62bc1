#include "server/calls/activation_tap.h"

#include <new>
#include <utility>

#include "engine/model/model.h"

namespace qk {
namespace {

// Norms over the prompt's tokens of what attention multiplies.
CaptureSpec WantedCapture(const ModelConfig& config) {
  CaptureSpec out;
  out.points = {HookPoint::kRotQ, HookPoint::kRotK, HookPoint::kV};
  for (int layer = 0; layer < config.num_layers(); ++layer) {
    if (config.has_attention(layer)) out.layers.push_back(layer);
  }
  return out;
}

}  // namespace

// The frames of one prompt.
struct ActivationTap::Waiting {
  Waiting(ActivationMetrics* to, ActivationRun of)
      : metrics(to), run(std::move(of)) {}
  ~Waiting() { metrics->GiveRoomBack(bytes); }

  ActivationMetrics* const metrics;
  ActivationRun run;
  int64_t bytes = 0;
  std::vector<LayerFrame> frames;
};

std::shared_ptr<ActivationTap> ActivationTap::Create(
    const RunParts& parts, ActivationSource source, std::shared_ptr<RunSink> to,
    RunSpec* spec) {
  if (!parts.activations->Choose()) return nullptr;
  spec->capture = WantedCapture(spec->arms.front().model->config());
  spec->statistics = StatisticsSpec();
  spec->statistics.top_n = 0;
  auto waiting = std::make_shared<Waiting>(
      parts.activations, ActivationRun(parts.activations, *spec, source));
  return std::shared_ptr<ActivationTap>(
      new ActivationTap(parts.executor, std::move(to), std::move(waiting)));
}

ActivationTap::ActivationTap(Executor* executor, std::shared_ptr<RunSink> to,
                             std::shared_ptr<Waiting> waiting)
    : executor_(executor), to_(std::move(to)), waiting_(std::move(waiting)) {}

ActivationTap::~ActivationTap() = default;

void ActivationTap::Drop() {
  waiting_->metrics->CountDropped();
  waiting_ = nullptr;
}

void ActivationTap::OnLayer(LayerFrame frame) {
  if (waiting_ == nullptr) return;
  const int64_t bytes =
      static_cast<int64_t>(sizeof(LayerFrame) + frame.data.size());
  if (!waiting_->metrics->TakeRoom(bytes)) return Drop();
  waiting_->bytes += bytes;
  try {
    waiting_->frames.push_back(std::move(frame));
  } catch (const std::bad_alloc&) {
    Drop();  // the client's run goes on
  }
}

void ActivationTap::Measure() {
  if (waiting_ == nullptr) return;
  try {
    executor_->Post([waiting = waiting_] {
      for (LayerFrame& frame : waiting->frames) {
        frame.ComputeStatistics();
        waiting->run.Add(frame);
      }
      waiting->run.Finish();
    });
    waiting_ = nullptr;
  } catch (const std::bad_alloc&) {
    Drop();
  }
}

void ActivationTap::OnApplied(AppliedRule applied) {
  to_->OnApplied(std::move(applied));
}

void ActivationTap::OnToken(TokenEvent token) {
  Measure();
  to_->OnToken(std::move(token));
}

void ActivationTap::OnComparison(ComparisonResult comparison) {
  to_->OnComparison(std::move(comparison));
}

void ActivationTap::OnLogits(int arm, std::vector<PositionLogits> logits) {
  to_->OnLogits(arm, std::move(logits));
}

void ActivationTap::OnScore(ScoreResult score) {
  Measure();
  to_->OnScore(std::move(score));
}

void ActivationTap::OnFinished(const absl::Status& status,
                               const std::vector<ArmSummary>& arms,
                               const RunTimes& times) {
  if (status.ok()) Measure();
  RunTimes seen = times;
  seen.capture = 0;  // the client asked for none
  to_->OnFinished(status, arms, seen);
}

}  // namespace qk
