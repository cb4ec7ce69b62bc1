#include "engine/tokenizer/json_config.h"

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/formats/excerpt.h"

namespace qk {

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

}  // namespace qk
