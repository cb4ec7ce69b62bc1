#include "engine/tokenizer/subword_tokenizer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/may_park.h"
#include "engine/base/utf8.h"
#include "engine/tokenizer/bpe_model.h"
#include "engine/tokenizer/unigram_model.h"

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

// Whether the normalised text from `at` on begins where the original does. A
// normal form may have put the first characters in another order.
bool BeginsAtZero(const EditedText& text, size_t at) {
  const size_t end = at == 0 ? text.text().size() : at + 1;
  return text.ToOriginal(at, end).first == 0;
}

std::vector<bool> SpecialFlags(const TokenizerSpec& spec) {
  std::vector<bool> special(spec.tokens.size(), false);
  for (const AddedToken& token : spec.added) {
    if (token.special) special[token.id] = true;
  }
  return special;
}

// What the decoder reads: a token that is searched in the normalised text is
// spelled as there.
std::vector<std::string> Spellings(const TokenizerSpec& spec) {
  std::vector<std::string> spellings = spec.tokens;
  for (const AddedToken& token : spec.added) {
    if (!token.normalized) continue;
    const auto content = Normalize(spec.normalizer, token.content);
    if (content.ok()) spellings[token.id] = std::string(content->text());
  }
  return spellings;
}

// In a byte-level vocabulary added tokens are plain text and the other tokens
// spell bytes; tokens with characters outside the alphabet stand for
// themselves.
std::vector<std::string> Pieces(const TokenizerSpec& spec,
                                const std::vector<std::string>& spellings) {
  std::vector<std::string> pieces;
  pieces.reserve(spellings.size());
  for (const std::string& token : spellings) {
    pieces.push_back(spec.decoder.Piece(token));
  }
  if (spec.byte_level) {
    for (const AddedToken& token : spec.added) pieces[token.id] = token.content;
  }
  return pieces;
}

std::unique_ptr<const TokenizerModel> MakeModel(
    const TokenizerSpec& spec, const std::vector<bool>& special) {
  if (spec.unigram.has_value()) {
    return std::make_unique<UnigramModel>(spec, special);
  }
  return std::make_unique<BpeModel>(spec, special);
}

}  // namespace

SubwordTokenizer::SubwordTokenizer(TokenizerSpec spec)
    : spec_(std::move(spec)),
      special_(SpecialFlags(spec_)),
      model_(MakeModel(spec_, special_)) {
  for (const AddedToken& token : spec_.added) {
    added_ids_[token.content] = token.id;
    added_by_id_[token.id] = &token;
  }
  const std::vector<std::string> spellings = Spellings(spec_);
  pieces_ = Pieces(spec_, spellings);
  for (int32_t id = 0; id < vocab_size(); ++id) {
    auto piece = spec_.decoder.FirstPiece(spellings[id]);
    if (piece.has_value()) first_pieces_[id] = *std::move(piece);
  }
  matchers_[0] = std::make_unique<const Matchers>(MakeMatchers(false));
  matchers_[1] = std::make_unique<const Matchers>(MakeMatchers(true));
  spec_.tokens = {};
  spec_.bpe = {};
  spec_.unigram.reset();
}

SubwordTokenizer::Matchers SubwordTokenizer::MakeMatchers(
    bool with_special) const {
  std::vector<AddedTokenMatcher::Entry> raw;
  std::vector<AddedTokenMatcher::Entry> normalized;
  for (const AddedToken& token : spec_.added) {
    if (token.special && !with_special) continue;
    if (token.normalized) {
      const auto content = Normalize(spec_.normalizer, token.content);
      if (!content.ok()) continue;  // nor is there a text that has it
      normalized.push_back({&token, std::string(content->text())});
    } else {
      raw.push_back({&token, token.content});
    }
  }
  return {AddedTokenMatcher(raw), AddedTokenMatcher(normalized)};
}

struct SubwordTokenizer::Encoding {
  absl::string_view text;
  const Matchers* matchers;
  bool with_special;  // whether the text may spell a special token
  std::vector<TokenSpan> tokens;
  absl::Status status;  // the first error
  PatternScratch pattern_scratch;
  ModelScratch scratch;
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

absl::StatusOr<std::vector<TokenSpan>> SubwordTokenizer::Encode(
    absl::string_view text, const EncodeOptions& options) const {
  QK_RETURN_IF_ERROR(CheckText(text));
  Encoding encoding;
  encoding.text = text;
  encoding.with_special = options.parse_special;
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

absl::StatusOr<std::vector<TokenSpan>> SubwordTokenizer::EncodeAround(
    absl::string_view text, absl::Span<const TokenSpan> special) const {
  QK_RETURN_IF_ERROR(CheckText(text));
  Encoding encoding;
  encoding.text = text;
  encoding.with_special = false;
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

void SubwordTokenizer::EncodeSection(size_t begin, size_t end,
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

void SubwordTokenizer::EncodePart(size_t begin, size_t end,
                                  Encoding* encoding) const {
  if (!encoding->status.ok()) return;
  const auto made =
      Normalize(spec_.normalizer, encoding->text.substr(begin, end - begin));
  if (!made.ok()) {
    encoding->status = made.status();
    return;
  }
  const EditedText& normalized = *made;
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
            [&](size_t at) {
              return begin == 0 && BeginsAtZero(normalized, first + at);
            },
            &encoding->pattern_scratch,
            [&](const Word& word) { EncodeWord(word, encoding); });
        if (encoding->status.ok()) encoding->status = status;
      });
  encoding->normalized = nullptr;
}

void SubwordTokenizer::EncodeWord(const Word& word, Encoding* encoding) const {
  MayPark();
  const absl::Status status =
      model_->Encode(word.bytes, encoding->with_special, &encoding->scratch,
                     [&](int32_t id, size_t first, size_t last) {
                       encoding->AddOfWord(word, id, first, last);
                     });
  if (encoding->status.ok()) encoding->status = status;
}

absl::StatusOr<std::string> SubwordTokenizer::Decode(
    absl::Span<const int32_t> ids, bool keep_special) const {
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

std::string SubwordTokenizer::Piece(int32_t id) const {
  QK_CHECK(id >= 0 && id < vocab_size());
  return pieces_[id];
}

bool SubwordTokenizer::IsSpecial(int32_t id) const {
  QK_CHECK(id >= 0 && id < vocab_size());
  return special_[id];
}

std::optional<int32_t> SubwordTokenizer::FindSpecial(
    absl::string_view text) const {
  const auto found = added_ids_.find(text);
  if (found == added_ids_.end()) return std::nullopt;
  return found->second;
}

}  // namespace qk
