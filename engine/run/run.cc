#include "engine/run/run.h"

#include <algorithm>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/base/thread_annotations.h"
#include "engine/base/check.h"
#include "engine/base/mutex.h"
#include "engine/base/out_of_memory.h"
#include "engine/images.h"
#include "engine/run/compare.h"
#include "engine/run/run_arm.h"
#include "engine/sequence.h"

namespace qk {
namespace {

class RunImpl final : public Run {
 public:
  RunImpl(RunSpec spec, RunSink* sink);

  absl::Status Reserve() override;
  const Model* next_model() const override;
  void AppendReady(const Model* model, std::vector<Sequence*>* out) override;
  void AfterPass(absl::Span<Sequence* const> ran, const absl::Status& status,
                 double seconds) override;
  bool finished() const override { return finished_; }
  bool comparing() const override { return comparison_ != nullptr; }
  void CompareTile() override;
  double compare_seconds() override {
    return times().compare + (comparing() ? comparison_->Seconds() : 0);
  }
  RunTimes times() const override {
    MutexLock lock(&mutex_);
    return times_;
  }
  void Cancel(absl::Status reason) override;
  bool cancelled() const override { return cancelled_; }
  void FinishCancelled() override;
  const RunSpec& spec() const override { return spec_; }

 private:
  // Runs `step`, and ends the run if the host is out of memory.
  template <typename Step>
  void Guard(const Step& step);
  void MakeArms();
  void AfterGoodPass(absl::Span<Sequence* const> ran, double seconds);
  void StartComparison();
  void AddComparisonTime();
  void EndComparison();
  void FinishWhenDone();
  void Finish(const absl::Status& status);

  const RunSpec spec_;
  RunSink* sink_;
  std::vector<RunArm> arms_;
  std::atomic<bool> cancelled_{false};
  mutable Mutex mutex_;
  absl::Status reason_ ABSL_GUARDED_BY(mutex_);
  RunTimes times_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<Comparison> comparison_;
  bool compared_ = false;  // a comparison has started
  bool finished_ = false;
};

RunImpl::RunImpl(RunSpec spec, RunSink* sink)
    : spec_(std::move(spec)), sink_(sink) {}

template <typename Step>
void RunImpl::Guard(const Step& step) {
  const absl::Status status = WithoutBadAlloc(step);
  if (status.ok()) return;
  finished_ = true;
  comparison_.reset();
  arms_.clear();  // first, because OnFinished needs memory, too
  // This may be the second call: the sink knows that the first one threw.
  sink_->OnFinished(status, {}, times());
}

void RunImpl::MakeArms() {
  arms_.clear();
  for (size_t i = 0; i < spec_.arms.size(); ++i) {
    const int index = static_cast<int>(i);
    const int owner = Sequence::TowerOwner(spec_, index);
    arms_.emplace_back(
        spec_, sink_,
        std::make_unique<Sequence>(
            spec_, index, cancelled_, sink_,
            owner == index ? nullptr : arms_[owner].sequence().vision()));
  }
}

absl::Status RunImpl::Reserve() {
  const absl::Status status = WithoutBadAlloc([this] {
    MakeArms();
    for (RunArm& arm : arms_) QK_RETURN_IF_ERROR(arm.Reserve());
    return absl::OkStatus();
  });
  if (!status.ok()) arms_.clear();  // a run that waits holds no memory
  return status;
}

const Model* RunImpl::next_model() const {
  // Before Reserve there are no sequences yet.
  if (arms_.empty() && !finished_) return spec_.arms.front().model.get();
  for (const RunArm& arm : arms_) {
    if (!arm.done()) return &arm.sequence().model();
  }
  return nullptr;
}

void RunImpl::AppendReady(const Model* model, std::vector<Sequence*>* out) {
  if (comparing()) return;
  for (const RunArm& arm : arms_) {
    if (!arm.done() && &arm.sequence().model() == model) {
      out->push_back(&arm.sequence());
    }
  }
}

void RunImpl::AfterPass(absl::Span<Sequence* const> ran,
                        const absl::Status& status, double seconds) {
  if (finished_) return;
  if (cancelled_) {
    FinishCancelled();
    return;
  }
  Guard([&] {
    if (status.ok()) {
      AfterGoodPass(ran, seconds);
    } else {
      Finish(status);
    }
  });
}

void RunImpl::AfterGoodPass(absl::Span<Sequence* const> ran, double seconds) {
  bool decode = true;
  absl::Status status;
  for (RunArm& arm : arms_) {
    if (!absl::c_linear_search(ran, &arm.sequence())) continue;
    decode = decode && arm.prefilled();
    arm.AfterPass();
    status.Update(arm.status());
  }
  {
    MutexLock lock(&mutex_);
    (decode ? times_.decode : times_.prefill) += seconds;
  }
  if (!status.ok()) {
    Finish(status);
    return;
  }
  StartComparison();
  FinishWhenDone();
}

void RunImpl::FinishWhenDone() {
  const bool all_done =
      absl::c_all_of(arms_, [](const RunArm& arm) { return arm.done(); });
  if (!finished_ && !comparing() && all_done) Finish(absl::OkStatus());
}

void RunImpl::StartComparison() {
  if (compared_ || !spec_.baseline.has_value()) return;
  std::vector<Sequence*> sequences;
  for (const RunArm& arm : arms_) {
    if (!arm.prefilled()) return;
    sequences.push_back(&arm.sequence());
  }
  compared_ = true;
  comparison_ = std::make_unique<Comparison>(spec_.tokens, std::move(sequences),
                                             *spec_.baseline);
}

void RunImpl::CompareTile() {
  QK_CHECK(comparing());
  if (cancelled_) {
    FinishCancelled();
    return;
  }
  Guard([this] {
    comparison_->RunTile();
    if (comparison_->done()) EndComparison();
  });
}

void RunImpl::AddComparisonTime() {
  const double seconds = comparison_->Seconds();
  MutexLock lock(&mutex_);
  times_.compare += seconds;
}

void RunImpl::EndComparison() {
  absl::StatusOr<std::vector<ComparisonResult>> results = comparison_->Finish();
  AddComparisonTime();
  comparison_.reset();
  if (!results.ok()) {
    Finish(results.status());
    return;
  }
  for (ComparisonResult& result : *results) {
    sink_->OnComparison(std::move(result));
  }
  FinishWhenDone();
}

void RunImpl::Cancel(absl::Status reason) {
  MutexLock lock(&mutex_);
  if (cancelled_) return;
  reason_ = std::move(reason);
  cancelled_ = true;
}

void RunImpl::FinishCancelled() {
  if (finished_ || !cancelled_) return;
  absl::Status reason;
  {
    MutexLock lock(&mutex_);
    reason = reason_;
  }
  Guard([&] { Finish(reason); });
}

void RunImpl::Finish(const absl::Status& status) {
  finished_ = true;
  if (comparing()) AddComparisonTime();
  comparison_.reset();
  double capture = 0;
  std::vector<ArmSummary> summaries;
  for (const RunArm& arm : arms_) {
    capture += arm.sequence().capture_seconds();
    summaries.push_back(arm.summary());
  }
  {
    MutexLock lock(&mutex_);
    times_.capture += capture;
  }
  arms_.clear();  // frees pages and buffers now, before the run is destroyed
  sink_->OnFinished(status, summaries, times());
}

}  // namespace

absl::StatusOr<std::unique_ptr<Run>> Run::Create(RunSpec spec, RunSink* sink) {
  QK_CHECK(!spec.tokens.empty() && !spec.arms.empty());
  return WithoutBadAlloc([&]() -> absl::StatusOr<std::unique_ptr<Run>> {
    for (const ArmSpec& arm : spec.arms) {
      QK_RETURN_IF_ERROR(
          CheckImages(spec.images, spec.tokens, arm.model->config().vision));
    }
    QK_RETURN_IF_ERROR(Estimate(spec).status());
    return std::make_unique<RunImpl>(std::move(spec), sink);
  });
}

}  // namespace qk
