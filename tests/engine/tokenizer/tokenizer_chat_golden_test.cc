// Compares conversations in every chat format with what `transformers` makes of
// the models' templates; tests/goldens/tokenizer/make_chat_goldens.py made the
// goldens.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/formats/json.h"
#include "engine/tokenizer/chat_formats.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/tokenizer/tokenizer_testing.h"

namespace qk {
namespace {

using ::testing::ElementsAreArray;

std::vector<ChatMessage> Messages(const JsonValue& list) {
  std::vector<ChatMessage> messages;
  const auto read = [&](JsonValue message) {
    std::vector<std::string> parts;
    EXPECT_TRUE(message
                    .ForEachElement([&](JsonValue part) {
                      parts.emplace_back(part.AsString().value());
                      return absl::OkStatus();
                    })
                    .ok());
    messages.push_back({parts.at(0), parts.at(1)});
    return absl::OkStatus();
  };
  EXPECT_TRUE(list.ForEachElement(read).ok());
  return messages;
}

// Returns whether the format refuses a conversation of which the template would
// leave out a message, or everything.
bool IsRefusedHereOnly(const std::string& format,
                       const std::vector<ChatMessage>& messages) {
  for (const ChatMessage& message : messages) {
    if (format == "phi3" && message.role == "tool") return true;
  }
  return format == "llama2" && messages.size() == 3 &&
         messages[2].role == "system";
}

class ChatGoldens {
 public:
  void Check(const JsonValue& value) {
    const std::string format(value.GetString("format").value());
    const auto messages = Messages(value.GetArray("messages").value());
    const auto chat = EncodeChat(TokenizerOf(value), format, messages,
                                 value.GetBool("generation").value());
    if (value.Find("error").has_value() ||
        IsRefusedHereOnly(format, messages)) {
      testing::ExpectError(chat.status(), "messages[");
      ++refused_;
      return;
    }
    ASSERT_TRUE(chat.ok()) << chat.status();
    EXPECT_EQ(chat->text, value.GetString("text").value());
    std::vector<int32_t> ids;
    const auto read = [&](JsonValue id) {
      ids.push_back(static_cast<int32_t>(id.AsInt64().value()));
      return absl::OkStatus();
    };
    EXPECT_TRUE(value.GetArray("ids").value().ForEachElement(read).ok());
    EXPECT_THAT(testing::Ids(chat->tokens), ElementsAreArray(ids));
    ++equal_;
  }

  int refused() const { return refused_; }
  int equal() const { return equal_; }

 private:
  const Tokenizer& TokenizerOf(const JsonValue& value) {
    const std::string family(value.GetString("tokenizer").value());
    auto& tokenizer = tokenizers_[family];
    if (tokenizer == nullptr) tokenizer = testing::LoadGolden(family);
    return *tokenizer;
  }

  std::map<std::string, std::unique_ptr<Tokenizer>> tokenizers_;
  int refused_ = 0;
  int equal_ = 0;
};

TEST(ChatGoldenTest, EqualsTheTemplates) {
  const std::string json =
      testing::ReadFile(testing::TokenizerPath("chats.json"));
  const auto document = JsonDocument::Parse("chats", json, {});
  ASSERT_TRUE(document.ok()) << document.status();
  ChatGoldens goldens;
  const auto check = [&](JsonValue value) {
    SCOPED_TRACE(std::string(value.GetString("format").value()) + " " +
                 std::string(value.GetString("tokenizer").value()) + " " +
                 ::testing::PrintToString(
                     value.Find("text").has_value()
                         ? std::string(value.GetString("text").value())
                         : std::string("error")));
    goldens.Check(value);
    return absl::OkStatus();
  };
  EXPECT_TRUE(
      document->root().GetArray("cases").value().ForEachElement(check).ok());
  EXPECT_GE(goldens.refused(), 50);
  EXPECT_GE(goldens.equal(), 200);
}

}  // namespace
}  // namespace qk
