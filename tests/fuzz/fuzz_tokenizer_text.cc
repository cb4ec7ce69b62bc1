// Encodes text with trained tokenizers of each kind: offsets are in order,
// ordinary text gives no special token, and decoding returns the text if
// nothing was lost.
#include <cstdint>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/chat_formats.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"

namespace {

enum class Decoded {
  kOther,
  kSame,           // as the text
  kSameButSpaces,  // with spaces for U+2581, if no special token is looked for
};

struct Subject {
  std::unique_ptr<qk::Tokenizer> tokenizer;
  Decoded decoded;
  const char* chat_format;
};

Subject Load(const std::string& family, Decoded decoded, const char* format) {
  std::ifstream in(QK_SOURCE_DIR "/tests/goldens/tokenizer/" + family +
                   ".json");
  const std::string json((std::istreambuf_iterator<char>(in)), {});
  auto tokenizer = qk::TokenizerFromJson(json, {});
  QK_CHECK(tokenizer.ok());
  return {*std::move(tokenizer), decoded, format};
}

const std::vector<Subject>& Subjects() {
  static const auto* const subjects = [] {
    auto* made = new std::vector<Subject>;
    made->push_back(Load("gpt2", Decoded::kSame, "chatml"));
    made->push_back(Load("smollm", Decoded::kSame, "chatml"));
    made->push_back(Load("llama3", Decoded::kSame, "llama3"));
    made->push_back(Load("qwen2", Decoded::kOther, "chatml"));
    made->push_back(Load("flags", Decoded::kOther, "chatml"));
    made->push_back(Load("digit_runs", Decoded::kOther, "chatml"));
    made->push_back(Load("unknown", Decoded::kOther, "chatml"));
    made->push_back(Load("llama2", Decoded::kSameButSpaces, "llama2"));
    made->push_back(Load("gemma", Decoded::kSameButSpaces, "gemma"));
    made->push_back(Load("mistral3", Decoded::kOther, "mistral"));
    made->push_back(Load("phi3", Decoded::kSameButSpaces, "phi3"));
    made->push_back(Load("metaspace", Decoded::kOther, "llama2"));
    made->push_back(Load("no_bytes", Decoded::kOther, "llama2"));
    // These split words by patterns of their files.
    made->push_back(Load("deepseek3", Decoded::kSame, "chatml"));
    made->push_back(Load("deepseek_coder", Decoded::kSame, "chatml"));
    made->push_back(Load("o200k", Decoded::kSame, "chatml"));
    made->push_back(Load("qwen35", Decoded::kOther, "chatml"));
    made->push_back(Load("lines", Decoded::kOther, "chatml"));
    made->push_back(Load("literal", Decoded::kOther, "chatml"));
    made->push_back(Load("nobody", Decoded::kOther, "chatml"));
    // These are Unigram.
    made->push_back(Load("t5", Decoded::kOther, "llama2"));
    made->push_back(Load("albert", Decoded::kOther, "llama2"));
    made->push_back(Load("graphemes", Decoded::kOther, "llama2"));
    made->push_back(Load("spm_first", Decoded::kOther, "llama2"));
    return made;
  }();
  return *subjects;
}

void CheckEncode(const Subject& subject, absl::string_view text,
                 bool parse_special) {
  const qk::Tokenizer& tokenizer = *subject.tokenizer;
  qk::EncodeOptions options;
  options.parse_special = parse_special;
  options.add_special_tokens = false;
  const auto tokens = tokenizer.Encode(text, options);
  if (!tokens.ok()) {
    qk::fuzz::CheckMessage(tokens.status());
    return;
  }
  std::vector<int32_t> ids;
  const auto unknown = tokenizer.FindSpecial("<unk>");
  for (const qk::TokenSpan& token : *tokens) {
    QK_CHECK(token.begin <= token.end && token.end <= text.size());
    QK_CHECK(parse_special || !tokenizer.IsSpecial(token.id) ||
             token.id == unknown);
    ids.push_back(token.id);
  }
  const auto decoded = tokenizer.Decode(ids, true);
  QK_CHECK(decoded.ok());
  QK_CHECK(subject.decoded != Decoded::kSame || *decoded == text);
  if (subject.decoded == Decoded::kSameButSpaces && !parse_special) {
    QK_CHECK(*decoded == absl::StrReplaceAll(text, {{"\u2581", " "}}));
  }
}

void CheckChat(const Subject& subject, absl::string_view text) {
  const std::vector<qk::ChatMessage> messages = {{"user", std::string(text)}};
  const auto chat =
      qk::EncodeChat(*subject.tokenizer, subject.chat_format, messages, true);
  if (!chat.ok()) return qk::fuzz::CheckMessage(chat.status());
  const auto empty = qk::EncodeChat(*subject.tokenizer, subject.chat_format,
                                    {{"user", ""}}, true);
  const auto count_special = [&](const std::vector<qk::TokenSpan>& tokens) {
    int count = 0;
    for (const qk::TokenSpan& token : tokens) {
      count += subject.tokenizer->IsSpecial(token.id) &&
               token.id != subject.tokenizer->FindSpecial("<unk>");
    }
    return count;
  };
  QK_CHECK(count_special(chat->tokens) == count_special(empty->tokens));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const Subject& subject = Subjects()[data[0] % Subjects().size()];
  const absl::string_view text(reinterpret_cast<const char*>(data) + 1,
                               size - 1);
  CheckEncode(subject, text, false);
  CheckEncode(subject, text, true);
  CheckChat(subject, text);
  return 0;
}
