#include "engine/tokenizer/bpe.h"

#include <algorithm>
#include <cstddef>
#include <queue>

namespace qk {
namespace {

// Up to this many symbols looking at all pairs again after each merge is
// faster than a heap. Most words have fewer than 10.
constexpr size_t kShortWord = 24;

constexpr int32_t kNone = -1;

void MergeShort(const BpeMergeTable& table, std::vector<BpeSymbol>* symbols) {
  std::vector<BpeSymbol>& word = *symbols;
  // targets[i] is of the pair (i, i + 1).
  const BpeMergeTable::Target* targets[kShortWord];
  for (size_t i = 0; i + 1 < word.size(); ++i) {
    targets[i] = table.Find(word[i].id, word[i + 1].id);
  }
  while (word.size() > 1) {
    const size_t pairs = word.size() - 1;
    size_t best = pairs;
    for (size_t i = 0; i < pairs; ++i) {
      if (targets[i] == nullptr) continue;
      if (best == pairs || targets[i]->rank < targets[best]->rank) best = i;
    }
    if (best == pairs) return;
    word[best].id = targets[best]->id;
    word[best].end = word[best + 1].end;
    word.erase(word.begin() + best + 1);
    std::copy(targets + best + 1, targets + pairs, targets + best);
    if (best > 0) {
      targets[best - 1] = table.Find(word[best - 1].id, word[best].id);
    }
    if (best + 1 < word.size()) {
      targets[best] = table.Find(word[best].id, word[best + 1].id);
    }
  }
}

// A long word as a linked list over its symbols, with a heap of the pairs that
// may be merged: O(n log n).
class LongWord {
 public:
  LongWord(const BpeMergeTable& table, std::vector<BpeSymbol>* symbols)
      : table_(table), symbols_(*symbols), links_(symbols->size()) {
    const int32_t size = static_cast<int32_t>(links_.size());
    std::vector<Candidate> candidates;
    for (int32_t i = 0; i < size; ++i) {
      links_[i] = {i - 1, i + 1 < size ? i + 1 : kNone};
      AddCandidate(i, &candidates);
    }
    heap_ = Heap(Later(), std::move(candidates));
  }

  void Merge() {
    std::vector<Candidate> added;
    while (!heap_.empty()) {
      const Candidate best = heap_.top();
      heap_.pop();
      if (!IsCurrent(best)) continue;
      Join(best);
      added.clear();
      if (links_[best.at].previous != kNone) {
        AddCandidate(links_[best.at].previous, &added);
      }
      AddCandidate(best.at, &added);
      for (const Candidate& candidate : added) heap_.push(candidate);
    }
    std::erase_if(symbols_,
                  [](const BpeSymbol& symbol) { return symbol.id == kNone; });
  }

 private:
  struct Link {
    int32_t previous;
    int32_t next;
  };
  struct Candidate {
    uint32_t rank;
    int32_t at;  // the left symbol
    int32_t left;
    int32_t right;
    int32_t result;
  };
  struct Later {
    bool operator()(const Candidate& a, const Candidate& b) const {
      return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
    }
  };
  using Heap = std::priority_queue<Candidate, std::vector<Candidate>, Later>;

  void AddCandidate(int32_t at, std::vector<Candidate>* candidates) const {
    const int32_t next = links_[at].next;
    if (next == kNone) return;
    const int32_t left_id = symbols_[at].id;
    const int32_t right_id = symbols_[next].id;
    const auto* target = table_.Find(left_id, right_id);
    if (target == nullptr) return;
    candidates->push_back({target->rank, at, left_id, right_id, target->id});
  }

  // Whether the pair is still there.
  bool IsCurrent(const Candidate& pair) const {
    const int32_t next = links_[pair.at].next;
    return next != kNone && symbols_[pair.at].id == pair.left &&
           symbols_[next].id == pair.right;
  }

  void Join(const Candidate& pair) {
    const int32_t right = links_[pair.at].next;
    symbols_[pair.at].id = pair.result;
    symbols_[pair.at].end = symbols_[right].end;
    symbols_[right].id = kNone;
    links_[pair.at].next = links_[right].next;
    if (links_[right].next != kNone) {
      links_[links_[right].next].previous = pair.at;
    }
  }

  const BpeMergeTable& table_;
  std::vector<BpeSymbol>& symbols_;
  std::vector<Link> links_;
  Heap heap_;
};

}  // namespace

BpeMergeTable::BpeMergeTable(absl::Span<const BpeMerge> merges) {
  targets_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const BpeMerge& merge = merges[rank];
    targets_[Key(merge.left, merge.right)] = {static_cast<uint32_t>(rank),
                                              merge.result};
  }
}

void BpeMergeSymbols(const BpeMergeTable& table,
                     std::vector<BpeSymbol>* symbols) {
  if (symbols->size() <= kShortWord) {
    MergeShort(table, symbols);
  } else {
    LongWord(table, symbols).Merge();
  }
}

}  // namespace qk
