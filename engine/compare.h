// Compares arms position by position: KL divergence, top-1 flips, and the
// log-probability of the given tokens.
#ifndef QKSCOPE_ENGINE_COMPARE_H_
#define QKSCOPE_ENGINE_COMPARE_H_

#include <atomic>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/run.h"
#include "engine/sequence.h"

namespace qk {

// All `arms` have kept the hidden rows of the same `tokens`; arms[baseline] is
// compared with. Logits exist a tile at a time. One result per arm, in order.
// CANCELLED when `cancelled` turns true; looked at between tiles. Adds the time
// it took to `seconds`.
absl::StatusOr<std::vector<ComparisonResult>> CompareArms(
    absl::Span<const int32_t> tokens, absl::Span<Sequence* const> arms,
    int baseline, const std::atomic<bool>& cancelled, double* seconds);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_COMPARE_H_
