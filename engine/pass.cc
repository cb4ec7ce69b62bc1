#include "engine/pass.h"

#include "engine/base/check.h"
#include "engine/base/out_of_memory.h"
#include "engine/batch.h"
#include "engine/forward.h"
#include "engine/lm_head.h"

namespace qk {

Pass::Pass(const Model& model, absl::Span<Sequence* const> sequences)
    : model_(model), clock_(model.backend()) {
  Guard([&] {
    clock_.Begin();
    batch_ = std::make_unique<Batch>(model, sequences);
    rows_ = batch_->rows();
    if (batch_->status().ok()) Embed(*batch_);
  });
}

Pass::~Pass() = default;

template <typename Step>
void Pass::Guard(const Step& step) {
  const absl::Status status = WithoutBadAlloc(step);
  if (status.ok()) return;
  // The device must be done with the pass's memory before the pass goes.
  status_ = model_.backend()->Synchronize();
  if (status_.ok()) status_ = status;
}

bool Pass::done() const {
  return !status_.ok() || !batch_->status().ok() || !batch_->alive() ||
         (lm_head_ != nullptr && lm_head_->done());
}

void Pass::RunStep() {
  QK_CHECK(!done());
  Guard([this] {
    clock_.Begin();
    RunNext();
    clock_.End();
  });
}

void Pass::RunNext() {
  batch_->DropCancelled(layer_.paused());
  if (done()) return;
  if (lm_head_ != nullptr) {
    lm_head_->RunTile();
    return;
  }
  if (Vision* vision = batch_->next_vision(); vision != nullptr) {
    vision->RunLayer(batch_->hook_ops());
  } else {
    if (next_layer_ == 0 && !layer_.paused()) PlaceImages(*batch_);
    if (!layer_.paused()) layer_ = Block(next_layer_, *batch_);
    if (!layer_.Next()) ++next_layer_;
  }
  if (next_layer_ == model_.config().num_layers()) {
    batch_->DropCancelled(layer_.paused());
    lm_head_ = std::make_unique<LmHead>(*batch_);
  }
  batch_->hook_ops().Fetch();
  for (Batch::Entry& entry : batch_->entries()) {
    if (entry.sequence != nullptr) entry.sequence->Deliver();
  }
}

void Pass::DropCancelled() {
  if (!status_.ok()) return;
  Guard([this] { batch_->DropCancelled(layer_.paused()); });
}

absl::Status Pass::Finish() {
  if (status_.ok() && !batch_->status().ok()) return batch_->status();
  DropCancelled();
  if (!status_.ok()) return status_;
  const absl::Status status = batch_->backend().Synchronize();
  Guard([&] {
    if (status.ok() && lm_head_ != nullptr) lm_head_->TakeResults();
    for (Batch::Entry& entry : batch_->entries()) {
      if (entry.sequence == nullptr) continue;
      entry.sequence->Deliver();
      entry.sequence->Advance(entry.span);
    }
  });
  return status.ok() ? status_ : status;
}

int Pass::rows() const { return rows_; }

}  // namespace qk
