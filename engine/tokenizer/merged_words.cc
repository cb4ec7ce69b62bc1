#include "engine/tokenizer/merged_words.h"

#include <algorithm>

#include "absl/hash/hash.h"

namespace qk {

size_t MergedWords::SlotOf(absl::string_view word) {
  return absl::Hash<absl::string_view>()(word) % kSlots;
}

bool MergedWords::Find(absl::string_view word,
                       std::vector<BpeSymbol>* symbols) const {
  if (slots_.empty() || word.size() > kMaxBytes) return false;
  const Slot& slot = slots_[SlotOf(word)];
  if (absl::string_view(slot.word.data(), slot.bytes) != word) return false;
  symbols->clear();
  uint32_t begin = 0;
  for (size_t i = 0; i < slot.symbols; ++i) {
    symbols->push_back({slot.ids[i], begin, slot.ends[i]});
    begin = slot.ends[i];
  }
  return true;
}

void MergedWords::Keep(absl::string_view word,
                       const std::vector<BpeSymbol>& symbols) {
  if (++words_ < kFirstKept) return;
  if (word.empty() || word.size() > kMaxBytes || symbols.size() > kMaxSymbols) {
    return;
  }
  if (slots_.empty()) slots_.resize(kSlots);
  Slot& slot = slots_[SlotOf(word)];
  slot.bytes = static_cast<uint8_t>(word.size());
  std::copy(word.begin(), word.end(), slot.word.begin());
  slot.symbols = static_cast<uint8_t>(symbols.size());
  for (size_t i = 0; i < symbols.size(); ++i) {
    slot.ids[i] = symbols[i].id;
    slot.ends[i] = static_cast<uint8_t>(symbols[i].end);
  }
}

}  // namespace qk
