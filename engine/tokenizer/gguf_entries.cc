#include "engine/tokenizer/gguf_entries.h"

#include <algorithm>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/sha256.h"
#include "engine/base/utf8.h"
#include "engine/formats/excerpt.h"

namespace qk {
namespace {

constexpr char kTokens[] = "tokenizer.ggml.tokens";
constexpr char kTokenType[] = "tokenizer.ggml.token_type";

void UpdateNumber(uint64_t value, Sha256* sha256) {
  uint8_t bytes[8];
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<uint8_t>(value >> 8 * i);
  sha256->Update(bytes, sizeof bytes);
}

}  // namespace

std::string GgufTokenizerDigest(const GgufFile& file) {
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

absl::Status ReadGgufTokens(const GgufFile& file, TokenIndex* index,
                            TokenizerSpec* spec) {
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
    // Of a token that is there twice, llama.cpp finds the last.
    (*index)[tokens[id]] = static_cast<int32_t>(id);
    spec->tokens.emplace_back(tokens[id]);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int64_t>> ReadGgufTokenTypes(const GgufFile& file,
                                                        PieceType last,
                                                        TokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(auto types, file.GetInt64s(kTokenType));
  if (types.size() != spec->tokens.size()) {
    return file.Error("tokenizer.ggml.*",
                      absl::StrCat("lengths differ: ", spec->tokens.size(),
                                   " tokens, ", types.size(), " token_type"));
  }
  for (size_t id = 0; id < types.size(); ++id) {
    const auto fail = [&](absl::string_view message) {
      return file.Error(kTokenType, absl::StrCat("id ", id, ": ", message));
    };
    if (types[id] < kNormalPiece || types[id] > last) {
      return fail(absl::StrCat("must be 1 to ", last, ", got ", types[id]));
    }
    const bool special = types[id] == kControlPiece ||
                         (types[id] == kUnknownPiece && last == kBytePiece);
    if (!special && types[id] != kUserDefinedPiece) continue;
    const std::string& content = spec->tokens[id];
    if (content.empty() || content.size() > kMaxAddedTokenBytes) {
      return fail(absl::StrCat("token must have 1 to ", kMaxAddedTokenBytes,
                               " bytes, got ", content.size()));
    }
    spec->added.push_back({.id = static_cast<int32_t>(id),
                           .content = content,
                           .special = special});
  }
  return types;
}

absl::StatusOr<std::optional<int32_t>> ReadGgufId(const GgufFile& file,
                                                  absl::string_view name,
                                                  const TokenizerSpec& spec) {
  const std::string key = absl::StrCat("tokenizer.ggml.", name);
  if (!file.Has(key)) return std::nullopt;
  QK_ASSIGN_OR_RETURN(
      const int64_t id,
      file.GetInt64InRange(key, 0,
                           static_cast<int64_t>(spec.tokens.size()) - 1));
  return static_cast<int32_t>(id);
}

absl::Status ReadGgufSpecialIds(const GgufFile& file, bool adds_bos,
                                TokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(spec->bos_id, ReadGgufId(file, "bos_token_id", *spec));
  QK_ASSIGN_OR_RETURN(const auto eos, ReadGgufId(file, "eos_token_id", *spec));
  QK_ASSIGN_OR_RETURN(const auto eot, ReadGgufId(file, "eot_token_id", *spec));
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

}  // namespace qk
