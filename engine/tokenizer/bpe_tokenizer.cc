#include "engine/tokenizer/bpe_tokenizer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/formats/json_syntax.h"
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

// In a byte-level vocabulary added tokens are plain text, the others spell
// bytes; those with characters outside the alphabet stand for themselves.
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

absl::Status CheckText(absl::string_view text) {
  if (text.size() > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("text: ", text.size(), " bytes, limit ",
                     std::numeric_limits<int32_t>::max()));
  }
  if (const auto at = FindInvalidUtf8(text)) {
    return absl::InvalidArgumentError(
        absl::StrCat("text: invalid UTF-8 at byte ", *at));
  }
  return absl::OkStatus();
}

}  // namespace

struct BpeTokenizer::Encoding {
  absl::string_view text;
  const Matchers* matchers;
  std::vector<TokenSpan> tokens;
  std::vector<BpeSymbol> symbols;  // of the word at hand
  // Of the part at hand, and where it is in `text`.
  const EditedText* normalized = nullptr;
  size_t begin = 0;
  size_t words_begin = 0;  // in the normalised text, of the words at hand

  void Add(int32_t id, size_t first, size_t last) {
    tokens.push_back(
        {id, static_cast<uint32_t>(first), static_cast<uint32_t>(last)});
  }
  // [first, last): bytes of the part's normalised text.
  void AddNormalized(int32_t id, size_t first, size_t last) {
    const auto [from, to] = normalized->ToOriginal(first, last);
    Add(id, begin + from, begin + to);
  }
  // [first, last): bytes of a word.
  void AddOfWord(const Word& word, int32_t id, size_t first, size_t last) {
    const auto [from, to] = word.ToText(first, last);
    AddNormalized(id, words_begin + from, words_begin + to);
  }
};

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
  absl::flat_hash_map<absl::string_view, int32_t> ids;
  for (int32_t id = 0; id < vocab_size(); ++id) {
    if (!special_[id]) ids.emplace(spec_.tokens[id], id);
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

absl::StatusOr<std::vector<TokenSpan>> BpeTokenizer::Encode(
    absl::string_view text, const EncodeOptions& options) const {
  QK_RETURN_IF_ERROR(CheckText(text));
  Encoding encoding;
  encoding.text = text;
  encoding.matchers = matchers_[options.parse_special ? 1 : 0].get();
  const bool add_special = options.add_special_tokens.value_or(true);
  if (add_special) {
    for (const int32_t id : spec_.prefix) encoding.Add(id, 0, 0);
  }
  EncodeSection(0, text.size(), &encoding);
  if (add_special) {
    for (const int32_t id : spec_.suffix) {
      encoding.Add(id, text.size(), text.size());
    }
  }
  return std::move(encoding.tokens);
}

absl::StatusOr<std::vector<TokenSpan>> BpeTokenizer::EncodeAround(
    absl::string_view text, absl::Span<const TokenSpan> special) const {
  QK_RETURN_IF_ERROR(CheckText(text));
  Encoding encoding;
  encoding.text = text;
  encoding.matchers = matchers_[0].get();
  size_t done = 0;
  for (size_t i = 0; i < special.size(); ++i) {
    const TokenSpan& token = special[i];
    QK_CHECK(done <= token.begin && token.begin <= token.end);
    const auto added = added_by_id_.find(token.id);
    QK_CHECK(added != added_by_id_.end());
    const size_t next =
        i + 1 < special.size() ? special[i + 1].begin : text.size();
    const auto [begin, end] = added->second->WithWhitespace(
        text.substr(0, next), done, token.begin, token.end);
    EncodeSection(done, begin, &encoding);
    encoding.Add(token.id, begin, end);
    done = end;
  }
  EncodeSection(done, text.size(), &encoding);
  return std::move(encoding.tokens);
}

void BpeTokenizer::EncodeSection(size_t begin, size_t end,
                                 Encoding* encoding) const {
  encoding->matchers->raw.ForEachPart(
      encoding->text.substr(begin, end - begin),
      [&](size_t first, size_t last, const AddedToken* token) {
        if (token == nullptr) {
          return EncodePart(begin + first, begin + last, encoding);
        }
        encoding->Add(token->id, begin + first, begin + last);
      });
}

void BpeTokenizer::EncodePart(size_t begin, size_t end,
                              Encoding* encoding) const {
  const EditedText normalized =
      Normalize(spec_.normalizer, encoding->text.substr(begin, end - begin));
  encoding->normalized = &normalized;
  encoding->begin = begin;
  encoding->matchers->normalized.ForEachPart(
      normalized.text(),
      [&](size_t first, size_t last, const AddedToken* token) {
        if (token != nullptr) {
          return encoding->AddNormalized(token->id, first, last);
        }
        encoding->words_begin = first;
        ForEachWord(spec_.pre_tokenizer,
                    normalized.text().substr(first, last - first),
                    begin == 0 && first == 0,
                    [&](const Word& word) { EncodeWord(word, encoding); });
      });
  encoding->normalized = nullptr;
}

void BpeTokenizer::EncodeWord(const Word& word, Encoding* encoding) const {
  if (spec_.ignore_merges) {
    const auto whole = whole_words_.find(word.bytes);
    if (whole != whole_words_.end()) {
      return encoding->AddOfWord(word, whole->second, 0, word.bytes.size());
    }
  }
  std::vector<BpeSymbol>& symbols = encoding->symbols;
  StartSymbols(word.bytes, &symbols);
  BpeMergeSymbols(merges_, &symbols);
  for (size_t i = 0; i < symbols.size();) {
    if (symbols[i].id >= vocab_size()) {
      i = EncodeUnknown(word, i, encoding);
      continue;
    }
    encoding->AddOfWord(word, symbols[i].id, symbols[i].begin, symbols[i].end);
    ++i;
  }
}

size_t BpeTokenizer::EncodeUnknown(const Word& word, size_t first,
                                   Encoding* encoding) const {
  const std::vector<BpeSymbol>& symbols = encoding->symbols;
  const BpeSymbol& symbol = symbols[first];
  size_t next = first + 1;
  if (spec_.byte_tokens.has_value()) {
    for (uint32_t at = symbol.begin; at < symbol.end; ++at) {
      const auto byte = static_cast<unsigned char>(word.bytes[at]);
      encoding->AddOfWord(word, (*spec_.byte_tokens)[byte], at, at + 1);
    }
  } else if (spec_.unknown_id.has_value()) {
    while (spec_.fuse_unknown && next < symbols.size() &&
           symbols[next].id >= vocab_size()) {
      ++next;
    }
    encoding->AddOfWord(word, *spec_.unknown_id, symbol.begin,
                        symbols[next - 1].end);
  }
  return next;
}

void BpeTokenizer::StartSymbols(absl::string_view word,
                                std::vector<BpeSymbol>* symbols) const {
  symbols->clear();
  for (uint32_t at = 0; at < word.size();) {
    if (spec_.byte_level) {
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

absl::StatusOr<std::string> BpeTokenizer::Decode(absl::Span<const int32_t> ids,
                                                 bool keep_special) const {
  std::string bytes;
  bool first = true;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_size()) {
      return absl::OutOfRangeError(absl::StrCat("token_ids[", i, "]: ", ids[i],
                                                " is outside [0, ",
                                                vocab_size(), ")"));
    }
    if (special_[ids[i]] && !keep_special) continue;
    const auto first_piece =
        first ? first_pieces_.find(ids[i]) : first_pieces_.end();
    bytes += first_piece == first_pieces_.end() ? pieces_[ids[i]]
                                                : first_piece->second;
    first = false;
  }
  return spec_.decoder.Finish(std::move(bytes));
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
