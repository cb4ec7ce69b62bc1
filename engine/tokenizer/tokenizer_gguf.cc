// The tokenizer.* metadata of a GGUF file.
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/formats/excerpt.h"
#include "engine/formats/gguf.h"
#include "engine/tokenizer/gguf_entries.h"
#include "engine/tokenizer/piece_vocabulary.h"
#include "engine/tokenizer/subword_tokenizer.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/vocabulary.h"

namespace qk {
namespace {

constexpr char kModel[] = "tokenizer.ggml.model";
constexpr char kPre[] = "tokenizer.ggml.pre";
constexpr char kScores[] = "tokenizer.ggml.scores";
constexpr char kMerges[] = "tokenizer.ggml.merges";
constexpr char kAddSpacePrefix[] = "tokenizer.ggml.add_space_prefix";

absl::Status ReadMerges(const GgufFile& file, const TokenIndex& index,
                        TokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(const auto merges, file.GetStrings(kMerges));
  if (static_cast<int64_t>(merges.size()) > kMaxMerges) {
    return file.Error(
        kMerges, absl::StrCat(merges.size(), " merges, limit ", kMaxMerges));
  }
  spec->bpe.merges.reserve(merges.size());
  MergeReader reader(index);
  for (size_t i = 0; i < merges.size(); ++i) {
    const auto merge = reader.Read(merges[i]);
    if (!merge.ok()) {
      const absl::string_view message = merge.status().message();
      return file.Error(kMerges, absl::StrCat("[", i, "]: ", message));
    }
    spec->bpe.merges.push_back(*merge);
  }
  return absl::OkStatus();
}

// Reads model "gpt2": byte-level BPE.
absl::StatusOr<TokenizerSpec> ReadGpt2(const GgufFile& file) {
  // Files that are older than this entry do not have it.
  QK_ASSIGN_OR_RETURN(const absl::string_view pre,
                      file.GetStringOr(kPre, "default"));
  const GgufPreTokenizer* known = FindGgufPreTokenizer(pre);
  if (known == nullptr) {
    return file.Error(kPre, absl::StrCat("unsupported pre_tokenizer pattern \"",
                                         Excerpt(pre), "\""));
  }
  TokenizerSpec spec;
  if (known->nfc) {
    spec.normalizer.push_back({.kind = NormalizerStep::Kind::kNfc});
  }
  spec.bpe.ignore_merges = known->ignore_merges;
  // As in tokenizer.json, the space is added before the last pattern.
  for (const absl::string_view pattern : known->patterns) {
    QK_ASSIGN_OR_RETURN(Splitter splitter, SplitterOfPattern(pattern));
    spec.pre_tokenizer.splitters.push_back(std::move(splitter));
  }
  spec.pre_tokenizer.after = {std::move(spec.pre_tokenizer.splitters.back())};
  spec.pre_tokenizer.splitters.pop_back();
  QK_ASSIGN_OR_RETURN(const bool add_space_prefix,
                      file.GetBoolOr(kAddSpacePrefix, false));
  if (add_space_prefix) {
    spec.pre_tokenizer.spelling.prefix = PieceSpelling::Prefix::kAlways;
  }
  TokenIndex index;
  QK_RETURN_IF_ERROR(ReadGgufTokens(file, &index, &spec));
  QK_RETURN_IF_ERROR(ReadGgufTokenTypes(file, kUnusedPiece, &spec).status());
  QK_RETURN_IF_ERROR(ReadMerges(file, index, &spec));
  QK_RETURN_IF_ERROR(ReadGgufSpecialIds(file, known->adds_bos, &spec));
  return spec;
}

// No entry of the file says what the special tokens of Phi-3's tokenizer do:
// all but these take the whitespace on their right.
void SetPhi3Whitespace(TokenizerSpec* spec) {
  constexpr absl::string_view kOthers[] = {"<unk>", "<s>", "<|endoftext|>"};
  for (AddedToken& token : spec->added) {
    token.rstrip = !absl::c_linear_search(kOthers, token.content);
  }
}

// Reads model "llama": SentencePiece's BPE.
absl::StatusOr<TokenizerSpec> ReadLlama(const GgufFile& file) {
  TokenizerSpec spec;
  TokenIndex index;
  QK_RETURN_IF_ERROR(ReadGgufTokens(file, &index, &spec));
  QK_ASSIGN_OR_RETURN(const auto types,
                      ReadGgufTokenTypes(file, kBytePiece, &spec));
  QK_ASSIGN_OR_RETURN(const auto scores, file.GetFloats(kScores));
  if (scores.size() != spec.tokens.size()) {
    return file.Error("tokenizer.ggml.*",
                      absl::StrCat("lengths differ: ", spec.tokens.size(),
                                   " tokens, ", scores.size(), " scores"));
  }
  QK_RETURN_IF_ERROR(ReadGgufSpecialIds(file, true, &spec));
  QK_ASSIGN_OR_RETURN(spec.unknown_id,
                      ReadGgufId(file, "unknown_token_id", spec));
  QK_ASSIGN_OR_RETURN(const absl::string_view architecture,
                      file.GetStringOr("general.architecture", ""));
  if (architecture == "phi3") SetPhi3Whitespace(&spec);
  QK_ASSIGN_OR_RETURN(const bool prefix, file.GetBoolOr(kAddSpacePrefix, true));
  const absl::Status filled = FillPieceVocabulary(
      types, scores, prefix ? PrefixSpace::kEveryPart : PrefixSpace::kNever,
      &spec);
  if (filled.ok()) return spec;
  const absl::string_view message = filled.message();
  return file.Error("tokenizer.ggml.tokens", message);
}

absl::StatusOr<TokenizerSpec> ReadSpec(const GgufFile& file) {
  QK_ASSIGN_OR_RETURN(const absl::string_view model, file.GetString(kModel));
  if (model == "gpt2") return ReadGpt2(file);
  if (model == "llama") return ReadLlama(file);
  return file.Error(kModel, absl::StrCat("unsupported tokenizer model \"",
                                         Excerpt(model), "\""));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromGguf(
    const GgufFile& file) {
  QK_ASSIGN_OR_RETURN(TokenizerSpec spec, ReadSpec(file));
  spec.sha256_hex = GgufTokenizerDigest(file);
  return std::make_unique<SubwordTokenizer>(std::move(spec));
}

}  // namespace qk
