// Whether a second run gave the same bytes as the first.
#ifndef QKSCOPE_CLIENT_FILES_REPLAY_H_
#define QKSCOPE_CLIENT_FILES_REPLAY_H_

#include <string>
#include <vector>

#include "client/files/saved_analysis.h"

namespace qk::client {

enum class ReplayVerdict { kIdentical, kDiffers, kNotComparable };

struct ReplayReport {
  ReplayVerdict verdict = ReplayVerdict::kIdentical;
  // What a reader should see, a sentence per line.
  std::vector<std::string> lines;
};

// The request that runs `manifest` again: its token ids, its expanded arms. Its
// images are without their bytes, which a manifest does not hold.
qkscope::v1::AnalyzeRequest ReplayRequest(
    const qkscope::v1::Manifest& manifest);

// Compares digests, and values where `before` has tensors. Bits may only be
// expected to agree on the same weights, compute type, backend and kernels;
// elsewhere the verdict is kNotComparable.
ReplayReport CompareRuns(const SavedAnalysis& before,
                         const AnalysisResult& after);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_FILES_REPLAY_H_
