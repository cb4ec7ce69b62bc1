// Makes tensors of K or V comparable if one has KV heads and the other a head
// for each query head (Layer.group_size).
#ifndef QKSCOPE_CLIENT_FILES_QUERY_HEADS_H_
#define QKSCOPE_CLIENT_FILES_QUERY_HEADS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "client/cpp/analysis_result.h"

namespace qk::client {

// Whether exactly one of the two tensors has a head for each query head.
bool OnlyOneInQueryHeads(const qkscope::v1::Layer& a,
                         const qkscope::v1::Layer& b);

// The values (TensorValues) of a tensor of KV heads, with each head repeated
// for those of its query heads that `like`, a tensor of query heads, has. The
// result has the shape of `like`. INVALID_ARGUMENT: the two differ in more than
// their heads.
absl::StatusOr<std::vector<float>> RepeatKvHeads(
    const qkscope::v1::Layer& header, const std::vector<float>& values,
    const qkscope::v1::Layer& like);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_FILES_QUERY_HEADS_H_
