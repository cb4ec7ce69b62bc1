#include "client/files/query_heads.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

// A shape as (outer, heads, inner). heads is 0 if there is no such axis.
struct Axes {
  int64_t outer = 1, heads = 0, inner = 1;
};

Axes AxesOf(const v1::Layer& header) {
  Axes axes;
  const int head_axis = header.form() == v1::NORM_OVER_TOKENS ? 0 : 1;
  for (int i = 0; i < header.shape_size(); ++i) {
    if (i < head_axis) axes.outer *= header.shape(i);
    if (i == head_axis) axes.heads = header.shape(i);
    if (i > head_axis) axes.inner *= header.shape(i);
  }
  return axes;
}

// The place of a KV head among those of the tensor; -1: it is not there.
int64_t PlaceOf(const v1::Layer& header, int64_t kv_head) {
  if (header.heads().empty()) return kv_head;
  const auto found =
      std::find(header.heads().begin(), header.heads().end(), kv_head);
  return found == header.heads().end() ? -1 : found - header.heads().begin();
}

}  // namespace

bool OnlyOneInQueryHeads(const v1::Layer& a, const v1::Layer& b) {
  // 0: the file is older than the field.
  return a.group_size() > 0 && b.group_size() > 0 &&
         (a.group_size() == 1) != (b.group_size() == 1);
}

absl::StatusOr<std::vector<float>> RepeatKvHeads(
    const v1::Layer& header, const std::vector<float>& values,
    const v1::Layer& like) {
  const Axes from = AxesOf(header), to = AxesOf(like);
  const auto refuse = [&] {
    return absl::InvalidArgumentError(absl::StrCat(
        TensorName(header), " has shape (", absl::StrJoin(header.shape(), ", "),
        "), ", TensorName(like), " (", absl::StrJoin(like.shape(), ", "),
        "); compare runs of the same model, prompt length and heads"));
  };
  if (from.outer != to.outer || from.inner != to.inner ||
      static_cast<int64_t>(values.size()) !=
          from.outer * from.heads * from.inner) {
    return refuse();
  }
  std::vector<float> repeated;
  repeated.reserve(to.outer * to.heads * to.inner);
  for (int64_t row = 0; row < to.outer; ++row) {
    for (int64_t h = 0; h < to.heads; ++h) {
      const int64_t query_head =
          like.heads().empty() ? h : like.heads(static_cast<int>(h));
      const int64_t place = PlaceOf(header, query_head / header.group_size());
      if (place < 0 || place >= from.heads) return refuse();
      const auto head =
          values.begin() + (row * from.heads + place) * from.inner;
      repeated.insert(repeated.end(), head, head + from.inner);
    }
  }
  return repeated;
}

}  // namespace qk::client
