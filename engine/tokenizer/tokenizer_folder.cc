// Finds a tokenizer's files in the folder of a model.
#include <filesystem>

#include "engine/base/check.h"
#include "engine/formats/mapped_file.h"
#include "engine/formats/text_file.h"
#include "engine/tokenizer/tokenizer.h"

namespace qk {
namespace {

namespace fs = std::filesystem;

// Returns the bytes of a file; none if there is no such file.
absl::StatusOr<std::string> ReadIfAny(const fs::path& path) {
  if (!FileExists(path)) return std::string();
  return ReadModelText(path.string());
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromFolder(
    const std::string& name) {
  const fs::path folder(name);
  QK_ASSIGN_OR_RETURN(const std::string config,
                      ReadIfAny(folder / "tokenizer_config.json"));
  QK_ASSIGN_OR_RETURN(const std::string special_tokens_map,
                      ReadIfAny(folder / "special_tokens_map.json"));
  QK_ASSIGN_OR_RETURN(const std::string added_tokens,
                      ReadIfAny(folder / "added_tokens.json"));
  const TokenizerSettings settings = {config, special_tokens_map, added_tokens};
  QK_ASSIGN_OR_RETURN(const std::string json,
                      ReadIfAny(folder / "tokenizer.json"));
  if (!json.empty()) return TokenizerFromJson(json, settings);
  for (const char* file : {"tokenizer.model", "spiece.model"}) {
    QK_ASSIGN_OR_RETURN(const std::string model, ReadIfAny(folder / file));
    if (!model.empty()) return TokenizerFromSentencePiece(model, settings);
  }
  QK_ASSIGN_OR_RETURN(const std::string vocab,
                      ReadIfAny(folder / "vocab.json"));
  QK_ASSIGN_OR_RETURN(const std::string merges,
                      ReadIfAny(folder / "merges.txt"));
  if (vocab.empty() || merges.empty()) return std::unique_ptr<Tokenizer>();
  return TokenizerFromVocabAndMerges(vocab, merges, settings);
}

}  // namespace qk
