// Reads tokenizer.json (Hugging Face `tokenizers`).
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/sha256.h"
#include "engine/formats/excerpt.h"
#include "engine/formats/json.h"
#include "engine/tokenizer/json_config.h"
#include "engine/tokenizer/json_model.h"
#include "engine/tokenizer/json_pipeline.h"
#include "engine/tokenizer/subword_tokenizer.h"
#include "engine/tokenizer/token_adder.h"
#include "engine/tokenizer/tokenizer.h"

namespace qk {

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromJson(
    absl::string_view tokenizer_json, const TokenizerSettings& settings) {
  QK_ASSIGN_OR_RETURN(const JsonDocument document,
                      JsonDocument::Parse("tokenizer", tokenizer_json, {}));
  QK_ASSIGN_OR_RETURN(const absl::string_view version,
                      document.root().GetStringOr("version", "1.0"));
  if (version != "1.0") {
    return document.root().Error(absl::StrCat(
        "version: must be \"1.0\", got \"", Excerpt(version), "\""));
  }
  TokenizerSpec spec;
  TokenIndex index;
  QK_RETURN_IF_ERROR(ReadJsonModel(document.root(), &index, &spec));
  TokenAdder adder(index, &spec);
  QK_RETURN_IF_ERROR(ReadJsonAddedTokens(document.root(), &adder));
  QK_ASSIGN_OR_RETURN(const TokenizerConfig config,
                      TokenizerConfig::Read(settings));
  QK_RETURN_IF_ERROR(config.AddTokens(&adder));
  config.SetBosAndEos(adder, &spec);
  QK_RETURN_IF_ERROR(ReadJsonPipeline(document.root(), &spec));
  spec.sha256_hex = Sha256Hex(tokenizer_json);
  return std::make_unique<SubwordTokenizer>(std::move(spec));
}

}  // namespace qk
