// Reads vocab.json and merges.txt, GPT-2's own files, which repositories
// without a tokenizer.json hold (OPT's, for example), as `transformers`
// converts its GPT2Tokenizer and Qwen2Tokenizer.
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "engine/base/check.h"
#include "engine/base/sha256.h"
#include "engine/formats/excerpt.h"
#include "engine/formats/json.h"
#include "engine/tokenizer/json_config.h"
#include "engine/tokenizer/json_model.h"
#include "engine/tokenizer/splitters.h"
#include "engine/tokenizer/subword_tokenizer.h"
#include "engine/tokenizer/token_adder.h"
#include "engine/tokenizer/tokenizer.h"

namespace qk {
namespace {

constexpr int64_t kMaxMergesBytes = int64_t{64} << 20;

// What a class does with the files, which all have the same names.
struct Class {
  absl::string_view name;
  Splitter::Scanner splitter;
  bool nfc;
  bool plain_names;  // flags of the named tokens do not count
  // Names that have the token <|endoftext|> by default.
  std::vector<absl::string_view> names;
};

const std::vector<Class>& Classes() {
  static const std::vector<Class>& classes = *new std::vector<Class>{
      {"GPT2Tokenizer",
       NextGpt2,
       false,
       false,
       {"bos_token", "eos_token", "unk_token"}},
      {"Qwen2Tokenizer",
       NextQwen2,
       true,
       true,
       {"eos_token", "unk_token", "pad_token"}},
  };
  return classes;
}

// "GPT2TokenizerFast" is the same class.
absl::StatusOr<const Class*> FindClass(const JsonValue& config) {
  QK_ASSIGN_OR_RETURN(const absl::string_view name,
                      config.GetString("tokenizer_class"));
  const absl::string_view plain = absl::StripSuffix(name, "Fast");
  for (const Class& known : Classes()) {
    if (known.name == plain) return &known;
  }
  return config.Error(absl::StrCat(
      "tokenizer_class: \"", Excerpt(name),
      "\" is not read from vocab.json and merges.txt (GPT2Tokenizer and "
      "Qwen2Tokenizer are); save a tokenizer.json"));
}

absl::Status ReadMergesText(absl::string_view text, const TokenIndex& index,
                            TokenizerSpec* spec) {
  if (static_cast<int64_t>(text.size()) > kMaxMergesBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "merges.txt: ", text.size(), " bytes, limit ", kMaxMergesBytes));
  }
  MergeReader reader(index);
  int64_t number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    absl::ConsumeSuffix(&line, "\r");
    if (line.empty() || absl::StartsWith(line, "#version")) continue;
    const auto merge = reader.Read(line);
    if (!merge.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "merges.txt: line ", number, ": ", merge.status().message()));
    }
    if (static_cast<int64_t>(spec->bpe.merges.size()) >= kMaxMerges) {
      return absl::InvalidArgumentError(
          absl::StrCat("merges.txt: more than ", kMaxMerges));
    }
    spec->bpe.merges.push_back(*merge);
  }
  return absl::OkStatus();
}

absl::Status ReadSpecialTokens(const JsonValue& config, const TokenAdder& adder,
                               const TokenizerConfig& names,
                               TokenizerSpec* spec) {
  names.SetBosAndEos(adder, spec);
  QK_ASSIGN_OR_RETURN(const bool add_bos,
                      config.GetBoolOr("add_bos_token", false));
  if (!add_bos) return absl::OkStatus();
  if (!spec->bos_id.has_value()) {
    return config.Error("add_bos_token: there is no bos_token");
  }
  spec->prefix.push_back(*spec->bos_id);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromVocabAndMerges(
    absl::string_view vocab_json, absl::string_view merges,
    const TokenizerSettings& settings) {
  QK_ASSIGN_OR_RETURN(TokenizerConfig names, TokenizerConfig::Read(settings));
  if (!names.root().has_value()) {
    return absl::InvalidArgumentError(
        "tokenizer_config: missing beside vocab.json and merges.txt");
  }
  const JsonValue config = *names.root();
  QK_ASSIGN_OR_RETURN(const Class* const known, FindClass(config));
  for (const absl::string_view key : known->names) {
    names.SetDefaultName(key, "<|endoftext|>");
  }
  QK_ASSIGN_OR_RETURN(const JsonDocument vocab,
                      JsonDocument::Parse("vocab.json", vocab_json, {}));
  TokenizerSpec spec;
  TokenIndex index;
  QK_RETURN_IF_ERROR(ReadVocab(vocab.root(), &index));
  QK_RETURN_IF_ERROR(FillTokens(vocab.root(), index, &spec));
  QK_RETURN_IF_ERROR(ReadMergesText(merges, index, &spec));
  TokenAdder adder(index, &spec);
  QK_RETURN_IF_ERROR(names.AddTokens(&adder));
  if (known->plain_names) QK_RETURN_IF_ERROR(names.AddPlainNames(&adder));
  QK_RETURN_IF_ERROR(ReadSpecialTokens(config, adder, names, &spec));
  QK_ASSIGN_OR_RETURN(const bool space,
                      config.GetBoolOr("add_prefix_space", false));
  using Prefix = PieceSpelling::Prefix;
  spec.pre_tokenizer.spelling = {" ", space ? Prefix::kAlways : Prefix::kNever};
  spec.pre_tokenizer.after = {known->splitter};
  if (known->nfc) {
    spec.normalizer.push_back({.kind = NormalizerStep::Kind::kNfc});
  }
  Sha256 sha256;
  sha256.Update(vocab_json.data(), vocab_json.size());
  sha256.Update(merges.data(), merges.size());
  spec.sha256_hex = sha256.FinishHex();
  return std::make_unique<SubwordTokenizer>(std::move(spec));
}

}  // namespace qk
