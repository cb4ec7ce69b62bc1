// Reads SentencePiece's tokenizer.model.
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/sha256.h"
#include "engine/formats/json.h"
#include "engine/tokenizer/json_config.h"
#include "engine/tokenizer/piece_vocabulary.h"
#include "engine/tokenizer/sentencepiece_proto.h"
#include "engine/tokenizer/sentencepiece_unigram.h"
#include "engine/tokenizer/subword_tokenizer.h"
#include "engine/tokenizer/token_adder.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/vocabulary.h"

namespace qk {
namespace {

constexpr int64_t kUnigramType = 1;

// Refuses what would change the tokens and is not implemented.
absl::Status CheckSupported(const SentencePieceModel& model) {
  constexpr absl::string_view kTypes[] = {"Unigram", "BPE", "Word", "Char"};
  if (model.model_type == kUnigramType) return absl::OkStatus();
  if (model.model_type != 2) {
    const bool known = model.model_type >= 1 && model.model_type <= 4;
    return SentencePieceError(
        absl::StrCat("unsupported tokenizer model \"",
                     known ? kTypes[model.model_type - 1] : "unknown", "\""));
  }
  if (!model.charsmap.empty()) {
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

absl::Status AddPieces(const SentencePieceModel& model, TokenizerSpec* spec) {
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

// Names the file's own special tokens where the config does not.
void SetDefaultNames(const SentencePieceModel& model, TokenizerConfig* config) {
  const auto set = [&](absl::string_view key, int64_t id) {
    if (id < 0 || static_cast<size_t>(id) >= model.pieces.size()) return;
    config->SetDefaultName(key, model.pieces[id]);
  };
  set("bos_token", model.bos_id);
  set("eos_token", model.eos_id);
}

absl::Status ReadSpecialTokens(const TokenizerConfig& config,
                               const TokenAdder& adder, TokenizerSpec* spec) {
  config.SetBosAndEos(adder, spec);
  bool add_bos = true;
  bool add_eos = false;
  if (const auto root = config.root(); root.has_value()) {
    QK_ASSIGN_OR_RETURN(add_bos, root->GetBoolOr("add_bos_token", true));
    QK_ASSIGN_OR_RETURN(add_eos, root->GetBoolOr("add_eos_token", false));
  }
  if (add_bos && spec->bos_id.has_value()) {
    spec->prefix.push_back(*spec->bos_id);
  }
  if (add_eos) spec->suffix = spec->stop_ids;
  return absl::OkStatus();
}

absl::StatusOr<PrefixSpace> ReadPrefixSpace(
    const SentencePieceModel& model, const std::optional<JsonValue>& config) {
  bool prefix = model.add_dummy_prefix;
  bool legacy = false;
  if (config.has_value()) {
    QK_ASSIGN_OR_RETURN(prefix, config->GetBoolOr("add_prefix_space", prefix));
    // LlamaTokenizer's own default is false.
    QK_ASSIGN_OR_RETURN(
        const absl::string_view class_name,
        config->GetStringOr("tokenizer_class", "LlamaTokenizer"));
    QK_ASSIGN_OR_RETURN(
        legacy, config->GetBoolOr(
                    "legacy", !absl::StartsWith(class_name, "LlamaTokenizer")));
  }
  if (!prefix) return PrefixSpace::kNever;
  return legacy ? PrefixSpace::kEveryPart : PrefixSpace::kFirstPart;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromSentencePiece(
    absl::string_view model_bytes, const TokenizerSettings& settings) {
  QK_ASSIGN_OR_RETURN(SentencePieceModel model,
                      ParseSentencePieceModel(model_bytes));
  QK_RETURN_IF_ERROR(CheckSupported(model));
  QK_ASSIGN_OR_RETURN(TokenizerConfig config, TokenizerConfig::Read(settings));
  SetDefaultNames(model, &config);
  if (model.model_type == kUnigramType) {
    return UnigramFromSentencePiece(model_bytes, model, config);
  }
  TokenizerSpec spec;
  QK_RETURN_IF_ERROR(AddPieces(model, &spec));
  const TokenIndex index = IndexOf(model.pieces);
  TokenAdder adder(index, &spec);
  QK_RETURN_IF_ERROR(config.AddTokens(&adder));
  QK_RETURN_IF_ERROR(ReadSpecialTokens(config, adder, &spec));
  QK_ASSIGN_OR_RETURN(const PrefixSpace prefix,
                      ReadPrefixSpace(model, config.root()));
  // Tokens of the config are not pieces: text never merges into one.
  model.types.resize(spec.tokens.size(), kUnusedPiece);
  model.scores.resize(spec.tokens.size(), 0);
  const absl::Status filled =
      FillPieceVocabulary(model.types, model.scores, prefix, &spec);
  if (!filled.ok()) return SentencePieceError(filled.message());
  spec.sha256_hex = Sha256Hex(model_bytes);
  return std::make_unique<SubwordTokenizer>(std::move(spec));
}

}  // namespace qk
