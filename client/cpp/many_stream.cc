#include "client/cpp/many_stream.h"

#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/retry.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

template <typename... Parts>
absl::Status Violation(const Parts&... parts) {
  return IncompleteStreamError(absl::StatusCode::kDataLoss,
                               absl::StrCat("broken stream: ", parts...));
}

}  // namespace

ManyStream::ManyStream(Channels* channels, const v1::AnalyzeManySpec& spec,
                       const std::vector<v1::AnalyzeManyPrompt>& prompts,
                       const ManyObserver& observer, const CallOptions& options)
    : channels_(channels),
      spec_(spec),
      prompts_(prompts),
      observer_(observer),
      options_(options) {
  if (observer.on_event) {
    prompt_observer_.on_event = [this](const v1::AnalyzeEvent& event) {
      observer_.on_event(prompts_[next_].id(), event);
    };
  }
  if (observer.on_tensor) {
    prompt_observer_.on_tensor = [this](int64_t seq, const Tensor& tensor) {
      observer_.on_tensor(prompts_[next_].id(), seq, tensor);
    };
  }
  prompt_observer_.keep_tensors = observer.keep_tensors;
}

absl::StatusOr<ManyResult> ManyStream::Run() {
  ClientCall call(channels_, options_);
  if (!call.status().ok()) return call.status();
  const auto stream = call.analysis()->AnalyzeMany(call.context());
  std::thread writer([&] { Write(stream.get()); });
  absl::Status violation;
  int64_t events = 0;
  v1::AnalyzeManyEvent event;
  while (violation.ok() && stream->Read(&event)) {
    ++events;
    violation = Take(&event);
  }
  if (!violation.ok()) call.context()->TryCancel();
  // Once the server has ended the call, every Write fails, so the writer ends.
  writer.join();
  const grpc::Status status = stream->Finish();
  if (!violation.ok()) return violation;
  if (finished_) return std::move(result_);
  if (events == 0 && !status.ok()) return ToStatus(status);
  absl::Status error = BrokenStreamError(status, events);
  RemoveRetryDelay(&error);  // results of prompts were already reported
  return error;
}

void ManyStream::Write(Stream* stream) const {
  v1::AnalyzeManyRequest message;
  *message.mutable_spec() = spec_;
  if (!stream->Write(message)) return;
  for (const v1::AnalyzeManyPrompt& prompt : prompts_) {
    *message.mutable_prompt() = prompt;
    if (!stream->Write(message)) return;
  }
  stream->WritesDone();
}

absl::Status ManyStream::Take(v1::AnalyzeManyEvent* event) {
  if (finished_) return Violation("an event after the summary");
  switch (event->event_case()) {
    case v1::AnalyzeManyEvent::kPrompt:
      return TakePromptEvent(event->mutable_prompt());
    case v1::AnalyzeManyEvent::kError:
      return TakeError(event->error());
    case v1::AnalyzeManyEvent::kAggregate:
      for (v1::AggregateEntry& entry :
           *event->mutable_aggregate()->mutable_entries()) {
        result_.aggregate.push_back(std::move(entry));
      }
      return absl::OkStatus();
    case v1::AnalyzeManyEvent::kFinished:
      return CheckFinished(event->finished());
    default:  // An event of a newer server.
      return absl::OkStatus();
  }
}

absl::Status ManyStream::CheckNext(const std::string& id) const {
  if (next_ == prompts_.size()) {
    return Violation("got prompt '", id, "' after the last one");
  }
  if (id == prompts_[next_].id()) return absl::OkStatus();
  return Violation("expected prompt '", prompts_[next_].id(), "', got '", id,
                   "'");
}

absl::Status ManyStream::TakePromptEvent(v1::ManyPromptEvent* event) {
  absl::Status status = CheckNext(event->id());
  if (!status.ok()) return status;
  if (builder_ == nullptr) {
    builder_ = std::make_unique<ResultBuilder>(prompt_observer_);
  }
  status = builder_->Add(event->mutable_event());
  if (!status.ok()) return status;
  if (builder_->finished()) End(builder_->Take());
  return absl::OkStatus();
}

absl::Status ManyStream::TakeError(const v1::ManyPromptError& error) {
  absl::Status status = CheckNext(error.id());
  if (!status.ok()) return status;
  if (error.code() == 0) {
    return Violation("prompt '", error.id(), "' failed with the code OK");
  }
  ++result_.failed;
  End(absl::Status(static_cast<absl::StatusCode>(error.code()),
                   error.message()));
  return absl::OkStatus();
}

void ManyStream::End(absl::StatusOr<AnalysisResult> result) {
  builder_.reset();
  const std::string& id = prompts_[next_++].id();
  if (observer_.on_prompt) observer_.on_prompt(id, std::move(result));
}

absl::Status ManyStream::CheckFinished(const v1::ManyFinished& finished) {
  if (next_ != prompts_.size()) {
    return Violation("the summary came before the end of prompt '",
                     prompts_[next_].id(), "'");
  }
  if (finished.prompts() != static_cast<int64_t>(prompts_.size()) ||
      finished.failed() != result_.failed) {
    return Violation("the summary counts ", finished.prompts(), " prompts, ",
                     finished.failed(), " failed, got ", prompts_.size(), ", ",
                     result_.failed, " failed");
  }
  finished_ = true;
  return absl::OkStatus();
}

}  // namespace qk::client
