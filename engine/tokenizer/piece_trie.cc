#include "engine/tokenizer/piece_trie.h"

#include <algorithm>

namespace qk {
namespace {

// Sorted entries [begin, end) whose first bytes lead to one node.
struct Range {
  size_t begin;
  size_t end;
};

}  // namespace

PieceTrie::PieceTrie(std::vector<Entry> entries) {
  std::erase_if(entries,
                [](const Entry& entry) { return entry.first.empty(); });
  std::stable_sort(
      entries.begin(), entries.end(),
      [](const Entry& a, const Entry& b) { return a.first < b.first; });
  std::vector<Range> level = {{0, entries.size()}};
  labels_ = {0};
  ids_ = {-1};
  for (size_t depth = 0; !level.empty(); ++depth) {
    std::vector<Range> next;
    for (Range range : level) {
      const size_t node = first_child_.size();
      first_child_.push_back(static_cast<uint32_t>(labels_.size()));
      // The pieces that end here come first, the last of them counts.
      for (; range.begin < range.end &&
             entries[range.begin].first.size() == depth;
           ++range.begin) {
        ids_[node] = entries[range.begin].second;
      }
      while (range.begin < range.end) {
        const char byte = entries[range.begin].first[depth];
        size_t end = range.begin + 1;
        while (end < range.end && entries[end].first[depth] == byte) ++end;
        labels_.push_back(static_cast<uint8_t>(byte));
        ids_.push_back(-1);
        next.push_back({range.begin, end});
        range.begin = end;
      }
    }
    level = std::move(next);
  }
  first_child_.push_back(static_cast<uint32_t>(labels_.size()));
  for (uint32_t at = first_child_[kRoot]; at < first_child_[kRoot + 1]; ++at) {
    root_[labels_[at]] = at;
  }
}

int32_t PieceTrie::Find(absl::string_view piece) const {
  uint32_t node = kRoot;
  for (const char byte : piece) {
    node = Child(node, static_cast<unsigned char>(byte));
    if (node == kNone) return -1;
  }
  return node == kRoot ? -1 : ids_[node];
}

}  // namespace qk
