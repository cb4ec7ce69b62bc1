#include "engine/tokenizer/chat_format_table.h"

namespace qk {
namespace {

using Part = ChatPart;

// Qwen, SmolLM and others.
ChatFormat Chatml() {
  return {
      .name = "chatml",
      .turns = {{"",
                 {{Part::kSpecial, "<|im_start|>"},
                  {Part::kRole},
                  {Part::kText, "\n"},
                  {Part::kContent},
                  {Part::kSpecial, "<|im_end|>"},
                  {Part::kText, "\n"}}}},
      .generation = {{Part::kSpecial, "<|im_start|>"},
                     {Part::kText, "assistant\n"}},
  };
}

ChatFormat Llama3() {
  return {
      .name = "llama3",
      .begin = {{Part::kSpecial, "<|begin_of_text|>"}},
      .turns = {{"",
                 {{Part::kSpecial, "<|start_header_id|>"},
                  {Part::kRole},
                  {Part::kSpecial, "<|end_header_id|>"},
                  {Part::kText, "\n\n"},
                  {Part::kTrimmedContent},
                  {Part::kSpecial, "<|eot_id|>"}}}},
      .generation = {{Part::kSpecial, "<|start_header_id|>"},
                     {Part::kText, "assistant"},
                     {Part::kSpecial, "<|end_header_id|>"},
                     {Part::kText, "\n\n"}},
  };
}

ChatFormat Llama2() {
  return {.name = "llama2",
          .turns = {{"user",
                     {{Part::kSpecial, "<s>"},
                      {Part::kSpecialOrText, "[INST]"},
                      {Part::kText, " "},
                      {Part::kTrimmedSystemAndContent},
                      {Part::kText, " "},
                      {Part::kSpecialOrText, "[/INST]"}}},
                    {"assistant",
                     {{Part::kText, " "},
                      {Part::kTrimmedContent},
                      {Part::kText, " "},
                      {Part::kSpecial, "</s>"}}}},
          .alternates = true,
          .system_in_user = SystemInUser{"<<SYS>>\n", "\n<</SYS>>\n\n"}};
}

// Mistral 7B Instruct v0.2.
ChatFormat Mistral() {
  return {
      .name = "mistral",
      .begin = {{Part::kSpecial, "<s>"}},
      .turns = {{"user",
                 {{Part::kSpecialOrText, "[INST]"},
                  {Part::kText, " "},
                  {Part::kContent},
                  {Part::kText, " "},
                  {Part::kSpecialOrText, "[/INST]"}}},
                {"assistant", {{Part::kContent}, {Part::kSpecial, "</s>"}}}},
      .alternates = true};
}

ChatFormat GemmaWithoutSystem() {
  return {.name = "gemma",
          .begin = {{Part::kSpecial, "<bos>"}},
          .turns = {{"user",
                     {{Part::kSpecial, "<start_of_turn>"},
                      {Part::kText, "user\n"},
                      {Part::kSystem},
                      {Part::kTrimmedContent},
                      {Part::kSpecial, "<end_of_turn>"},
                      {Part::kText, "\n"}}},
                    {"assistant",
                     {{Part::kSpecial, "<start_of_turn>"},
                      {Part::kText, "model\n"},
                      {Part::kTrimmedContent},
                      {Part::kSpecial, "<end_of_turn>"},
                      {Part::kText, "\n"}}}},
          .generation = {{Part::kSpecial, "<start_of_turn>"},
                         {Part::kText, "model\n"}},
          .alternates = true};
}

ChatFormat Gemma3() {
  ChatFormat format = GemmaWithoutSystem();
  format.name = "gemma3";
  format.system_in_user = SystemInUser{"", "\n\n"};
  return format;
}

ChatTurn Phi3Turn(absl::string_view role, absl::string_view mark) {
  return {role,
          {{Part::kSpecial, mark},
           {Part::kText, "\n"},
           {Part::kContent},
           {Part::kSpecial, "<|end|>"},
           {Part::kText, "\n"}},
          /*if_not_empty=*/role == "system"};
}

// Phi-3 as of July 2024, Phi-3.5.
ChatFormat Phi3() {
  return {
      .name = "phi3",
      .turns = {Phi3Turn("system", "<|system|>"), Phi3Turn("user", "<|user|>"),
                Phi3Turn("assistant", "<|assistant|>")},
      .generation = {{Part::kSpecial, "<|assistant|>"}, {Part::kText, "\n"}},
      .no_generation = {{Part::kSpecial, "<|endoftext|>"}}};
}

}  // namespace

const std::vector<ChatFormat>& ChatFormats() {
  static const auto* const formats = new std::vector<ChatFormat>{
      Chatml(), GemmaWithoutSystem(), Gemma3(), Llama2(), Llama3(), Mistral(),
      Phi3()};
  return *formats;
}

}  // namespace qk
