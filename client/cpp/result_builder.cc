#include "client/cpp/result_builder.h"

#include <optional>
#include <utility>

#include "client/cpp/client_call.h"

namespace qk::client {

namespace v1 = qkscope::v1;

absl::Status ResultBuilder::Add(v1::AnalyzeEvent* event) {
  absl::StatusOr<std::optional<Tensor>> tensor = checker_.Add(event);
  if (!tensor.ok()) {
    return IncompleteStreamError(tensor.status().code(),
                                 std::string(tensor.status().message()));
  }
  if (tensor->has_value()) {
    if (observer_.on_tensor) observer_.on_tensor(event->seq(), **tensor);
    if (observer_.keep_tensors) {
      result_.tensors.push_back(std::move(**tensor));
    }
  }
  if (event->event_case() == v1::AnalyzeEvent::kLayer) return absl::OkStatus();
  if (observer_.on_event) observer_.on_event(*event);
  Store(event);
  return absl::OkStatus();
}

void ResultBuilder::Store(v1::AnalyzeEvent* event) {
  switch (event->event_case()) {
    case v1::AnalyzeEvent::kAccepted:
      result_.request_id = event->accepted().request_id();
      break;
    case v1::AnalyzeEvent::kStarted:
      result_.started = std::move(*event->mutable_started());
      break;
    case v1::AnalyzeEvent::kApplied:
      result_.applied.push_back(std::move(*event->mutable_applied()));
      break;
    case v1::AnalyzeEvent::kToken:
      result_.tokens.push_back(std::move(*event->mutable_token()));
      break;
    case v1::AnalyzeEvent::kComparison:
      result_.comparisons.push_back(std::move(*event->mutable_comparison()));
      break;
    case v1::AnalyzeEvent::kLogits:
      result_.logits.push_back(std::move(*event->mutable_logits()));
      break;
    case v1::AnalyzeEvent::kFinished:
      result_.finished = std::move(*event->mutable_finished());
      break;
    default:
      break;
  }
}

}  // namespace qk::client
