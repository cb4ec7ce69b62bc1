// The tables that a BpeTokenizer looks up, built once from the spec.
#include <cstdint>
#include <utility>

#include "engine/base/flat_hash.h"
#include "engine/tokenizer/bpe_tokenizer.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/unicode.h"

namespace qk {
namespace {

std::vector<bool> SpecialFlags(const BpeTokenizerSpec& spec) {
  std::vector<bool> special(spec.tokens.size(), false);
  for (const AddedToken& token : spec.added) {
    if (token.special) special[token.id] = true;
  }
  return special;
}

std::vector<BpeMerge> OrdinaryMerges(const BpeTokenizerSpec& spec) {
  const std::vector<bool> special = SpecialFlags(spec);
  std::vector<BpeMerge> merges = spec.merges;
  std::erase_if(merges, [&](const BpeMerge& merge) {
    return special[merge.result] ||
           (spec.byte_tokens.has_value() &&
            LooksLikeByteToken(spec.tokens[merge.result]));
  });
  return merges;
}

// In a byte-level vocabulary added tokens are plain text and the other tokens
// spell bytes; tokens with characters outside the alphabet stand for
// themselves.
std::vector<std::string> Pieces(const BpeTokenizerSpec& spec) {
  std::vector<std::string> pieces;
  pieces.reserve(spec.tokens.size());
  for (const std::string& token : spec.tokens) {
    pieces.push_back(spec.decoder.Piece(token));
  }
  if (spec.byte_level) {
    for (const AddedToken& token : spec.added) pieces[token.id] = token.content;
  }
  return pieces;
}

}  // namespace

BpeTokenizer::BpeTokenizer(BpeTokenizerSpec spec)
    : spec_(std::move(spec)),
      pieces_(Pieces(spec_)),
      special_(SpecialFlags(spec_)),
      merges_(OrdinaryMerges(spec_)) {
  for (const AddedToken& token : spec_.added) {
    added_ids_[token.content] = token.id;
    added_by_id_[token.id] = &token;
  }
  if (spec_.byte_level) {
    FindByteIds();
  } else {
    FindCharIds();
  }
  if (spec_.ignore_merges) FindWholeWords();
  for (int32_t id = 0; id < vocab_size(); ++id) {
    auto piece = spec_.decoder.FirstPiece(spec_.tokens[id]);
    if (piece.has_value()) first_pieces_[id] = *std::move(piece);
  }
  matchers_[0] = std::make_unique<const Matchers>(MakeMatchers(false));
  matchers_[1] = std::make_unique<const Matchers>(MakeMatchers(true));
  spec_.tokens = {};
  spec_.merges = {};
  spec_.char_ids = {};
}

void BpeTokenizer::FindByteIds() {
  FlatHashMap<absl::string_view, int32_t> ids;
  for (int32_t id = 0; id < vocab_size(); ++id) {
    if (!special_[id]) ids[spec_.tokens[id]] = id;
  }
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = ids.find(ByteLevelSpelling(static_cast<uint8_t>(byte)));
    byte_ids_[byte] = found == ids.end() ? unknown_symbol() : found->second;
  }
}

void BpeTokenizer::FindCharIds() {
  for (int32_t id = 0; id < vocab_size(); ++id) {
    const absl::string_view token = spec_.tokens[id];
    if (special_[id] || token.empty()) continue;
    const Utf8Char first = Utf8At(token, 0);
    if (first.size == token.size()) char_ids_[first.code] = id;
  }
  for (const auto& [c, id] : spec_.char_ids) char_ids_.emplace(c, id);
}

void BpeTokenizer::FindWholeWords() {
  for (int32_t id = 0; id < vocab_size(); ++id) {
    const std::string& token = spec_.tokens[id];
    if (special_[id]) continue;
    if (spec_.byte_level) {
      if (ByteLevelBytes(token).has_value()) whole_words_[pieces_[id]] = id;
    } else if (!spec_.byte_tokens.has_value() || !LooksLikeByteToken(token)) {
      whole_words_[token] = id;
    }
  }
}

BpeTokenizer::Matchers BpeTokenizer::MakeMatchers(bool with_special) const {
  std::vector<AddedTokenMatcher::Entry> raw;
  std::vector<AddedTokenMatcher::Entry> normalized;
  for (const AddedToken& token : spec_.added) {
    if (token.special && !with_special) continue;
    if (token.normalized) {
      const EditedText content = Normalize(spec_.normalizer, token.content);
      normalized.push_back({&token, std::string(content.text())});
    } else {
      raw.push_back({&token, token.content});
    }
  }
  return {AddedTokenMatcher(raw), AddedTokenMatcher(normalized)};
}

}  // namespace qk
