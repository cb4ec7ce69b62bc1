// Reads the events of one AnalyzeMany while another thread writes the prompts.
#ifndef QKSCOPE_CLIENT_CPP_MANY_STREAM_H_
#define QKSCOPE_CLIENT_CPP_MANY_STREAM_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/client_call.h"
#include "client/cpp/result_builder.h"

namespace qk::client {

class ManyStream {
 public:
  // All arguments must outlive the stream.
  ManyStream(Channels* channels, const qkscope::v1::AnalyzeManySpec& spec,
             const std::vector<qkscope::v1::AnalyzeManyPrompt>& prompts,
             const ManyObserver& observer, const CallOptions& options);
  ManyStream(const ManyStream&) = delete;
  ManyStream& operator=(const ManyStream&) = delete;

  absl::StatusOr<ManyResult> Run();

 private:
  using Stream = grpc::ClientReaderWriter<qkscope::v1::AnalyzeManyRequest,
                                          qkscope::v1::AnalyzeManyEvent>;

  void Write(Stream* stream) const;
  absl::Status Take(qkscope::v1::AnalyzeManyEvent* event);
  absl::Status TakePromptEvent(qkscope::v1::ManyPromptEvent* event);
  absl::Status TakeError(const qkscope::v1::ManyPromptError& error);
  absl::Status CheckFinished(const qkscope::v1::ManyFinished& finished);
  // Fails unless `id` is the prompt whose events are due.
  absl::Status CheckNext(const std::string& id) const;
  void End(absl::StatusOr<AnalysisResult> result);

  Channels* const channels_;
  const qkscope::v1::AnalyzeManySpec& spec_;
  const std::vector<qkscope::v1::AnalyzeManyPrompt>& prompts_;
  const ManyObserver& observer_;
  const CallOptions& options_;
  ManyResult result_;
  size_t next_ = 0;                  // index of the prompt whose events are due
  AnalyzeObserver prompt_observer_;  // of prompts_[next_]
  std::unique_ptr<ResultBuilder> builder_;  // of prompts_[next_]
  bool finished_ = false;
};

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_CPP_MANY_STREAM_H_
