#include "client/cpp/analyze_stream.h"

#include <algorithm>
#include <string>
#include <utility>

#include "client/cpp/retry.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

// Limit on consecutive resumptions that bring no further event, unless the call
// has more retries.
constexpr int kMaxResumes = 3;
// Pauses grow to that of this attempt, about a second, so that a replica that
// is back is noticed soon.
constexpr int kLongestPause = 2;

}  // namespace

absl::StatusOr<AnalysisResult> AnalyzeStream::Analyze(
    const v1::AnalyzeRequest& request) {
  {
    ClientCall call(channels_, options_);
    if (!call.status().ok()) return call.status();
    const auto reader = call.analysis()->Analyze(call.context(), request);
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
  // A replica that is down comes back with its results.
  const int most = std::max(kMaxResumes, options_.retries);
  for (int broken = 0; broken <= most;) {
    const int64_t before = builder_.events();
    request.set_from_seq(before);
    if (!ReadOn(request)) break;
    if (builder_.events() > before) {
      broken = 0;
      continue;
    }
    ++broken;
    const auto pause =
        RetryDelay(absl::UnavailableError(""), std::min(broken, kLongestPause));
    if (broken <= most && !Wait(*pause, options_.cancellation)) break;
  }
  return End();
}

bool AnalyzeStream::ReadOn(const v1::GetResultRequest& request) {
  ClientCall call(channels_, options_, request.request_id());
  if (!call.status().ok()) {
    status_ = {static_cast<grpc::StatusCode>(call.status().code()),
               std::string(call.status().message())};
    return begun_ && absl::IsUnavailable(call.status());
  }
  const auto reader = call.analysis()->GetResult(call.context(), request);
  return Read(&call, reader.get());
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
  ClientCall(channels_, options, builder_.request_id())
      .Unary(&v1::Analysis::Stub::Cancel, request)
      .IgnoreError();
}

}  // namespace qk::client
