// Reads the events of one Analyze, over one or several calls.
#ifndef QKSCOPE_CLIENT_CPP_ANALYZE_STREAM_H_
#define QKSCOPE_CLIENT_CPP_ANALYZE_STREAM_H_

#include <string>

#include "client/cpp/client_call.h"
#include "client/cpp/result_builder.h"

namespace qk::client {

class AnalyzeStream {
 public:
  // All arguments must outlive the stream.
  AnalyzeStream(Channels* channels, const AnalyzeObserver& observer,
                const CallOptions& options)
      : channels_(channels), options_(options), builder_(observer) {}

  absl::StatusOr<AnalysisResult> Analyze(
      const qkscope::v1::AnalyzeRequest& request);
  // Reads on from the first missing event.
  absl::StatusOr<AnalysisResult> Resume(const std::string& request_id);

 private:
  // Both return true if the stream broke off and may be resumed.
  bool Read(ClientCall* call,
            grpc::ClientReader<qkscope::v1::AnalyzeEvent>* reader);
  bool ReadOn(const qkscope::v1::GetResultRequest& request);
  absl::StatusOr<AnalysisResult> End();
  void Cancel();

  Channels* const channels_;
  const CallOptions& options_;
  ResultBuilder builder_;
  bool begun_ = false;
  absl::Status violation_;
  grpc::Status status_;
};

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_CPP_ANALYZE_STREAM_H_
