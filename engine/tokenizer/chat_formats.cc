#include "engine/tokenizer/chat_formats.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/check.h"
#include "engine/formats/excerpt.h"
#include "engine/formats/json_syntax.h"
#include "engine/tokenizer/unicode.h"

namespace qk {
namespace {

constexpr size_t kMaxRoleBytes = 32;

enum class Part { kSpecial, kText, kRole, kContent, kTrimmedContent };

struct Piece {
  Part part;
  absl::string_view text;  // of kSpecial and kText
};

struct ChatFormat {
  absl::string_view name;
  std::vector<Piece> begin;       // before the first message
  std::vector<Piece> message;     // each message
  std::vector<Piece> generation;  // the generation prompt
};

const std::vector<ChatFormat>& ChatFormats() {
  static const auto* const formats = new std::vector<ChatFormat>{
      {.name = "chatml",
       .begin = {},
       .message = {{Part::kSpecial, "<|im_start|>"},
                   {Part::kRole, ""},
                   {Part::kText, "\n"},
                   {Part::kContent, ""},
                   {Part::kSpecial, "<|im_end|>"},
                   {Part::kText, "\n"}},
       .generation = {{Part::kSpecial, "<|im_start|>"},
                      {Part::kText, "assistant\n"}}},
      {.name = "llama3",
       .begin = {{Part::kSpecial, "<|begin_of_text|>"}},
       .message = {{Part::kSpecial, "<|start_header_id|>"},
                   {Part::kRole, ""},
                   {Part::kSpecial, "<|end_header_id|>"},
                   {Part::kText, "\n\n"},
                   {Part::kTrimmedContent, ""},
                   {Part::kSpecial, "<|eot_id|>"}},
       .generation = {{Part::kSpecial, "<|start_header_id|>"},
                      {Part::kText, "assistant"},
                      {Part::kSpecial, "<|end_header_id|>"},
                      {Part::kText, "\n\n"}}},
  };
  return *formats;
}

// What Python's str.strip() takes away, as templates do: \s and the separators
// U+001C to U+001F.
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

class ChatWriter {
 public:
  ChatWriter(const Tokenizer& tokenizer, absl::string_view format)
      : tokenizer_(tokenizer), format_(format) {}

  absl::Status Write(const std::vector<Piece>& pieces,
                     const ChatMessage& message) {
    for (const Piece& piece : pieces) {
      switch (piece.part) {
        case Part::kSpecial:
          QK_RETURN_IF_ERROR(WriteSpecial(piece.text));
          break;
        case Part::kText:
          absl::StrAppend(&chat_.text, piece.text);
          break;
        case Part::kRole:
          absl::StrAppend(&chat_.text, message.role);
          break;
        case Part::kContent:
          absl::StrAppend(&chat_.text, message.content);
          break;
        case Part::kTrimmedContent:
          absl::StrAppend(&chat_.text, Trim(message.content));
          break;
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<EncodedChat> Finish() {
    QK_RETURN_IF_ERROR(EncodePending());
    return std::move(chat_);
  }

 private:
  // Text between two special tokens is encoded as one, so that words form as
  // they would in the written conversation.
  absl::Status EncodePending() {
    const absl::string_view text = chat_.text;
    EncodeOptions options;
    options.add_special_tokens = false;
    options.parse_special = false;
    QK_ASSIGN_OR_RETURN(const auto tokens,
                        tokenizer_.Encode(text.substr(encoded_), options));
    const auto shift = static_cast<uint32_t>(encoded_);
    for (const TokenSpan& token : tokens) {
      chat_.tokens.push_back(
          {token.id, token.begin + shift, token.end + shift});
    }
    encoded_ = text.size();
    return absl::OkStatus();
  }

  absl::Status WriteSpecial(absl::string_view name) {
    const std::optional<int32_t> id = tokenizer_.FindSpecial(name);
    // A token that is found in any text would let contents forge a turn.
    if (!id.has_value() || !tokenizer_.IsSpecial(*id)) {
      return absl::FailedPreconditionError(
          absl::StrCat("chat format '", format_, "' needs the special token \"",
                       name, "\", which this tokenizer does not have"));
    }
    QK_RETURN_IF_ERROR(EncodePending());
    absl::StrAppend(&chat_.text, name);
    chat_.tokens.push_back({*id, static_cast<uint32_t>(encoded_),
                            static_cast<uint32_t>(chat_.text.size())});
    encoded_ = chat_.text.size();
    return absl::OkStatus();
  }

  const Tokenizer& tokenizer_;
  absl::string_view format_;
  EncodedChat chat_;
  size_t encoded_ = 0;  // bytes of chat_.text that have their tokens
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
  ChatWriter writer(tokenizer, found->name);
  QK_RETURN_IF_ERROR(writer.Write(found->begin, {}));
  for (const ChatMessage& message : messages) {
    QK_RETURN_IF_ERROR(writer.Write(found->message, message));
  }
  if (add_generation_prompt) {
    QK_RETURN_IF_ERROR(writer.Write(found->generation, {}));
  }
  return writer.Finish();
}

}  // namespace qk
