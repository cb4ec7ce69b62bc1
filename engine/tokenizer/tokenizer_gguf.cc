// The tokenizer.* metadata of a GGUF file.
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer
#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/formats/excerpt.h"
#include "engine/formats/gguf.h"
#include "engine/formats/json_syntax.h"
#include "engine/sha256.h"
#include "engine/tokenizer/bpe_tokenizer.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/vocabulary.h"

namespace qk {
namespace {

constexpr char kModel[] = "tokenizer.ggml.model";
constexpr char kPre[] = "tokenizer.ggml.pre";
constexpr char kTokens[] = "tokenizer.ggml.tokens";
constexpr char kTokenType[] = "tokenizer.ggml.token_type";
constexpr char kMerges[] = "tokenizer.ggml.merges";

// Values of tokenizer.ggml.token_type.
enum TokenType : int64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

void UpdateNumber(uint64_t value, Sha256* sha256) {
  uint8_t bytes[8];
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<uint8_t>(value >> 8 * i);
  sha256->Update(bytes, sizeof bytes);
}

// The digest of all tokenizer.* entries in the order of their keys, each as
// size of key, key, type, element type, count, size of value, value: the
// numbers as 8 bytes little-endian, the value as it lies in the file. Tensors
// and the order of the file do not matter.
std::string Digest(const GgufFile& file) {
  std::vector<absl::string_view> keys = file.keys();
  std::erase_if(keys, [](absl::string_view key) {
    return !absl::StartsWith(key, "tokenizer.");
  });
  std::sort(keys.begin(), keys.end());
  Sha256 sha256;
  for (const absl::string_view key : keys) {
    const GgufValue& value = *file.FindValue(key);
    UpdateNumber(key.size(), &sha256);
    sha256.Update(key.data(), key.size());
    UpdateNumber(static_cast<uint64_t>(value.type), &sha256);
    UpdateNumber(static_cast<uint64_t>(value.element), &sha256);
    UpdateNumber(value.count, &sha256);
    UpdateNumber(value.data.size(), &sha256);
    sha256.Update(value.data.data(), value.data.size());
  }
  return sha256.FinishHex();
}

absl::Status ReadTokens(const GgufFile& file, TokenIndex* index,
                        BpeTokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(const auto tokens, file.GetStrings(kTokens));
  const auto fail = [&](size_t id, absl::string_view message) {
    return file.Error(kTokens, absl::StrCat("id ", id, ": ", message));
  };
  if (tokens.empty()) return file.Error(kTokens, "is empty");
  if (tokens.size() > size_t{kMaxTokenId} + 1) {
    return file.Error(kTokens, absl::StrCat(tokens.size(), " tokens, limit ",
                                            kMaxTokenId + 1));
  }
  index->reserve(tokens.size());
  spec->tokens.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (FindInvalidUtf8(tokens[id]).has_value()) {
      return fail(
          id, absl::StrCat("must be UTF-8, got \"", Excerpt(tokens[id]), "\""));
    }
    const auto [entry, added] =
        index->try_emplace(tokens[id], static_cast<int32_t>(id));
    if (!added) {
      return fail(id, absl::StrCat("\"", Excerpt(tokens[id]), "\" is also id ",
                                   entry->second));
    }
    spec->tokens.emplace_back(tokens[id]);
  }
  return absl::OkStatus();
}

// Control tokens are special; user-defined ones are found in any text.
absl::Status ReadTokenTypes(const GgufFile& file, BpeTokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(const auto types, file.GetInt64s(kTokenType));
  if (types.size() != spec->tokens.size()) {
    return file.Error("tokenizer.ggml.*",
                      absl::StrCat("lengths differ: ", spec->tokens.size(),
                                   " tokens, ", types.size(), " token_type"));
  }
  for (size_t id = 0; id < types.size(); ++id) {
    const auto fail = [&](absl::string_view message) {
      return file.Error(kTokenType, absl::StrCat("id ", id, ": ", message));
    };
    if (types[id] < kNormal || types[id] >= kByte) {
      return fail(absl::StrCat("must be 1 to 5, got ", types[id]));
    }
    if (types[id] != kControl && types[id] != kUserDefined) continue;
    const std::string& content = spec->tokens[id];
    if (content.empty() || content.size() > kMaxAddedTokenBytes) {
      return fail(absl::StrCat("token must have 1 to ", kMaxAddedTokenBytes,
                               " bytes, got ", content.size()));
    }
    spec->added.push_back({.id = static_cast<int32_t>(id),
                           .content = content,
                           .special = types[id] == kControl});
  }
  return absl::OkStatus();
}

absl::Status ReadMerges(const GgufFile& file, const TokenIndex& index,
                        BpeTokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(const auto merges, file.GetStrings(kMerges));
  if (static_cast<int64_t>(merges.size()) > kMaxMerges) {
    return file.Error(
        kMerges, absl::StrCat(merges.size(), " merges, limit ", kMaxMerges));
  }
  spec->merges.reserve(merges.size());
  MergeReader reader(index);
  for (size_t i = 0; i < merges.size(); ++i) {
    const auto merge = reader.Read(merges[i]);
    if (!merge.ok()) {
      const absl::string_view message = merge.status().message();
      return file.Error(kMerges, absl::StrCat("[", i, "]: ", message));
    }
    spec->merges.push_back(*merge);
  }
  return absl::OkStatus();
}

// An id entry, if there is one.
absl::StatusOr<std::optional<int32_t>> ReadId(const GgufFile& file,
                                              absl::string_view name,
                                              const BpeTokenizerSpec& spec) {
  const std::string key = absl::StrCat("tokenizer.ggml.", name);
  if (!file.Has(key)) return std::nullopt;
  QK_ASSIGN_OR_RETURN(
      const int64_t id,
      file.GetInt64InRange(key, 0,
                           static_cast<int64_t>(spec.tokens.size()) - 1));
  return static_cast<int32_t>(id);
}

absl::Status ReadSpecialIds(const GgufFile& file, bool adds_bos,
                            BpeTokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(spec->bos_id, ReadId(file, "bos_token_id", *spec));
  QK_ASSIGN_OR_RETURN(const auto eos, ReadId(file, "eos_token_id", *spec));
  QK_ASSIGN_OR_RETURN(const auto eot, ReadId(file, "eot_token_id", *spec));
  if (eos.has_value()) spec->stop_ids.push_back(*eos);
  if (eot.has_value() && eot != eos) spec->stop_ids.push_back(*eot);
  constexpr char kAddBos[] = "tokenizer.ggml.add_bos_token";
  constexpr char kAddEos[] = "tokenizer.ggml.add_eos_token";
  QK_ASSIGN_OR_RETURN(const bool add_bos, file.GetBoolOr(kAddBos, adds_bos));
  QK_ASSIGN_OR_RETURN(const bool add_eos, file.GetBoolOr(kAddEos, false));
  if (add_bos) {
    if (!spec->bos_id.has_value()) {
      return file.Error(kAddBos, "is true, but there is no bos_token_id");
    }
    spec->prefix.push_back(*spec->bos_id);
  }
  if (add_eos) {
    if (!eos.has_value()) {
      return file.Error(kAddEos, "is true, but there is no eos_token_id");
    }
    spec->suffix.push_back(*eos);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromGguf(
    const GgufFile& file) {
  QK_ASSIGN_OR_RETURN(const absl::string_view model, file.GetString(kModel));
  if (model != "gpt2") {
    return file.Error(kModel, absl::StrCat("unsupported tokenizer model \"",
                                           Excerpt(model), "\""));
  }
  QK_ASSIGN_OR_RETURN(const absl::string_view pre, file.GetString(kPre));
  const GgufPreTokenizer* known = FindGgufPreTokenizer(pre);
  if (known == nullptr) {
    return file.Error(kPre, absl::StrCat("unsupported pre_tokenizer pattern \"",
                                         Excerpt(pre), "\""));
  }
  BpeTokenizerSpec spec;
  spec.normalization = known->nfc ? Normalization::kNfc : Normalization::kNone;
  spec.ignore_merges = known->ignore_merges;
  // As in tokenizer.json, the space goes in before the last pattern.
  spec.pre_tokenizer.splitters = known->splitters;
  spec.pre_tokenizer.splitters.pop_back();
  spec.pre_tokenizer.last = known->splitters.back();
  QK_ASSIGN_OR_RETURN(spec.pre_tokenizer.add_prefix_space,
                      file.GetBoolOr("tokenizer.ggml.add_space_prefix", false));
  TokenIndex index;
  QK_RETURN_IF_ERROR(ReadTokens(file, &index, &spec));
  QK_RETURN_IF_ERROR(ReadTokenTypes(file, &spec));
  QK_RETURN_IF_ERROR(ReadMerges(file, index, &spec));
  QK_RETURN_IF_ERROR(ReadSpecialIds(file, known->adds_bos, &spec));
  spec.sha256_hex = Digest(file);
  return std::make_unique<BpeTokenizer>(std::move(spec));
}

}  // namespace qk
