// Compares the bytes of a second run with those of the first.
#ifndef QKSCOPE_CLIENT_FILES_REPLAY_H_
#define QKSCOPE_CLIENT_FILES_REPLAY_H_

#include <string>
#include <vector>

#include "client/files/saved_analysis.h"

namespace qk::client {

enum class ReplayVerdict { kIdentical, kDiffers, kNotComparable };

struct ReplayReport {
  ReplayVerdict verdict = ReplayVerdict::kIdentical;
  // The report for the user, one sentence per line.
  std::vector<std::string> lines;
};

// Returns the request that repeats the run of `manifest`, with its token ids
// and expanded arms. Its images lack their bytes, which a manifest does not
// have.
qkscope::v1::AnalyzeRequest ReplayRequest(
    const qkscope::v1::Manifest& manifest);

// Compares digests, and also values if `before` has tensors. Bits can only be
// expected to agree with the same weights, compute type, backend and kernels;
// otherwise the verdict is kNotComparable.
ReplayReport CompareRuns(const SavedAnalysis& before,
                         const AnalysisResult& after);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_FILES_REPLAY_H_
