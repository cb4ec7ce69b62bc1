#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "engine/base/check.h"
#include "engine/base/utf8.h"
#include "engine/tokenizer/chat_formats.h"
#include "server/common/model_name.h"
#include "server/common/text.h"
#include "server/convert/convert.h"
#include "server/convert/convert_fields.h"

namespace qk {
namespace {

absl::Status CheckText(absl::string_view field, absl::string_view text,
                       const Limits& limits) {
  if (static_cast<int64_t>(text.size()) > limits.max_text_bytes) {
    return BadField(field, absl::StrFormat("got %d bytes, limit %d",
                                           text.size(), limits.max_text_bytes));
  }
  if (const auto bad = FindInvalidUtf8(text); bad.has_value()) {
    return BadField(field, absl::StrFormat("invalid UTF-8 at byte %d", *bad));
  }
  return absl::OkStatus();
}

absl::Status NeedsTokenizer(absl::string_view field, const ModelView& model) {
  const absl::Status status = TakesNoText(model);
  return absl::FailedPreconditionError(
      absl::StrCat(field, ": ", status.message(), "; send token_ids"));
}

// EncodeChat's errors name fields of the chat, or its format.
absl::Status ChatError(absl::string_view field, const absl::Status& status) {
  const absl::string_view message = status.message();
  if (absl::StartsWith(message, "messages")) {
    return PrefixField(field, status, ".");
  }
  return PrefixField(
      absl::StrCat(field, ".format"),
      WithMessage(status, absl::StripPrefix(message, "chat format: ")));
}

absl::Status CheckVocabulary(absl::string_view field,
                             const std::vector<TokenSpan>& tokens,
                             const ModelView& model) {
  for (const TokenSpan& token : tokens) {
    if (token.id >= 0 && token.id < model.config->vocab_size) continue;
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s: token %d, '%s', is outside the model's vocabulary [0, %d): the "
        "tokenizer knows more tokens than the model has embeddings",
        field, token.id, Echo(model.tokenizer->Piece(token.id)),
        model.config->vocab_size));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TokenSpan>> ConvertText(
    const pb::Input& input, absl::string_view path, const ModelView& model,
    const Limits& limits, std::optional<bool> add_special) {
  const std::string field = absl::StrCat(path, ".text");
  QK_RETURN_IF_ERROR(CheckText(field, input.text(), limits));
  if (model.tokenizer == nullptr) return NeedsTokenizer(field, model);
  EncodeOptions options;
  options.add_special_tokens = add_special;
  if (input.has_add_special_tokens()) {
    options.add_special_tokens = input.add_special_tokens();
  }
  options.parse_special = input.parse_special();
  auto tokens = model.tokenizer->Encode(input.text(), options);
  if (!tokens.ok()) return PrefixField(field, tokens.status());
  QK_RETURN_IF_ERROR(CheckVocabulary(field, *tokens, model));
  return tokens;
}

absl::StatusOr<EncodedChat> ConvertChat(const pb::Input& input,
                                        absl::string_view path,
                                        const ModelView& model,
                                        const Limits& limits) {
  const std::string field = absl::StrCat(path, ".chat");
  // The chat format decides where special tokens stand.
  if (input.has_add_special_tokens() || input.has_parse_special()) {
    return BadField(
        absl::StrCat(path, input.has_parse_special() ? ".parse_special"
                                                     : ".add_special_tokens"),
        "must not be set with chat");
  }
  const pb::Chat& chat = input.chat();
  QK_RETURN_IF_ERROR(CheckCount(absl::StrCat(field, ".messages"),
                                chat.messages_size(), limits.max_list_entries));
  if (model.tokenizer == nullptr) return NeedsTokenizer(field, model);
  std::vector<ChatMessage> messages;
  int64_t bytes = 0;
  for (int i = 0; i < chat.messages_size(); ++i) {
    const pb::ChatMessage& message = chat.messages(i);
    QK_RETURN_IF_ERROR(
        CheckText(absl::StrFormat("%s.messages[%d].content", field, i),
                  message.content(), limits));
    bytes += static_cast<int64_t>(message.content().size());
    messages.push_back({message.role(), message.content()});
  }
  if (bytes > limits.max_text_bytes) {
    return BadField(absl::StrCat(field, ".messages"),
                    absl::StrFormat("got %d bytes in all, limit %d", bytes,
                                    limits.max_text_bytes));
  }
  const bool prompt =
      !chat.has_add_generation_prompt() || chat.add_generation_prompt();
  auto encoded = EncodeChat(*model.tokenizer, chat.format(), messages, prompt);
  if (!encoded.ok()) return ChatError(field, encoded.status());
  QK_RETURN_IF_ERROR(CheckVocabulary(field, encoded->tokens, model));
  return encoded;
}

}  // namespace

absl::Status TakesNoText(const ModelView& model) {
  return absl::FailedPreconditionError(
      absl::StrCat("model '", model.name, "' takes no text (",
                   StripPaths(model.text_problem), ")"));
}

absl::StatusOr<std::vector<int32_t>> CheckTokenIds(
    const google::protobuf::RepeatedField<int32_t>& ids,
    absl::string_view field, int vocab_size) {
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocab_size) continue;
    return absl::OutOfRangeError(absl::StrFormat(
        "%s[%d]: %d is outside [0, %d)", field, i, ids[i], vocab_size));
  }
  return std::vector<int32_t>(ids.begin(), ids.end());
}

absl::StatusOr<std::vector<TokenSpan>> ConvertInput(
    const pb::Input& input, absl::string_view field, const ModelView& model,
    const Limits& limits, std::optional<bool> add_special) {
  switch (input.source_case()) {
    case pb::Input::kText:
      return ConvertText(input, field, model, limits, add_special);
    case pb::Input::kTokenIds: {
      QK_ASSIGN_OR_RETURN(const auto ids,
                          CheckTokenIds(input.token_ids().ids(),
                                        absl::StrCat(field, ".token_ids.ids"),
                                        model.config->vocab_size));
      std::vector<TokenSpan> tokens;
      tokens.reserve(ids.size());
      for (int32_t id : ids) tokens.push_back({id, 0, 0});
      return tokens;
    }
    case pb::Input::kChat: {
      QK_ASSIGN_OR_RETURN(EncodedChat chat,
                          ConvertChat(input, field, model, limits));
      return std::move(chat.tokens);
    }
    case pb::Input::SOURCE_NOT_SET:
      break;
  }
  return BadField(field, "exactly one of text, token_ids and chat must be set");
}

absl::StatusOr<ModelView> FindModel(const std::string& name,
                                    const ConvertContext& context) {
  QK_RETURN_IF_ERROR(CheckModelName("model", name));
  return context.find_model(name);
}

}  // namespace qk
