// Tells of values that are NaN or infinite: whatever depends on them is no
// result.
#ifndef QKSCOPE_CLIENT_QKCTL_OUTPUT_NON_FINITE_H_
#define QKSCOPE_CLIENT_QKCTL_OUTPUT_NON_FINITE_H_

#include <string>
#include <vector>

#include "client/cpp/analysis_result.h"

namespace qk::client {

// "96 captured values, the logits of 3 positions, the KL of 3 positions"; empty
// if all values are finite.
std::string NonFiniteText(const qkscope::v1::NonFinite& counts);

// "1 weight not finite (NaN or infinite), the first: NAME[3, 5]"; empty if none
// is known.
std::string NonFiniteWeightsText(const qkscope::v1::ModelInfo& model);

// One line per arm that has such values: "arm clean: not finite (NaN or
// infinite): 96 captured values".
std::vector<std::string> NonFiniteLines(const AnalysisResult& result);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_OUTPUT_NON_FINITE_H_
