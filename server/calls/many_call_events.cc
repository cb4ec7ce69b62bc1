// The events that AnalyzeMany writes: those of its prompts in order, then the
// aggregate, then the summary.
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/calls/many_call.h"
#include "server/calls/post_work.h"
#include "server/calls/prepared_run.h"
#include "server/common/grpc_status.h"
#include "server/common/refusal.h"
#include "server/convert/convert_fields.h"

namespace qk {

bool ManyCall::NextEvent() {
  event_.Clear();
  while (!prompts_.empty()) {
    switch (AdvanceFront()) {
      case FrontState::kWrite:
        return true;
      case FrontState::kWait:
        return false;
      case FrontState::kDone:
        break;
    }
  }
  return NextAtEnd();
}

ManyCall::FrontState ManyCall::AdvanceFront() {
  for (;;) {
    Prompt& prompt = prompts_.front();
    if (!prompt.error.ok()) {
      const grpc::Status status = ToGrpcStatus(prompt.error, call_.id()).status;
      if (const auto reason = RefusalOf(prompt.error)) {
        call_parts_->metrics->CountRefusal(*reason);
      }
      pb::ManyPromptError* error = event_.mutable_error();
      error->set_id(prompt.id);
      error->set_code(status.error_code());
      error->set_message(status.error_message());
      CountGenerated(prompt);
      ++failed_prompts_;
      PopFront();
      return FrontState::kWrite;
    }
    if (prompt.encoder->Next(&analyze_event_)) {
      event_.mutable_prompt()->set_id(prompt.id);
      *event_.mutable_prompt()->mutable_event() = std::move(analyze_event_);
      writing_queue_ = prompt.queue;
      writing_answer_ = prompt.answer;
      return FrontState::kWrite;
    }
    if (prompt.encoder->done()) {
      ++finished_prompts_;
      aggregator_.Add(prompt.frames);
      last_expanded_ = std::move(prompt.expanded);
      CountGenerated(prompt);
      PopFront();
      return FrontState::kDone;
    }
    std::optional<StreamItem> item = prompt.queue->Pop();
    if (!item.has_value()) return FrontState::kWait;
    Feed(&prompt, *std::move(item));
  }
}

void ManyCall::Feed(Prompt* prompt, StreamItem item) {
  if (const auto* end = std::get_if<RunEnd>(&item)) {
    if (!end->status.ok()) {
      prompt->error = ToClientStatus(end->status);
      return;
    }
    prompt->activations.Finish();
  }
  if (auto* frame = std::get_if<LayerFrame>(&item)) {
    prompt->activations.Add(*frame);
    if (spec_->save_baseline()) baseline_.Add(prompt->model, *frame);
    if (spec_->aggregate()) {
      prompt->frames.push_back(std::move(*frame));
      return;
    }
  }
  prompt->encoder->Feed(std::move(item));
}

void ManyCall::PopFront() {
  prompts_.pop_front();
  try_held_ = held_.has_value();
}

bool ManyCall::NextAtEnd() {
  if (closing_.has_value()) {
    end_ = *closing_;
    return false;
  }
  if (!reads_done_ || working_ || held_.has_value()) return false;
  if (spec_ == nullptr) {
    end_ = BadField("spec", "must be in the first message");
    return false;
  }
  if (spec_->aggregate() && !aggregates_.has_value()) {
    const auto parts = aggregator_.ToProto(last_expanded_, kMaxEventBytes);
    aggregates_.emplace(parts.begin(), parts.end());
  }
  if (aggregates_.has_value() && !aggregates_->empty()) {
    *event_.mutable_aggregate() = std::move(aggregates_->front());
    aggregates_->pop_front();
    return true;
  }
  if (spec_->save_baseline() && baseline_state_ != BaselineState::kPosted) {
    if (failed_prompts_ > 0) {
      end_ = absl::FailedPreconditionError(
          absl::StrCat("save_baseline: ", failed_prompts_, " of ",
                       finished_prompts_ + failed_prompts_,
                       " prompts failed, so there is no new baseline"));
      return false;
    }
    baseline_state_ = BaselineState::kComplete;
    return false;
  }
  if (!std::exchange(summary_sent_, true)) {
    event_.mutable_finished()->set_prompts(finished_prompts_ + failed_prompts_);
    event_.mutable_finished()->set_failed(failed_prompts_);
    return true;
  }
  end_ = absl::OkStatus();
  return false;
}

void ManyCall::PostBaseline() {
  std::shared_ptr<const User> user;
  {
    MutexLock lock(&mutex_);
    user = call_.user();
  }
  const auto call = shared_from_this();
  const absl::Status posted = PostBegin(
      *call_parts_, std::move(user), grpc::ByteBuffer(), Budget::kNotNeeded,
      [call] {
        BaselineOfPrompts baseline;
        {
          MutexLock lock(&call->mutex_);
          baseline = std::move(call->baseline_);
        }
        return baseline.Save(call->run_parts_->activations);
      },
      [call](const absl::Status& status) {
        {
          MutexLock lock(&call->mutex_);
          call->working_ = false;
        }
        status.ok() ? call->Pump() : call->Refuse(status);
      });
  if (!posted.ok()) Refuse(posted);
}

}  // namespace qk
