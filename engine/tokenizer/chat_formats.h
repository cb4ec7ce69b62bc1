// Chat formats as data: named layouts of a conversation. No template language
// ever runs, and the contents of messages cannot forge a turn: special tokens
// come from their ids, and all other text is encoded as ordinary text. Only
// where a format's marks are themselves plain text to the tokenizer ([INST] of
// Llama 2 and of Mistral before v0.3) can contents spell them; they can never
// spell BOS or EOS.
#ifndef QKSCOPE_ENGINE_TOKENIZER_CHAT_FORMATS_H_
#define QKSCOPE_ENGINE_TOKENIZER_CHAT_FORMATS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/tokenizer/tokenizer.h"

namespace qk {

struct ChatMessage {
  // 1 to 32 of a-z, A-Z, 0-9, '_', '-': system, user, assistant, tool, ...
  std::string role;
  std::string content;  // UTF-8
};

struct EncodedChat {
  std::string text;               // the conversation as the format writes it
  std::vector<TokenSpan> tokens;  // with offsets in `text`
};

// The names that EncodeChat accepts, sorted.
std::vector<absl::string_view> ChatFormatNames();

// Writes `messages`, which must not be empty, as `format` lays them out:
//
//   chatml   <|im_start|>{role}\n{content}<|im_end|>\n ...
//   gemma    <bos> and for each message <start_of_turn>{user or model}\n
//            {content without outer whitespace}<end_of_turn>\n
//   gemma3   the same; a system message and \n\n stand before the first content
//   llama2   <s>[INST] {content} [/INST] {answer} </s> for each pair, without
//            outer whitespace; a system message stands in the first content as
//            <<SYS>>\n{system}\n<</SYS>>\n\n
//   llama3   <|begin_of_text|> and for each message <|start_header_id|>{role}
//            <|end_header_id|>\n\n{content without outer whitespace}<|eot_id|>
//   mistral  <s> and [INST] {content} [/INST]{answer}</s> for each pair
//   phi3     <|{role}|>\n{content}<|end|>\n for each message
//
// and with `add_generation_prompt` the start of the assistant's turn; phi3 ends
// in <|endoftext|> without. In gemma, gemma3, llama2 and mistral the user and
// the assistant must take turns, the user first. Nothing
// is made up: where a model's own template puts in a system message that the
// caller did not give (SmolLM2, Qwen2, the dates of Llama 3.1), this does not.
//
// INVALID_ARGUMENT: unknown format, no messages, a bad role or one the format
// does not have there, contents that are not UTF-8. FAILED_PRECONDITION: the
// tokenizer lacks a special token of the format.
absl::StatusOr<EncodedChat> EncodeChat(const Tokenizer& tokenizer,
                                       absl::string_view format,
                                       absl::Span<const ChatMessage> messages,
                                       bool add_generation_prompt);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_CHAT_FORMATS_H_
