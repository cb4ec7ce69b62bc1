#include "client/cpp/analyze_stream.h"

#include <utility>

#include "client/cpp/retry.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

constexpr absl::Duration kFirstPause = absl::Milliseconds(200);
// Limit on consecutive resumptions that bring no further event.
constexpr int kMaxResumes = 3;

}  // namespace

absl::StatusOr<AnalysisResult> AnalyzeStream::Analyze(
    const v1::AnalyzeRequest& request) {
  {
    ClientCall call(stubs_, options_);
    const auto reader = stubs_.analysis->Analyze(call.context(), request);
    if (!Read(&call, reader.get()) || !request.resumable()) return End();
  }
  absl::StatusOr<AnalysisResult> result = Resume(builder_.request_id());
  const Cancellation* cancellation = options_.cancellation;
  if (cancellation != nullptr && cancellation->cancelled()) Cancel();
  return result;
}

absl::StatusOr<AnalysisResult> AnalyzeStream::Resume(
    const std::string& request_id) {
  v1::GetResultRequest request;
  request.set_request_id(request_id);
  for (int broken = 0; broken <= kMaxResumes;) {
    const int64_t before = builder_.events();
    request.set_from_seq(before);
    ClientCall call(stubs_, options_);
    const auto reader = stubs_.analysis->GetResult(call.context(), request);
    if (!Read(&call, reader.get())) break;
    broken = builder_.events() > before ? 0 : broken + 1;
    if (broken > 0 &&
        !Wait(kFirstPause * (1 << broken), options_.cancellation)) {
      break;
    }
  }
  return End();
}

bool AnalyzeStream::Read(ClientCall* call,
                         grpc::ClientReader<v1::AnalyzeEvent>* reader) {
  v1::AnalyzeEvent event;
  while (reader->Read(&event)) {
    begun_ = true;
    violation_ = builder_.Add(&event);
    if (violation_.ok()) continue;
    call->context()->TryCancel();
    reader->Finish();
    return false;
  }
  status_ = reader->Finish();
  if (builder_.finished() || !begun_) return false;
  switch (status_.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::UNKNOWN:
    case grpc::StatusCode::INTERNAL:
      return true;
    default:
      return false;
  }
}

// The answer is complete once Finished has arrived. A status after that (a late
// cancellation, a server that shuts down) does not change it.
absl::StatusOr<AnalysisResult> AnalyzeStream::End() {
  if (!violation_.ok()) return violation_;
  if (builder_.finished()) return builder_.Take();
  if (begun_ || status_.ok())
    return BrokenStreamError(status_, builder_.events());
  return ToStatus(status_);
}

// Cancels the request on the server, where it would continue without a reader.
void AnalyzeStream::Cancel() {
  v1::CancelRequest request;
  request.set_request_id(builder_.request_id());
  CallOptions options;
  options.timeout = absl::Seconds(2);
  ClientCall(stubs_, options)
      .Unary(stubs_.analysis.get(), &v1::Analysis::Stub::Cancel, request)
      .IgnoreError();
}

}  // namespace qk::client
