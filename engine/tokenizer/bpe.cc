#include "engine/tokenizer/bpe.h"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <queue>
#include <utility>

#include "engine/base/flat_hash.h"
#include "engine/base/may_park.h"

namespace qk {
namespace {

// With this many symbols or fewer, looking at all pairs again after each merge
// is faster than a heap. Most words have fewer than 10.
constexpr size_t kShortWord = 24;

constexpr int32_t kNone = -1;

void MergeShort(const BpeMergeTable& table, std::vector<BpeSymbol>* symbols) {
  std::vector<BpeSymbol>& word = *symbols;
  // targets[i] belongs to the pair (i, i + 1).
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

// Places in a long word, taken from left to right. They mostly arrive in that
// order; then sorting costs nothing.
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

  // Do not call this when empty.
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

// A long word is a linked list over its symbols, with the places of each rank's
// pairs and a heap of the ranks: O(n log n), and less for a word of few
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
      const auto [rank, index] = by_rank_.top();
      Ranked& ranked = ranked_[index];
      if (ranked.places.empty()) {
        ranked.queued = false;
        by_rank_.pop();
        continue;
      }
      MayPark();
      const int32_t at = ranked.places.TakeFirst();
      const auto* target = TargetAt(at);
      if (target == nullptr || target->rank != rank) continue;  // outdated
      Join(at, target->id);
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
  struct Ranked {
    bool queued = false;  // whether it is in by_rank_
    Places places;        // left symbols; some may be outdated
  };
  using RankAndIndex = std::pair<uint32_t, size_t>;  // index in ranked_

  // Looks up the pair of symbol `at` and the next one.
  const BpeMergeTable::Target* TargetAt(int32_t at) const {
    const int32_t next = links_[at].next;
    if (symbols_[at].id == kNone || next == kNone) return nullptr;
    return table_.Find(symbols_[at].id, symbols_[next].id);
  }

  // Notes the pair of symbol `at` and the next one, if it has a rank.
  void AddPair(int32_t at) {
    const auto* target = TargetAt(at);
    if (target == nullptr) return;
    const auto [entry, added] =
        index_of_rank_.try_emplace(target->rank, ranked_.size());
    if (added) ranked_.emplace_back();
    Ranked& ranked = ranked_[entry->second];
    ranked.places.Add(at);
    if (ranked.queued) return;
    ranked.queued = true;
    by_rank_.push({target->rank, entry->second});
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
  std::vector<Ranked> ranked_;
  FlatHashMap<uint32_t, size_t> index_of_rank_;
  std::priority_queue<RankAndIndex, std::vector<RankAndIndex>, std::greater<>>
      by_rank_;
};

}  // namespace

BpeMergeTable::BpeMergeTable(absl::Span<const BpeMerge> merges) {
  targets_.reserve(merges.size());
  for (const BpeMerge& merge : merges) {
    targets_[Key(merge.left, merge.right)] = {merge.rank, merge.result};
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
