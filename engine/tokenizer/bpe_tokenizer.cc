#include "engine/tokenizer/bpe_tokenizer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/formats/json_syntax.h"
#include "engine/tokenizer/byte_level.h"

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
  std::erase_if(merges,
                [&](const BpeMerge& merge) { return special[merge.result]; });
  return merges;
}

// Added tokens are plain text, the others spell bytes; those with characters
// outside the alphabet stand for themselves.
std::vector<std::string> Pieces(const BpeTokenizerSpec& spec) {
  std::vector<std::string> pieces;
  pieces.reserve(spec.tokens.size());
  for (const std::string& token : spec.tokens) {
    pieces.push_back(ByteLevelBytes(token).value_or(token));
  }
  for (const AddedToken& token : spec.added) pieces[token.id] = token.content;
  return pieces;
}

}  // namespace

struct BpeTokenizer::Encoding {
  absl::string_view text;
  const Matchers* matchers;
  std::vector<TokenSpan> tokens;
  std::vector<BpeSymbol> symbols;  // of the word at hand
  // Of the part at hand, and where it is in `text`.
  const NormalizedText* normalized = nullptr;
  size_t begin = 0;

  void Add(int32_t id, size_t first, size_t last) {
    tokens.push_back(
        {id, static_cast<uint32_t>(first), static_cast<uint32_t>(last)});
  }
  // [first, last): bytes of the part's normalised text.
  void AddNormalized(int32_t id, size_t first, size_t last) {
    const auto [from, to] = normalized->ToOriginal(first, last);
    Add(id, begin + from, begin + to);
  }
};

BpeTokenizer::BpeTokenizer(BpeTokenizerSpec spec)
    : spec_(std::move(spec)),
      pieces_(Pieces(spec_)),
      special_(SpecialFlags(spec_)),
      merges_(OrdinaryMerges(spec_)) {
  for (const AddedToken& token : spec_.added) {
    added_ids_[token.content] = token.id;
  }
  absl::flat_hash_map<absl::string_view, int32_t> ids;
  for (int32_t id = 0; id < vocab_size(); ++id) {
    if (!special_[id]) ids.emplace(spec_.tokens[id], id);
  }
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = ids.find(ByteLevelSpelling(static_cast<uint8_t>(byte)));
    if (found != ids.end()) byte_ids_[byte] = found->second;
  }
  if (spec_.ignore_merges) {
    for (const auto& [token, id] : ids) {
      if (ByteLevelBytes(token).has_value()) whole_words_[pieces_[id]] = id;
    }
  }
  matchers_[0] = std::make_unique<const Matchers>(MakeMatchers(false));
  matchers_[1] = std::make_unique<const Matchers>(MakeMatchers(true));
  spec_.tokens = {};
  spec_.merges = {};
}

BpeTokenizer::Matchers BpeTokenizer::MakeMatchers(bool with_special) const {
  std::vector<AddedTokenMatcher::Entry> raw;
  std::vector<AddedTokenMatcher::Entry> normalized;
  for (const AddedToken& token : spec_.added) {
    if (token.special && !with_special) continue;
    if (token.normalized) {
      const auto content = Normalize(spec_.normalization, token.content);
      normalized.push_back({&token, std::string(content.text())});
    } else {
      raw.push_back({&token, token.content});
    }
  }
  return {AddedTokenMatcher(raw), AddedTokenMatcher(normalized)};
}

absl::StatusOr<std::vector<TokenSpan>> BpeTokenizer::Encode(
    absl::string_view text, const EncodeOptions& options) const {
  if (text.size() > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("text: ", text.size(), " bytes, limit ",
                     std::numeric_limits<int32_t>::max()));
  }
  if (const auto at = FindInvalidUtf8(text)) {
    return absl::InvalidArgumentError(
        absl::StrCat("text: invalid UTF-8 at byte ", *at));
  }
  Encoding encoding;
  encoding.text = text;
  encoding.matchers = matchers_[options.parse_special ? 1 : 0].get();
  const bool add_special = options.add_special_tokens.value_or(true);
  if (add_special) {
    for (const int32_t id : spec_.prefix) encoding.Add(id, 0, 0);
  }
  encoding.matchers->raw.ForEachPart(
      text, [&](size_t begin, size_t end, const AddedToken* token) {
        if (token == nullptr) return EncodePart(begin, end, &encoding);
        encoding.Add(token->id, begin, end);
      });
  if (add_special) {
    for (const int32_t id : spec_.suffix) {
      encoding.Add(id, text.size(), text.size());
    }
  }
  return std::move(encoding.tokens);
}

void BpeTokenizer::EncodePart(size_t begin, size_t end,
                              Encoding* encoding) const {
  const NormalizedText normalized =
      Normalize(spec_.normalization, encoding->text.substr(begin, end - begin));
  encoding->normalized = &normalized;
  encoding->begin = begin;
  encoding->matchers->normalized.ForEachPart(
      normalized.text(),
      [&](size_t first, size_t last, const AddedToken* token) {
        if (token != nullptr) {
          return encoding->AddNormalized(token->id, first, last);
        }
        ForEachWord(
            spec_.pre_tokenizer, normalized.text().substr(first, last - first),
            [&](const Word& word) { EncodeWord(word, first, encoding); });
      });
  encoding->normalized = nullptr;
}

void BpeTokenizer::EncodeWord(const Word& word, size_t part_begin,
                              Encoding* encoding) const {
  // A byte of the word as a byte of the normalised part.
  const size_t base = part_begin + word.begin;
  const auto add = [&](int32_t id, size_t begin, size_t end) {
    encoding->AddNormalized(id, base + (begin - std::min(begin, word.added)),
                            base + (end - word.added));
  };
  if (spec_.ignore_merges) {
    const auto whole = whole_words_.find(word.bytes);
    if (whole != whole_words_.end()) {
      return add(whole->second, 0, word.bytes.size());
    }
  }
  StartSymbols(word.bytes, &encoding->symbols);
  BpeMergeSymbols(merges_, &encoding->symbols);
  for (const BpeSymbol& symbol : encoding->symbols) {
    add(symbol.id, symbol.begin, symbol.end);
  }
}

void BpeTokenizer::StartSymbols(absl::string_view word,
                                std::vector<BpeSymbol>* symbols) const {
  symbols->clear();
  bool fuse = false;  // the last symbol is an unknown one that may grow
  for (uint32_t at = 0; at < word.size(); ++at) {
    const auto id = byte_ids_[static_cast<unsigned char>(word[at])];
    if (id.has_value()) {
      symbols->push_back({*id, at, at + 1});
    } else if (fuse) {
      symbols->back().end = at + 1;
    } else if (spec_.unknown_id.has_value()) {
      symbols->push_back({*spec_.unknown_id, at, at + 1});
    }
    fuse =
        !id.has_value() && spec_.unknown_id.has_value() && spec_.fuse_unknown;
  }
}

absl::StatusOr<std::string> BpeTokenizer::Decode(absl::Span<const int32_t> ids,
                                                 bool keep_special) const {
  std::string bytes;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_size()) {
      return absl::OutOfRangeError(absl::StrCat("token_ids[", i, "]: ", ids[i],
                                                " is outside [0, ",
                                                vocab_size(), ")"));
    }
    if (keep_special || !special_[ids[i]]) bytes += pieces_[ids[i]];
  }
  return bytes;
}

std::string BpeTokenizer::Piece(int32_t id) const {
  QK_CHECK(id >= 0 && id < vocab_size());
  return pieces_[id];
}

bool BpeTokenizer::IsSpecial(int32_t id) const {
  QK_CHECK(id >= 0 && id < vocab_size());
  return special_[id];
}

std::optional<int32_t> BpeTokenizer::FindSpecial(absl::string_view text) const {
  const auto found = added_ids_.find(text);
  if (found == added_ids_.end()) return std::nullopt;
  return found->second;
}

}  // namespace qk
