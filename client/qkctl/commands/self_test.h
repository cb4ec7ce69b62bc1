// A small analysis that checks what a server promises: a complete stream, equal
// bytes for equal arms in one batch, and equal bytes when it runs again.
#ifndef QKSCOPE_CLIENT_QKCTL_COMMANDS_SELF_TEST_H_
#define QKSCOPE_CLIENT_QKCTL_COMMANDS_SELF_TEST_H_

#include <string>

#include "absl/status/statusor.h"
#include "client/cpp/analysis_client.h"

namespace qk::client {

// Both run 16 tokens through the arms `clean`, `again` (the same) and
// `top_k:1`, and return one line for the user.
//
// INTERNAL: the server broke a promise. DATA_LOSS: the stream was incomplete.
// OUT_OF_RANGE: values are NaN or infinite. Else the call's own status.
absl::StatusOr<std::string> TestAnalyses(AnalysisClient* client,
                                         const qkscope::v1::ModelInfo& model,
                                         const CallOptions& options);

// Starts the analysis detached, fetches its kept result, and deletes that.
absl::StatusOr<std::string> TestKeptResults(AnalysisClient* client,
                                            const qkscope::v1::ModelInfo& model,
                                            const CallOptions& options);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_COMMANDS_SELF_TEST_H_
