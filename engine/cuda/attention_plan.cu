#include <algorithm>

#include "engine/cuda/attention.h"
#include "engine/cuda/attention_tile.h"

namespace qk::cuda {

int HeadsPerTile(int group, int head_dim) {
  int heads = std::min(group, AttentionRows(head_dim));
  while (group % heads != 0) --heads;
  return heads;
}

AttentionPlan PlanAttention(const std::vector<AttentionSequence>& sequences,
                            const AttentionShape& shape, int blocks,
                            int64_t most_scratch) {
  AttentionPlan plan;
  const int most = AttentionRows(shape.head_dim) / shape.heads_per_tile;
  std::vector<AttentionTile> tiles;
  for (const AttentionSequence& s : sequences) {
    for (int row = 0; row < s.rows; row += most) {
      tiles.push_back({s.row + row, std::min(most, s.rows - row),
                       s.first_position + row, s.keys, s.page_begin, s.fresh});
    }
  }
  const auto keys = [&](const AttentionTile& tile) {
    const KeyRange range = RangeOf(tile, shape);
    return range.end - range.begin;
  };
  // The longest first, so that the last blocks to run are short.
  std::stable_sort(tiles.begin(), tiles.end(),
                   [&](const AttentionTile& a, const AttentionTile& b) {
                     return keys(a) > keys(b);
                   });
  const int groups = shape.heads / shape.heads_per_tile;
  const bool split = static_cast<int64_t>(tiles.size()) * groups < blocks;
  for (AttentionTile tile : tiles) {
    const KeyRange range = RangeOf(tile, shape);
    const int first = range.begin / kSegmentKeys;
    const int segments = (range.end - 1) / kSegmentKeys - first + 1;
    const int rows = tile.rows * shape.heads_per_tile;
    const int64_t scratch = (plan.partials + int64_t{segments} * rows) *
                            groups * (shape.head_dim + 2);
    if (!split || segments == 1 || scratch > most_scratch) {
      plan.tiles.push_back(tile);
      continue;
    }
    plan.merges.push_back(
        {tile.row, tile.rows, static_cast<int32_t>(plan.partials), segments});
    for (int i = 0; i < segments; ++i) {
      tile.segment = first + i;
      tile.partial = static_cast<int32_t>(plan.partials);
      plan.partials += rows;
      plan.tiles.push_back(tile);
    }
  }
  return plan;
}

}  // namespace qk::cuda
