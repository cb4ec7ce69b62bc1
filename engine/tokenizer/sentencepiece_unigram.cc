#include "engine/tokenizer/sentencepiece_unigram.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/sha256.h"
#include "engine/tokenizer/piece_vocabulary.h"
#include "engine/tokenizer/splitters.h"
#include "engine/tokenizer/subword_tokenizer.h"
#include "engine/tokenizer/token_adder.h"
#include "engine/tokenizer/unicode.h"
#include "engine/tokenizer/unigram_model.h"
#include "engine/tokenizer/vocabulary.h"

namespace qk {
namespace {

using Kind = NormalizerStep::Kind;
using Prefix = PieceSpelling::Prefix;

constexpr int64_t kMaxExtraIds = 10000;

absl::Status CheckSupported(const SentencePieceModel& model) {
  if (model.treat_whitespace_as_suffix) {
    return SentencePieceError(
        "unsupported trainer_spec.treat_whitespace_as_suffix: true");
  }
  if (model.unk_id < 0 ||
      static_cast<size_t>(model.unk_id) >= model.pieces.size()) {
    return SentencePieceError(
        absl::StrCat("trainer_spec.unk_id: ", model.unk_id, " is outside [0, ",
                     model.pieces.size(), ")"));
  }
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    if (!std::isfinite(model.scores[id])) {
      return SentencePieceError(
          absl::StrCat("id ", id, ": the score must be finite"));
    }
    if (model.pieces[id].size() > kMaxPieceBytes) {
      return SentencePieceError(absl::StrCat("pieces[", id, "]: has ",
                                             model.pieces[id].size(),
                                             " bytes, limit ", kMaxPieceBytes));
    }
  }
  return absl::OkStatus();
}

// Adds the pieces, and control and user-defined ones as added tokens.
void AddPieces(const SentencePieceModel& model, bool add_user_defined,
               TokenizerSpec* spec) {
  spec->byte_level = false;
  spec->tokens = model.pieces;
  spec->unigram.emplace();
  spec->unigram->scores.assign(model.scores.begin(), model.scores.end());
  spec->unknown_id = model.unk_id;
  for (size_t id = 0; id < model.types.size(); ++id) {
    const int64_t type = model.types[id];
    const bool special = type == kControlPiece || type == kUnknownPiece;
    if (!special && (type != kUserDefinedPiece || !add_user_defined)) continue;
    spec->added.push_back({.id = static_cast<int32_t>(id),
                           .content = model.pieces[id],
                           .special = special});
  }
}

absl::Status AddCharsmap(const SentencePieceModel& model, TokenizerSpec* spec) {
  if (model.charsmap.empty()) return absl::OkStatus();
  auto charsmap = Charsmap::Create(model.charsmap);
  if (!charsmap.ok()) {
    return SentencePieceError(
        absl::StrCat("normalizer_spec.", charsmap.status().message()));
  }
  spec->normalizer.push_back(
      {.kind = Kind::kCharsmap, .charsmap = *std::move(charsmap)});
  return absl::OkStatus();
}

absl::StatusOr<NormalizerStep> PatternStep(absl::string_view pattern,
                                           absl::string_view to) {
  NormalizerStep step{.kind = Kind::kReplacePattern, .to = std::string(to)};
  QK_ASSIGN_OR_RETURN(step.pattern, WordPattern::Create(pattern));
  return step;
}

// SentencePiece's own order: rules, extra spaces, U+2581 for a space, and the
// space before the text, even if the text begins with one.
absl::Status AddNormalizer(const SentencePieceModel& model, bool legacy,
                           TokenizerSpec* spec) {
  QK_RETURN_IF_ERROR(AddCharsmap(model, spec));
  Normalizer& steps = spec->normalizer;
  if (model.remove_extra_whitespaces) {
    steps.push_back({.kind = Kind::kStripSpaces});
    QK_ASSIGN_OR_RETURN(NormalizerStep runs, PatternStep(" {2,}", " "));
    steps.push_back(std::move(runs));
  }
  const std::string mark(kMetaspace);
  if (model.escape_whitespaces) {
    steps.push_back({.kind = Kind::kReplace, .from = " ", .to = mark});
  }
  if (model.add_dummy_prefix && legacy) {
    QK_ASSIGN_OR_RETURN(NormalizerStep twice,
                        PatternStep("\\A\u2581", mark + mark));
    steps.push_back(std::move(twice));
  }
  return absl::OkStatus();
}

// User-defined pieces are words of their own, the longest one first.
absl::Status IsolateUserDefined(const SentencePieceModel& model,
                                PreTokenizer* out) {
  std::vector<std::string> pieces;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    if (model.types[id] == kUserDefinedPiece)
      pieces.push_back(model.pieces[id]);
  }
  if (pieces.empty()) return absl::OkStatus();
  const auto chars = [](const std::string& piece) {
    return std::count_if(piece.begin(), piece.end(),
                         [](char c) { return (c & 0xc0) != 0x80; });
  };
  std::stable_sort(pieces.begin(), pieces.end(),
                   [&](const std::string& a, const std::string& b) {
                     return chars(a) > chars(b);
                   });
  auto pattern = WordPattern::CreateAnyOf(pieces);
  if (!pattern.ok()) {
    return SentencePieceError(
        absl::StrCat("user-defined pieces: ", pattern.status().message()));
  }
  out->after.emplace_back(*std::move(pattern), SplitBehavior::kIsolated, false);
  return absl::OkStatus();
}

absl::Status ReadOwnSettings(const SentencePieceModel& model,
                             const TokenizerConfig& config,
                             TokenizerSpec* spec) {
  bool legacy = true;
  if (const auto root = config.root(); root.has_value()) {
    QK_ASSIGN_OR_RETURN(legacy, root->GetBoolOr("legacy", true));
  }
  QK_RETURN_IF_ERROR(AddNormalizer(model, legacy, spec));
  if (model.byte_fallback) {
    spec->byte_tokens = ByteTokensOf(IndexOf(model.pieces));
  }
  PreTokenizer& pre_tokenizer = spec->pre_tokenizer;
  TokenDecoder& decoder = spec->decoder;
  using Step = DecoderStep::Kind;
  decoder.byte_level = false;
  decoder.token_steps = {
      {.kind = Step::kReplace, .from = std::string(kMetaspace), .to = " "}};
  if (model.byte_fallback) {
    decoder.token_steps.push_back({.kind = Step::kByteFallback});
  }
  if (model.add_dummy_prefix) {
    pre_tokenizer.spelling = {kMetaspace,
                              legacy ? Prefix::kAlways : Prefix::kFirst};
    decoder.text_steps = {{.kind = Step::kStrip, .from = " ", .left = 1}};
  }
  return IsolateUserDefined(model, &pre_tokenizer);
}

// What the class T5Tokenizer has in place of the model's settings.
absl::Status ReadT5(const SentencePieceModel& model,
                    const TokenizerConfig& config, TokenizerSpec* spec) {
  QK_RETURN_IF_ERROR(AddCharsmap(model, spec));
  spec->pre_tokenizer.splitters = {Splitter(NextSpaceRun, kSpace)};
  spec->pre_tokenizer.spelling = {kMetaspace, Prefix::kAlways};
  spec->pre_tokenizer.after = {NextBeforeMetaspace};
  spec->decoder.byte_level = false;
  spec->decoder.token_steps = {{.kind = DecoderStep::Kind::kMetaspace,
                                .from = std::string(kMetaspace),
                                .to = " "}};
  QK_ASSIGN_OR_RETURN(
      const int64_t extra_ids,
      config.root()->GetInt64InRangeOr("extra_ids", 0, kMaxExtraIds, 100));
  for (int64_t i = extra_ids - 1; i >= 0; --i) {
    const auto id = static_cast<int32_t>(spec->tokens.size());
    spec->tokens.push_back(absl::StrCat("<extra_id_", i, ">"));
    spec->unigram->scores.push_back(0);
    spec->added.push_back(
        {.id = id, .content = spec->tokens.back(), .special = true});
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> IsT5(const TokenizerConfig& config) {
  if (!config.root().has_value()) return false;
  QK_ASSIGN_OR_RETURN(const absl::string_view name,
                      config.root()->GetStringOr("tokenizer_class", ""));
  return name == "T5Tokenizer" || name == "T5TokenizerFast";
}

absl::Status ReadSpecialTokens(const TokenizerConfig& config, bool is_t5,
                               const TokenAdder& adder, TokenizerSpec* spec) {
  config.SetBosAndEos(adder, spec);
  bool add_bos = false;
  bool add_eos = is_t5;
  if (const auto root = config.root(); root.has_value() && !is_t5) {
    QK_ASSIGN_OR_RETURN(add_bos, root->GetBoolOr("add_bos_token", false));
    QK_ASSIGN_OR_RETURN(add_eos, root->GetBoolOr("add_eos_token", false));
  }
  if (add_bos && spec->bos_id.has_value()) spec->prefix = {*spec->bos_id};
  if (add_eos) spec->suffix = spec->stop_ids;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> UnigramFromSentencePiece(
    absl::string_view bytes, const SentencePieceModel& model,
    const TokenizerConfig& config) {
  QK_RETURN_IF_ERROR(CheckSupported(model));
  QK_ASSIGN_OR_RETURN(const bool is_t5, IsT5(config));
  TokenizerSpec spec;
  AddPieces(model, is_t5, &spec);
  QK_RETURN_IF_ERROR(is_t5 ? ReadT5(model, config, &spec)
                           : ReadOwnSettings(model, config, &spec));
  const std::vector<std::string> tokens = spec.tokens;
  const TokenIndex index = IndexOf(tokens);
  TokenAdder adder(index, &spec);
  QK_RETURN_IF_ERROR(config.AddTokens(&adder));
  QK_RETURN_IF_ERROR(ReadSpecialTokens(config, is_t5, adder, &spec));
  spec.sha256_hex = Sha256Hex(bytes);
  return std::make_unique<SubwordTokenizer>(std::move(spec));
}

}  // namespace qk
