// Reads SentencePiece's tokenizer.model.
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/sha256.h"
#include "engine/formats/excerpt.h"
#include "engine/formats/json.h"
#include "engine/tokenizer/bpe_tokenizer.h"
#include "engine/tokenizer/json_config.h"
#include "engine/tokenizer/json_model.h"
#include "engine/tokenizer/piece_vocabulary.h"
#include "engine/tokenizer/sentencepiece_proto.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/vocabulary.h"

namespace qk {
namespace {

// Refuses what would change the tokens and is not implemented.
absl::Status CheckSupported(const SentencePieceModel& model) {
  constexpr absl::string_view kTypes[] = {"Unigram", "BPE", "Word", "Char"};
  if (model.model_type != 2) {
    const bool known = model.model_type >= 1 && model.model_type <= 4;
    return SentencePieceError(
        absl::StrCat("unsupported tokenizer model \"",
                     known ? kTypes[model.model_type - 1] : "unknown", "\""));
  }
  if (model.has_charsmap) {
    return SentencePieceError("unsupported normalizer_spec: has rules");
  }
  if (model.remove_extra_whitespaces) {
    return SentencePieceError(
        "unsupported normalizer_spec.remove_extra_whitespaces: true");
  }
  if (!model.escape_whitespaces) {
    return SentencePieceError(
        "unsupported normalizer_spec.escape_whitespaces: false");
  }
  if (model.treat_whitespace_as_suffix) {
    return SentencePieceError(
        "unsupported trainer_spec.treat_whitespace_as_suffix: true");
  }
  return absl::OkStatus();
}

absl::Status AddPieces(const SentencePieceModel& model,
                       BpeTokenizerSpec* spec) {
  spec->tokens = model.pieces;
  for (size_t id = 0; id < model.types.size(); ++id) {
    const int64_t type = model.types[id];
    const bool special = type == kUnknownPiece || type == kControlPiece;
    if (!special && type != kUserDefinedPiece) continue;
    const std::string& piece = model.pieces[id];
    if (piece.size() > kMaxAddedTokenBytes) {
      return SentencePieceError(absl::StrCat("pieces[", id, "]: has ",
                                             piece.size(), " bytes, limit ",
                                             kMaxAddedTokenBytes));
    }
    spec->added.push_back(
        {.id = static_cast<int32_t>(id), .content = piece, .special = special});
    if (type == kUnknownPiece) spec->unknown_id = static_cast<int32_t>(id);
  }
  return absl::OkStatus();
}

// Combines the file's own BOS and EOS with what the config says about them.
absl::Status ReadSpecialTokens(const SentencePieceModel& model,
                               const std::optional<JsonValue>& config,
                               BpeTokenizerSpec* spec) {
  const auto in_model = [&](int32_t id) -> std::optional<int32_t> {
    if (id < 0 || static_cast<size_t>(id) >= model.pieces.size()) {
      return std::nullopt;
    }
    return id;
  };
  spec->bos_id = in_model(model.bos_id);
  std::optional<int32_t> eos_id = in_model(model.eos_id);
  bool add_bos = true;
  bool add_eos = false;
  if (config.has_value()) {
    const TokenIndex index = IndexOf(spec->tokens);
    QK_ASSIGN_OR_RETURN(const auto bos_id,
                        ReadConfigToken(*config, "bos_token", index));
    if (bos_id.has_value()) spec->bos_id = bos_id;
    QK_ASSIGN_OR_RETURN(const auto config_eos,
                        ReadConfigToken(*config, "eos_token", index));
    if (config_eos.has_value()) eos_id = config_eos;
    QK_ASSIGN_OR_RETURN(add_bos, config->GetBoolOr("add_bos_token", true));
    QK_ASSIGN_OR_RETURN(add_eos, config->GetBoolOr("add_eos_token", false));
  }
  if (add_bos && spec->bos_id.has_value()) {
    spec->prefix.push_back(*spec->bos_id);
  }
  if (eos_id.has_value()) spec->stop_ids.push_back(*eos_id);
  if (add_eos && eos_id.has_value()) spec->suffix.push_back(*eos_id);
  return absl::OkStatus();
}

absl::StatusOr<PrefixSpace> ReadPrefixSpace(
    const SentencePieceModel& model, const std::optional<JsonValue>& config) {
  bool prefix = model.add_dummy_prefix;
  bool legacy = true;
  if (config.has_value()) {
    QK_ASSIGN_OR_RETURN(prefix, config->GetBoolOr("add_prefix_space", prefix));
    QK_ASSIGN_OR_RETURN(legacy, config->GetBoolOr("legacy", true));
  }
  if (!prefix) return PrefixSpace::kNever;
  return legacy ? PrefixSpace::kEveryPart : PrefixSpace::kFirstPart;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromSentencePiece(
    absl::string_view model_bytes, absl::string_view tokenizer_config_json) {
  QK_ASSIGN_OR_RETURN(SentencePieceModel model,
                      ParseSentencePieceModel(model_bytes));
  QK_RETURN_IF_ERROR(CheckSupported(model));
  std::optional<JsonDocument> document;
  std::optional<JsonValue> config;
  if (!tokenizer_config_json.empty()) {
    QK_ASSIGN_OR_RETURN(
        document,
        JsonDocument::Parse("tokenizer_config", tokenizer_config_json, {}));
    config = document->root();
  }
  BpeTokenizerSpec spec;
  QK_RETURN_IF_ERROR(AddPieces(model, &spec));
  if (config.has_value()) {
    QK_RETURN_IF_ERROR(AddConfigTokens(*config, &spec));
  }
  QK_RETURN_IF_ERROR(ReadSpecialTokens(model, config, &spec));
  QK_ASSIGN_OR_RETURN(const PrefixSpace prefix, ReadPrefixSpace(model, config));
  // Tokens of the config are not pieces: text never merges into one.
  model.types.resize(spec.tokens.size(), kUnusedPiece);
  model.scores.resize(spec.tokens.size(), 0);
  const absl::Status filled =
      FillPieceVocabulary(model.types, model.scores, prefix, &spec);
  if (!filled.ok()) return SentencePieceError(filled.message());
  Sha256 sha256;
  sha256.Update(model_bytes.data(), model_bytes.size());
  spec.sha256_hex = sha256.FinishHex();
  return std::make_unique<BpeTokenizer>(std::move(spec));
}

}  // namespace qk
