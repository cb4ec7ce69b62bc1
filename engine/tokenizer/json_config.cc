#include "engine/tokenizer/json_config.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/flat_hash.h"
#include "engine/formats/excerpt.h"
#include "engine/tokenizer/json_model.h"

namespace qk {
namespace {

using AddedIndex = FlatHashMap<int32_t, size_t>;  // by id

// Reads one member of added_tokens_decoder: the flags of a piece, or of an
// additional token.
absl::Status AddConfigToken(absl::string_view key, const JsonValue& value,
                            AddedIndex* index, BpeTokenizerSpec* spec) {
  int32_t id;
  const size_t size = spec->tokens.size();
  if (!absl::SimpleAtoi(key, &id) || id < 0 || static_cast<size_t>(id) > size ||
      id > kMaxTokenId) {
    return value.Error(absl::StrCat("must be an id from 0 to ", size,
                                    ", the first one not taken yet"));
  }
  QK_ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(value));
  token.id = id;
  if (static_cast<size_t>(id) == size) {
    spec->tokens.push_back(token.content);
  } else if (spec->tokens[id] != token.content) {
    return value.Error(absl::StrCat("id ", id, " is \"",
                                    Excerpt(spec->tokens[id]), "\", not \"",
                                    Excerpt(token.content), "\""));
  }
  const auto [known, is_new] = index->try_emplace(id, spec->added.size());
  if (is_new) spec->added.emplace_back();
  spec->added[known->second] = std::move(token);
  return absl::OkStatus();
}

}  // namespace

absl::Status AddConfigTokens(const JsonValue& config, BpeTokenizerSpec* spec) {
  if (!config.Find("added_tokens_decoder").has_value()) return absl::OkStatus();
  QK_ASSIGN_OR_RETURN(const JsonValue added,
                      config.GetObject("added_tokens_decoder"));
  AddedIndex index;
  for (size_t i = 0; i < spec->added.size(); ++i) {
    index[spec->added[i].id] = i;
  }
  return added.ForEachMember([&](absl::string_view key, JsonValue value) {
    return AddConfigToken(key, value, &index, spec);
  });
}

absl::StatusOr<std::optional<int32_t>> ReadConfigToken(
    const JsonValue& config, absl::string_view key, const TokenIndex& index) {
  const auto member = config.Find(key);
  if (!member.has_value()) return std::nullopt;
  absl::string_view text;
  if (member->is_object()) {
    QK_ASSIGN_OR_RETURN(text, member->GetString("content"));
  } else {
    QK_ASSIGN_OR_RETURN(text, member->AsString());
  }
  const auto found = index.find(text);
  if (found == index.end()) {
    return member->Error(
        absl::StrCat("\"", Excerpt(text), "\" is not in the vocabulary"));
  }
  return found->second;
}

absl::Status ReadBosAndEos(const JsonValue& config, const TokenIndex& index,
                           BpeTokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(spec->bos_id,
                      ReadConfigToken(config, "bos_token", index));
  QK_ASSIGN_OR_RETURN(const auto eos_id,
                      ReadConfigToken(config, "eos_token", index));
  if (eos_id.has_value()) spec->stop_ids.push_back(*eos_id);
  return absl::OkStatus();
}

}  // namespace qk
