#include <google/protobuf/text_format.h>

#include <utility>

#include "client/files/file_io.h"
#include "client/qkctl/flags/arm_spec.h"
#include "client/qkctl/flags/flag_values.h"
#include "client/qkctl/flags/request_flags.h"
#include "client/qkctl/flags/text_parse.h"

namespace qk::client {

namespace v1 = qkscope::v1;

const char kArmHelp[] =
    "Arms, --arm [NAME=]SPEC (the table shows the first):\n"
    "  clean                       nothing changed\n"
    "  top_k:1                     the largest dim of each head set to its "
    "mean\n"
    "  bottom_k:1                  the smallest dim, as a control\n"
    "  top_k:1,replace=zero        with a key; the keys are listed below\n"
    "  threshold:5                 all entries above 5 x their head's mean\n"
    "  top_k:1,point=pre_rope      before RoPE instead of after\n"
    "  random_k:1,seed=7           a random dim other than the largest\n"
    "  explicit:0/12+3/40          HEAD/DIM pairs\n"
    "  top_k:1,tower=vision        in the layers of the vision tower\n"
    "  preset:rope_with_llm/llama  as in the paper's published code\n"
    "  big=top_k:4;top_k:1,tensors=v  an arm with a name and two rules\n"
    "Keys of a rule:\n";

// --------------------------------------------------------------------- input

void InputFlags::AddTo(FlagSet* flags) {
  flags->Section("Prompt (exactly one of the first three)");
  flags->Add("prompt", "TEXT", "the prompt; - reads standard input", &prompt_);
  flags->Add("prompt-file", "FILE", "the prompt, byte for byte", &prompt_file_);
  flags->Add("token-ids", "IDS", "token ids, such as 504,2240,282",
             &token_ids_);
  flags->Add("image", "FILE",
             "a PNG or JPEG file; may be repeated. Each image stands for one "
             "image token in the prompt (--parse-special)",
             &images_);
  flags->Add("min-pixels", "N",
             "least pixels of a resized image (default: the model's)",
             &min_pixels_);
  flags->Add("max-pixels", "N",
             "most pixels of a resized image; fewer pixels give fewer rows",
             &max_pixels_);
  flags->Add("chat", "FORMAT",
             "send the prompt as a user message in this chat format", &chat_);
  flags->Add("system", "TEXT", "with --chat: the system message", &system_);
  flags->Add("special-tokens", "true|false",
             "add BOS and the like (default: the tokenizer's own setting)",
             &special_tokens_);
  flags->Add("parse-special",
             "turn text that spells a special token into that token",
             &parse_special_);
}

bool InputFlags::any() const {
  return prompt_.has_value() || prompt_file_.has_value() ||
         token_ids_.has_value();
}

absl::Status InputFlags::AddImages(v1::Input* input) const {
  if (images_.empty() && (min_pixels_.has_value() || max_pixels_.has_value())) {
    return Usage("--min-pixels and --max-pixels need --image");
  }
  for (const std::string& file : images_) {
    absl::StatusOr<std::string> content = ReadFile(file, kMessagePart);
    if (!content.ok()) return content.status();
    v1::Image* image = input->add_images();
    image->set_encoded(*std::move(content));
    if (min_pixels_.has_value()) image->set_min_pixels(*min_pixels_);
    if (max_pixels_.has_value()) image->set_max_pixels(*max_pixels_);
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::Input> InputFlags::Build() const {
  absl::StatusOr<v1::Input> input = BuildPrompt();
  if (!input.ok()) return input;
  absl::Status status = AddImages(&*input);
  if (!status.ok()) return status;
  return input;
}

absl::StatusOr<v1::Input> InputFlags::BuildPrompt() const {
  const int sources =
      prompt_.has_value() + prompt_file_.has_value() + token_ids_.has_value();
  if (sources != 1) {
    return Usage("give exactly one of --prompt, --prompt-file, --token-ids");
  }
  v1::Input input;
  if (special_tokens_.has_value()) {
    absl::StatusOr<bool> add = ParseBool(*special_tokens_);
    if (!add.ok()) return FlagError("--special-tokens", add.status());
    input.set_add_special_tokens(*add);
  }
  if (parse_special_) input.set_parse_special(true);
  if (token_ids_.has_value()) {
    if (chat_.has_value()) {
      return Usage("--chat needs --prompt or --prompt-file, got --token-ids");
    }
    absl::Status status = SetList("--token-ids", token_ids_,
                                  input.mutable_token_ids()->mutable_ids());
    if (!status.ok()) return status;
    return input;
  }
  std::string text = prompt_.value_or("-");
  if (prompt_file_.has_value() || text == "-") {
    absl::StatusOr<std::string> content =
        ReadFile(prompt_file_.value_or("-"), kMessagePart);
    if (!content.ok()) return content.status();
    text = *std::move(content);
  }
  if (!chat_.has_value()) {
    if (system_.has_value()) return Usage("--system needs --chat");
    input.set_text(text);
    return input;
  }
  v1::Chat* chat = input.mutable_chat();
  chat->set_format(*chat_);
  if (system_.has_value()) {
    v1::ChatMessage* message = chat->add_messages();
    message->set_role("system");
    message->set_content(*system_);
  }
  v1::ChatMessage* message = chat->add_messages();
  message->set_role("user");
  message->set_content(text);
  return input;
}

// ---------------------------------------------------------------------- arms

void ArmFlags::AddTo(FlagSet* flags) {
  flags->Section("Arms");
  flags->Add("arm", "[NAME=]SPEC", "an arm; may be repeated (default: clean)",
             &arms_);
  flags->Add("arms", "FILE",
             "a text proto of qkscope.v1.AnalyzeRequest; its arms come first, "
             "and flags override its other fields",
             &file_);
}

absl::Status ArmFlags::Build(v1::AnalyzeRequest* request) const {
  if (file_.has_value()) {
    absl::StatusOr<std::string> text = ReadFile(*file_, kMessagePart);
    if (!text.ok()) return text.status();
    if (!google::protobuf::TextFormat::ParseFromString(*text, request)) {
      return Usage("--arms: ", *file_,
                   " is not a text proto of qkscope.v1.AnalyzeRequest");
    }
  }
  for (const std::string& text : arms_) {
    absl::StatusOr<v1::Arm> arm = ParseArm(text);
    if (!arm.ok()) return FlagError("--arm", arm.status());
    *request->add_arms() = *std::move(arm);
  }
  return absl::OkStatus();
}

}  // namespace qk::client
