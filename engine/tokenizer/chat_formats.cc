#include "engine/tokenizer/chat_formats.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/check.h"
#include "engine/base/utf8.h"
#include "engine/formats/excerpt.h"
#include "engine/tokenizer/chat_format_table.h"
#include "engine/tokenizer/unicode.h"

namespace qk {
namespace {

constexpr size_t kMaxRoleBytes = 32;

// Strips what Python's str.strip() strips, as templates do: \s and the
// separators U+001C to U+001F.
bool IsStripped(char32_t c) {
  return (CharClasses(c) & kSpace) != 0 || (c >= 0x1c && c <= 0x1f);
}

absl::string_view Trim(absl::string_view text) {
  while (!text.empty() && IsStripped(Utf8At(text, 0).code)) {
    text.remove_prefix(Utf8At(text, 0).size);
  }
  while (!text.empty() && IsStripped(Utf8Before(text, text.size()).code)) {
    text.remove_suffix(Utf8Before(text, text.size()).size);
  }
  return text;
}

absl::Status CheckMessage(const ChatMessage& message, size_t index) {
  const auto allowed = [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' ||
           c == '-';
  };
  const std::string& role = message.role;
  if (role.empty() || role.size() > kMaxRoleBytes ||
      !std::all_of(role.begin(), role.end(), allowed)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "messages[", index, "].role: must be 1 to ", kMaxRoleBytes,
        " letters, digits, '_' or '-', got \"", Excerpt(role), "\""));
  }
  if (const auto at = FindInvalidUtf8(message.content)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "messages[", index, "].content: invalid UTF-8 at byte ", *at));
  }
  return absl::OkStatus();
}

// The messages as the format arranges them: the kind of turn of each, and the
// system message that stands in the first.
struct LaidOutChat {
  std::optional<absl::string_view> system;
  absl::Span<const ChatMessage> messages;
  std::vector<const ChatTurn*> turns;  // by message
};

absl::StatusOr<LaidOutChat> LayOut(const ChatFormat& format,
                                   absl::Span<const ChatMessage> messages) {
  LaidOutChat out;
  const size_t skipped =
      format.system_in_user.has_value() && messages[0].role == "system" ? 1 : 0;
  if (skipped == 1) out.system = messages[0].content;
  out.messages = messages.subspan(skipped);
  if (out.messages.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("messages: chat format '", format.name,
                     "' needs a user message after the system message"));
  }
  for (size_t i = 0; i < out.messages.size(); ++i) {
    const absl::string_view role = out.messages[i].role;
    const absl::string_view turn = i % 2 == 0 ? "user" : "assistant";
    if (format.alternates && role != turn) {
      return absl::InvalidArgumentError(absl::StrCat(
          "messages[", i + skipped, "].role: must be \"", turn,
          "\" in chat format '", format.name, "', got \"", role, "\""));
    }
    const auto found = std::find_if(
        format.turns.begin(), format.turns.end(), [&](const ChatTurn& known) {
          return known.role.empty() || known.role == role;
        });
    if (found == format.turns.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("messages[", i + skipped, "].role: chat format '",
                       format.name, "' has no \"", role, "\""));
    }
    out.turns.push_back(&*found);
  }
  return out;
}

class ChatWriter {
 public:
  ChatWriter(const Tokenizer& tokenizer, const ChatFormat& format)
      : tokenizer_(tokenizer), format_(format) {}

  // `system` is the part of the system message that stands in this message.
  absl::Status Write(const std::vector<ChatPiece>& pieces,
                     const ChatMessage& message, absl::string_view system) {
    for (const ChatPiece& piece : pieces) {
      QK_RETURN_IF_ERROR(Write(piece, message, system));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<EncodedChat> Finish() {
    QK_ASSIGN_OR_RETURN(chat_.tokens,
                        tokenizer_.EncodeAround(chat_.text, special_));
    return std::move(chat_);
  }

 private:
  absl::Status Write(const ChatPiece& piece, const ChatMessage& message,
                     absl::string_view system) {
    std::string& text = chat_.text;
    switch (piece.part) {
      case ChatPart::kSpecial:
        return WriteSpecial(piece.text, /*or_text=*/false);
      case ChatPart::kSpecialOrText:
        return WriteSpecial(piece.text, /*or_text=*/true);
      case ChatPart::kText:
        absl::StrAppend(&text, piece.text);
        break;
      case ChatPart::kRole:
        absl::StrAppend(&text, message.role);
        break;
      case ChatPart::kContent:
        absl::StrAppend(&text, message.content);
        break;
      case ChatPart::kTrimmedContent:
        absl::StrAppend(&text, Trim(message.content));
        break;
      case ChatPart::kSystem:
        absl::StrAppend(&text, system);
        break;
      case ChatPart::kTrimmedSystemAndContent:
        absl::StrAppend(&text, Trim(absl::StrCat(system, message.content)));
        break;
    }
    return absl::OkStatus();
  }

  absl::Status WriteSpecial(absl::string_view name, bool or_text) {
    const std::optional<int32_t> id = tokenizer_.FindSpecial(name);
    const auto begin = static_cast<uint32_t>(chat_.text.size());
    absl::StrAppend(&chat_.text, name);
    // A token that matches any text would let contents forge a turn.
    if (id.has_value() && tokenizer_.IsSpecial(*id)) {
      special_.push_back(
          {*id, begin, static_cast<uint32_t>(chat_.text.size())});
      return absl::OkStatus();
    }
    if (or_text) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(
        "chat format '", format_.name, "' needs the special token \"", name,
        "\", which this tokenizer does not have"));
  }

  const Tokenizer& tokenizer_;
  const ChatFormat& format_;
  EncodedChat chat_;
  std::vector<TokenSpan> special_;
};

}  // namespace

std::vector<absl::string_view> ChatFormatNames() {
  std::vector<absl::string_view> names;
  for (const ChatFormat& format : ChatFormats()) names.push_back(format.name);
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<EncodedChat> EncodeChat(const Tokenizer& tokenizer,
                                       absl::string_view format,
                                       absl::Span<const ChatMessage> messages,
                                       bool add_generation_prompt) {
  const auto& formats = ChatFormats();
  const auto found = std::find_if(
      formats.begin(), formats.end(),
      [&](const ChatFormat& known) { return known.name == format; });
  if (found == formats.end()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "chat format: must be one of ", absl::StrJoin(ChatFormatNames(), ", "),
        ", got \"", Excerpt(format), "\""));
  }
  if (messages.empty()) {
    return absl::InvalidArgumentError("messages: must not be empty");
  }
  size_t bytes = 0;
  for (size_t i = 0; i < messages.size(); ++i) {
    QK_RETURN_IF_ERROR(CheckMessage(messages[i], i));
    bytes += messages[i].content.size();
  }
  if (bytes > size_t{1} << 30) {
    return absl::InvalidArgumentError(
        absl::StrCat("messages: ", bytes, " bytes, limit ", size_t{1} << 30));
  }
  QK_ASSIGN_OR_RETURN(const LaidOutChat chat, LayOut(*found, messages));
  ChatWriter writer(tokenizer, *found);
  QK_RETURN_IF_ERROR(writer.Write(found->begin, {}, ""));
  for (size_t i = 0; i < chat.messages.size(); ++i) {
    const ChatMessage& message = chat.messages[i];
    if (chat.turns[i]->if_not_empty && message.content.empty()) continue;
    std::string system;
    if (i == 0 && chat.system.has_value()) {
      system = absl::StrCat(found->system_in_user->before, *chat.system,
                            found->system_in_user->after);
    }
    QK_RETURN_IF_ERROR(writer.Write(chat.turns[i]->pieces, message, system));
  }
  QK_RETURN_IF_ERROR(writer.Write(
      add_generation_prompt ? found->generation : found->no_generation, {},
      ""));
  return writer.Finish();
}

}  // namespace qk
