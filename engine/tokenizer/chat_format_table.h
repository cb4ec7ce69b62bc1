// The layouts that EncodeChat knows.
#ifndef QKSCOPE_ENGINE_TOKENIZER_CHAT_FORMAT_TABLE_H_
#define QKSCOPE_ENGINE_TOKENIZER_CHAT_FORMAT_TABLE_H_

#include <optional>
#include <vector>

#include "absl/strings/string_view.h"

namespace qk {

enum class ChatPart {
  kSpecial,         // the special token `text`
  kSpecialOrText,   // as kSpecial, or `text` as plain text where it is not a
                    // special token
  kText,            // `text`
  kRole,            // the message's role
  kContent,         // its content
  kTrimmedContent,  // without outer whitespace
  kSystem,          // the system message before it, as SystemInUser lays it out
  kTrimmedSystemAndContent,  // both the system message and the content, without
                             // outer whitespace
};

struct ChatPiece {
  ChatPart part;
  absl::string_view text = "";
};

struct ChatTurn {
  absl::string_view role;  // "" for any
  std::vector<ChatPiece> pieces;
  bool if_not_empty = false;  // left out where the content is empty
};

// A system message may come first; it stands inside the first user message.
struct SystemInUser {
  absl::string_view before;
  absl::string_view after;
};

struct ChatFormat {
  absl::string_view name;
  std::vector<ChatPiece> begin = {};  // before the first message
  std::vector<ChatTurn> turns;
  std::vector<ChatPiece> generation = {};  // the generation prompt
  std::vector<ChatPiece> no_generation =
      {};  // used instead where no generation prompt is asked for
  // The user and the assistant take turns, the user first.
  bool alternates = false;
  std::optional<SystemInUser> system_in_user = std::nullopt;
};

const std::vector<ChatFormat>& ChatFormats();

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_CHAT_FORMAT_TABLE_H_
