// Assembles an AnalysisResult from the events of a stream, and checks each.
#ifndef QKSCOPE_CLIENT_CPP_RESULT_BUILDER_H_
#define QKSCOPE_CLIENT_CPP_RESULT_BUILDER_H_

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "client/cpp/analysis_client.h"
#include "client/cpp/stream_checker.h"

namespace qk::client {

class ResultBuilder {
 public:
  // The observer must outlive the builder.
  explicit ResultBuilder(const AnalyzeObserver& observer)
      : observer_(observer) {}

  // Adds the next event and moves its data out of it. An error
  // (IsIncompleteStream) says what is wrong with the stream.
  absl::Status Add(qkscope::v1::AnalyzeEvent* event);

  // Whether Finished has arrived and everything matches it.
  bool finished() const { return checker_.finished(); }
  // Events with a sequence number so far.
  int64_t events() const { return checker_.events(); }
  const std::string& request_id() const { return result_.request_id; }

  AnalysisResult Take() { return std::move(result_); }

 private:
  void Store(qkscope::v1::AnalyzeEvent* event);

  const AnalyzeObserver& observer_;
  AnalysisResult result_;
  StreamChecker checker_;
};

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_CPP_RESULT_BUILDER_H_
