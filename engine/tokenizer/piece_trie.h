// A trie over the bytes of a vocabulary's pieces.
#ifndef QKSCOPE_ENGINE_TOKENIZER_PIECE_TRIE_H_
#define QKSCOPE_ENGINE_TOKENIZER_PIECE_TRIE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace qk {

class PieceTrie {
 public:
  // A piece and its id, which is not negative. If a piece is there twice, the
  // later one counts. Empty pieces are left out.
  using Entry = std::pair<absl::string_view, int32_t>;
  explicit PieceTrie(std::vector<Entry> entries);

  static constexpr uint32_t kRoot = 0;
  static constexpr uint32_t kNone = 0;  // no node is the root's parent

  // Returns the node that `byte` leads to, or kNone.
  uint32_t Child(uint32_t node, unsigned char byte) const {
    if (node == kRoot) return root_[byte];
    for (uint32_t at = first_child_[node]; at < first_child_[node + 1]; ++at) {
      if (labels_[at] == byte) return at;
    }
    return kNone;
  }
  // Returns the id of the piece that ends at `node`, or -1.
  int32_t id(uint32_t node) const { return ids_[node]; }

  // Returns the id of a whole piece, or -1.
  int32_t Find(absl::string_view piece) const;

 private:
  // By node. The children of a node are neighbours, because nodes are numbered
  // level by level; those of the last node end where the table ends.
  std::vector<uint8_t> labels_;
  std::vector<int32_t> ids_;
  std::vector<uint32_t> first_child_;
  std::array<uint32_t, 256> root_ = {};
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_PIECE_TRIE_H_
