#include "engine/tokenizer/bpe.h"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <queue>
#include <utility>

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

// The places of one pair in a long word, to be taken from left to right. They
// mostly come in that order, and then cost nothing to sort.
class Places {
 public:
  void Add(int32_t at) {
    if (in_order_.empty() || at > in_order_.back()) {
      in_order_.push_back(at);
    } else {
      late_.push(at);
    }
  }

  bool empty() const { return next_ == in_order_.size() && late_.empty(); }

  // Not to be called when empty.
  int32_t TakeFirst() {
    const bool has_in_order = next_ < in_order_.size();
    if (has_in_order && (late_.empty() || in_order_[next_] < late_.top())) {
      return in_order_[next_++];
    }
    const int32_t at = late_.top();
    late_.pop();
    return at;
  }

 private:
  std::vector<int32_t> in_order_;
  size_t next_ = 0;
  std::priority_queue<int32_t, std::vector<int32_t>, std::greater<>> late_;
};

// A long word as a linked list over its symbols, with the places of each pair
// and a heap of the pairs by rank: O(n log n), and less for a word of few
// different pairs.
class LongWord {
 public:
  LongWord(const BpeMergeTable& table, std::vector<BpeSymbol>* symbols)
      : table_(table), symbols_(*symbols), links_(symbols->size()) {
    const int32_t size = static_cast<int32_t>(links_.size());
    for (int32_t i = 0; i < size; ++i) {
      links_[i] = {i - 1, i + 1 < size ? i + 1 : kNone};
    }
    for (int32_t i = 0; i < size; ++i) AddPair(i);
  }

  void Merge() {
    while (!by_rank_.empty()) {
      const size_t index = by_rank_.top().second;
      Pair& pair = pairs_[index];
      if (pair.places.empty()) {
        pair.queued = false;
        by_rank_.pop();
        continue;
      }
      const int32_t at = pair.places.TakeFirst();
      if (!IsAt(pair, at)) continue;
      Join(at, pair.result);
      if (links_[at].previous != kNone) AddPair(links_[at].previous);
      AddPair(at);
    }
    std::erase_if(symbols_,
                  [](const BpeSymbol& symbol) { return symbol.id == kNone; });
  }

 private:
  struct Link {
    int32_t previous;
    int32_t next;
  };
  struct Pair {
    int32_t left;
    int32_t right;
    int32_t result;
    bool queued = false;  // is in by_rank_
    Places places;        // of the left symbol; some may be outdated
  };
  using RankedPair = std::pair<uint32_t, size_t>;  // rank, index in pairs_

  // Notes the pair of symbol `at` and the one after it, if it has a rank.
  void AddPair(int32_t at) {
    const int32_t next = links_[at].next;
    if (next == kNone) return;
    const int32_t left = symbols_[at].id;
    const int32_t right = symbols_[next].id;
    const auto* target = table_.Find(left, right);
    if (target == nullptr) return;
    const auto [entry, added] =
        index_of_rank_.try_emplace(target->rank, pairs_.size());
    if (added) pairs_.push_back({left, right, target->id, false, {}});
    Pair& pair = pairs_[entry->second];
    pair.places.Add(at);
    if (pair.queued) return;
    pair.queued = true;
    by_rank_.push({target->rank, entry->second});
  }

  bool IsAt(const Pair& pair, int32_t at) const {
    const int32_t next = links_[at].next;
    return next != kNone && symbols_[at].id == pair.left &&
           symbols_[next].id == pair.right;
  }

  void Join(int32_t at, int32_t result) {
    const int32_t right = links_[at].next;
    symbols_[at].id = result;
    symbols_[at].end = symbols_[right].end;
    symbols_[right].id = kNone;
    links_[at].next = links_[right].next;
    if (links_[right].next != kNone) {
      links_[links_[right].next].previous = at;
    }
  }

  const BpeMergeTable& table_;
  std::vector<BpeSymbol>& symbols_;
  std::vector<Link> links_;
  std::vector<Pair> pairs_;
  absl::flat_hash_map<uint32_t, size_t> index_of_rank_;
  std::priority_queue<RankedPair, std::vector<RankedPair>, std::greater<>>
      by_rank_;
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
