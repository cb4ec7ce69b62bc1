#include "engine/tokenizer/bpe_model.h"

#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/unicode.h"

namespace qk {
namespace {

std::vector<BpeMerge> OrdinaryMerges(const TokenizerSpec& spec,
                                     const std::vector<bool>& special) {
  std::vector<BpeMerge> merges = spec.bpe.merges;
  std::erase_if(merges, [&](const BpeMerge& merge) {
    return special[merge.result] ||
           (spec.byte_tokens.has_value() &&
            LooksLikeByteToken(spec.tokens[merge.result]));
  });
  return merges;
}

}  // namespace

BpeModel::BpeModel(const TokenizerSpec& spec, const std::vector<bool>& special)
    : vocab_size_(static_cast<int32_t>(spec.tokens.size())),
      byte_level_(spec.byte_level),
      fuse_unknown_(spec.bpe.fuse_unknown),
      byte_tokens_(spec.byte_tokens),
      unknown_id_(spec.unknown_id),
      merges_(OrdinaryMerges(spec, special)) {
  if (byte_level_) {
    FindByteIds(spec, special);
  } else {
    FindCharIds(spec, special);
  }
  if (spec.bpe.ignore_merges) FindWholeWords(spec, special);
}

void BpeModel::FindByteIds(const TokenizerSpec& spec,
                           const std::vector<bool>& special) {
  FlatHashMap<absl::string_view, int32_t> ids;
  for (int32_t id = 0; id < vocab_size_; ++id) {
    if (!special[id]) ids[spec.tokens[id]] = id;
  }
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = ids.find(ByteLevelSpelling(static_cast<uint8_t>(byte)));
    byte_ids_[byte] = found == ids.end() ? unknown_symbol() : found->second;
  }
}

void BpeModel::FindCharIds(const TokenizerSpec& spec,
                           const std::vector<bool>& special) {
  for (int32_t id = 0; id < vocab_size_; ++id) {
    const absl::string_view token = spec.tokens[id];
    if (special[id] || token.empty()) continue;
    const Utf8Char first = Utf8At(token, 0);
    if (first.size == token.size()) char_ids_[first.code] = id;
  }
  for (const auto& [c, id] : spec.bpe.char_ids) char_ids_.emplace(c, id);
}

void BpeModel::FindWholeWords(const TokenizerSpec& spec,
                              const std::vector<bool>& special) {
  std::vector<bool> added(spec.tokens.size(), false);
  for (const AddedToken& token : spec.added) added[token.id] = true;
  for (int32_t id = 0; id < vocab_size_; ++id) {
    const std::string& token = spec.tokens[id];
    if (special[id]) continue;
    if (byte_level_) {
      const auto bytes = ByteLevelBytes(token);
      if (bytes.has_value()) whole_words_[added[id] ? token : *bytes] = id;
    } else if (!byte_tokens_.has_value() || !LooksLikeByteToken(token)) {
      whole_words_[token] = id;
    }
  }
}

absl::Status BpeModel::Encode(absl::string_view word, bool /*with_special*/,
                              ModelScratch* scratch, Visit visit) const {
  if (!whole_words_.empty()) {
    const auto whole = whole_words_.find(word);
    if (whole != whole_words_.end()) {
      visit(whole->second, 0, word.size());
      return absl::OkStatus();
    }
  }
  std::vector<BpeSymbol>& symbols = scratch->symbols;
  if (!scratch->merged.Find(word, &symbols)) {
    StartSymbols(word, &symbols);
    BpeMergeSymbols(merges_, &symbols);
    scratch->merged.Keep(word, symbols);
  }
  for (size_t i = 0; i < symbols.size();) {
    if (symbols[i].id >= vocab_size_) {
      i = EncodeUnknown(word, symbols, i, visit);
      continue;
    }
    visit(symbols[i].id, symbols[i].begin, symbols[i].end);
    ++i;
  }
  return absl::OkStatus();
}

size_t BpeModel::EncodeUnknown(absl::string_view word,
                               const std::vector<BpeSymbol>& symbols,
                               size_t first, Visit visit) const {
  const BpeSymbol& symbol = symbols[first];
  size_t next = first + 1;
  if (byte_tokens_.has_value()) {
    for (uint32_t at = symbol.begin; at < symbol.end; ++at) {
      const auto byte = static_cast<unsigned char>(word[at]);
      visit((*byte_tokens_)[byte], at, at + 1);
    }
  } else if (unknown_id_.has_value()) {
    while (fuse_unknown_ && next < symbols.size() &&
           symbols[next].id >= vocab_size_) {
      ++next;
    }
    visit(*unknown_id_, symbol.begin, symbols[next - 1].end);
  }
  return next;
}

void BpeModel::StartSymbols(absl::string_view word,
                            std::vector<BpeSymbol>* symbols) const {
  symbols->clear();
  for (uint32_t at = 0; at < word.size();) {
    if (byte_level_) {
      const int32_t id = byte_ids_[static_cast<unsigned char>(word[at])];
      symbols->push_back({id, at, at + 1});
      ++at;
      continue;
    }
    const Utf8Char c = Utf8At(word, at);
    const auto found = char_ids_.find(c.code);
    const auto end = at + static_cast<uint32_t>(c.size);
    symbols->push_back(
        {found == char_ids_.end() ? unknown_symbol() : found->second, at, end});
    at = end;
  }
}

}  // namespace qk
