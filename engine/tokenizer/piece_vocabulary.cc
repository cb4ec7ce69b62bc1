#include "engine/tokenizer/piece_vocabulary.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/tokenizer/scored_merges.h"

namespace qk {
namespace {

void SetSpaces(PrefixSpace prefix, TokenizerSpec* spec) {
  const std::string mark(kMetaspace);
  if (prefix == PrefixSpace::kFirstPart) {
    spec->pre_tokenizer.spelling = {kMetaspace, PieceSpelling::Prefix::kFirst};
  } else {
    if (prefix == PrefixSpace::kEveryPart) {
      spec->normalizer.push_back(
          {.kind = NormalizerStep::Kind::kPrepend, .to = mark});
    }
    spec->normalizer.push_back(
        {.kind = NormalizerStep::Kind::kReplace, .from = " ", .to = mark});
  }
  TokenDecoder& decoder = spec->decoder;
  using Kind = DecoderStep::Kind;
  decoder.byte_level = false;
  decoder.token_steps = {{.kind = Kind::kReplace, .from = mark, .to = " "}};
  if (spec->byte_tokens.has_value()) {
    decoder.token_steps.push_back({.kind = Kind::kByteFallback});
  }
  if (prefix != PrefixSpace::kNever) {
    decoder.text_steps = {{.kind = Kind::kStrip, .from = " ", .left = 1}};
  }
}

}  // namespace

absl::Status FillPieceVocabulary(const std::vector<int64_t>& types,
                                 const std::vector<float>& scores,
                                 PrefixSpace prefix, TokenizerSpec* spec) {
  spec->byte_level = false;
  spec->bpe.fuse_unknown = true;
  if (std::find(types.begin(), types.end(), kBytePiece) != types.end()) {
    QK_ASSIGN_OR_RETURN(spec->byte_tokens, FindByteTokens(spec->tokens));
  } else if (!spec->unknown_id.has_value()) {
    return absl::InvalidArgumentError(
        "there is no unknown token and there are no byte tokens");
  }
  SetSpaces(prefix, spec);
  std::vector<bool> usable(types.size());
  for (size_t id = 0; id < types.size(); ++id) {
    usable[id] = types[id] == kNormalPiece || types[id] == kUserDefinedPiece;
    if (!std::isfinite(scores[id])) {
      return absl::InvalidArgumentError(
          absl::StrCat("id ", id, ": the score must be finite"));
    }
  }
  for (const AddedToken& token : spec->added) {
    if (token.special) usable[token.id] = false;
  }
  QK_ASSIGN_OR_RETURN(ScoredMerges scored,
                      MergesOfScores(spec->tokens, scores, usable));
  spec->bpe.merges = std::move(scored.merges);
  spec->bpe.char_ids = std::move(scored.char_ids);
  return absl::OkStatus();
}

}  // namespace qk
