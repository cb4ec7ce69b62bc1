// Converts what a request asks to see: capture, statistics, comparison, logits.
#ifndef QKSCOPE_SERVER_CONVERT_CONVERT_CAPTURE_H_
#define QKSCOPE_SERVER_CONVERT_CONVERT_CAPTURE_H_

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/types/model_config.h"
#include "engine/types/spec.h"
#include "qkscope/v1/spec.pb.h"
#include "server/common/limits.h"
#include "server/common/pb.h"

namespace qk {

absl::StatusOr<CaptureSpec> ConvertCapture(const pb::Capture& capture,
                                           const ModelConfig& config,
                                           int prompt_tokens, int images,
                                           bool generates,
                                           const Limits& limits);
pb::Capture CaptureToProto(const CaptureSpec& spec, bool raw_sha256);

absl::StatusOr<StatisticsSpec> ConvertStatistics(
    const pb::StatisticsSpec& statistics, const Limits& limits);

// Returns the baseline arm's index.
absl::StatusOr<int> ConvertCompare(const pb::Compare& compare,
                                   const std::vector<ArmSpec>& arms);

absl::StatusOr<LogitsSpec> ConvertLogits(const pb::LogitsSpec& logits,
                                         const ModelConfig& config,
                                         int prompt_tokens,
                                         const Limits& limits);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONVERT_CONVERT_CAPTURE_H_
