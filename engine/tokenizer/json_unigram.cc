#include "engine/tokenizer/json_unigram.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/tokenizer/json_steps.h"
#include "engine/tokenizer/unigram_model.h"

namespace qk {
namespace {

constexpr int kMaxPower = 308;

std::array<double, kMaxPower + 1> MakePowers() {
  std::array<double, kMaxPower + 1> powers;
  for (int i = 0; i <= kMaxPower; ++i) {
    const std::string text = absl::StrCat("1e", i);
    std::from_chars(text.data(), text.data() + text.size(), powers[i]);
  }
  return powers;
}

// `tokenizers` does not round a score's decimal digits to the nearest double:
// it scales the integer of all digits by a power of ten. The last bit decides
// between segmentations of equal score, so it is done in the same way here.
// `score` must be finite, and written with the fewest digits that give it.
double AsTokenizersReads(double score) {
  static const auto powers = MakePowers();
  char text[64];
  const char* end = std::to_chars(text, text + sizeof(text), std::fabs(score),
                                  std::chars_format::scientific)
                        .ptr;
  uint64_t digits = 0;
  int exponent = 0;
  const char* at = text;
  for (bool fraction = false; *at != 'e'; ++at) {
    if (*at == '.') {
      fraction = true;
    } else {
      digits = digits * 10 + static_cast<uint64_t>(*at - '0');
      exponent -= fraction ? 1 : 0;
    }
  }
  int power = 0;
  std::from_chars(at[1] == '+' ? at + 2 : at + 1, end, power);
  exponent += power;
  auto value = static_cast<double>(digits);
  for (; exponent < -kMaxPower; exponent += kMaxPower) value /= 1e308;
  value = exponent < 0 ? value / powers[-exponent] : value * powers[exponent];
  return std::signbit(score) ? -value : value;
}

// Reads one entry of `vocab`: [piece, score].
absl::Status ReadPiece(const JsonValue& entry, TokenIndex* index,
                       TokenizerSpec* spec) {
  std::vector<JsonValue> parts;
  QK_RETURN_IF_ERROR(entry.ForEachElement([&](JsonValue part) {
    parts.push_back(part);
    return absl::OkStatus();
  }));
  if (parts.size() != 2) {
    return entry.Error(absl::StrCat("must be a piece and its score, got ",
                                    parts.size(), " values"));
  }
  QK_ASSIGN_OR_RETURN(const absl::string_view piece, parts[0].AsString());
  QK_ASSIGN_OR_RETURN(const double score, parts[1].AsDouble());
  if (piece.size() > kMaxPieceBytes) {
    return entry.Error(absl::StrCat("the piece has ", piece.size(),
                                    " bytes, limit ", kMaxPieceBytes));
  }
  (*index)[piece] = static_cast<int32_t>(spec->tokens.size());
  spec->tokens.emplace_back(piece);
  spec->unigram->scores.push_back(AsTokenizersReads(score));
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadJsonUnigram(const JsonValue& model, TokenIndex* index,
                             TokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(const JsonValue vocab, model.GetArray("vocab"));
  const int64_t count = vocab.size();
  if (count == 0) return model.Error("vocab: is empty");
  if (count > kMaxTokenId) {
    return vocab.Error(absl::StrCat(count, " pieces, limit ", kMaxTokenId));
  }
  spec->unigram.emplace();
  spec->tokens.reserve(count);
  QK_RETURN_IF_ERROR(vocab.ForEachElement(
      [&](JsonValue entry) { return ReadPiece(entry, index, spec); }));
  if (model.Find("unk_id").has_value()) {
    QK_ASSIGN_OR_RETURN(const int64_t unknown,
                        model.GetInt64InRange("unk_id", 0, count - 1));
    spec->unknown_id = static_cast<int32_t>(unknown);
  }
  QK_ASSIGN_OR_RETURN(const bool byte_fallback,
                      model.GetBoolOr("byte_fallback", false));
  if (byte_fallback) spec->byte_tokens = ByteTokensOf(*index);
  return absl::OkStatus();
}

}  // namespace qk
