#include "engine/tokenizer/bpe_tokenizer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/utf8.h"
#include "engine/tokenizer/unicode.h"

namespace qk {
namespace {

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
  absl::Status status;             // the first error
  std::vector<BpeSymbol> symbols;  // of the current word
  // The current part, and where it lies in `text`.
  const EditedText* normalized = nullptr;
  size_t begin = 0;
  size_t words_begin =
      0;  // where the current words begin in the normalised text

  void Add(int32_t id, size_t first, size_t last) {
    tokens.push_back(
        {id, static_cast<uint32_t>(first), static_cast<uint32_t>(last)});
  }
  // Takes bytes [first, last) of the part's normalised text.
  void AddNormalized(int32_t id, size_t first, size_t last) {
    const auto [from, to] = normalized->ToOriginal(first, last);
    Add(id, begin + from, begin + to);
  }
  // Takes bytes [first, last) of a word.
  void AddOfWord(const Word& word, int32_t id, size_t first, size_t last) {
    const auto [from, to] = word.ToText(first, last);
    AddNormalized(id, words_begin + from, words_begin + to);
  }
};

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
  QK_RETURN_IF_ERROR(encoding.status);
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
  QK_RETURN_IF_ERROR(encoding.status);
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
        const absl::Status status = ForEachWord(
            spec_.pre_tokenizer, normalized.text().substr(first, last - first),
            begin == 0 && first == 0,
            [&](const Word& word) { EncodeWord(word, encoding); });
        if (encoding->status.ok()) encoding->status = status;
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
