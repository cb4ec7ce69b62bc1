// Tests files of JSON lines: byte order marks, ids, and lines that are refused.
#include "client/qkctl/flags/jsonl.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/temp_folder.h"

namespace qk::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class JsonlTest : public ::testing::Test {
 protected:
  // Returns "#12" for an id that is a number and "12" for a string; an error's
  // message ends the list.
  std::vector<std::string> Ids(const std::string& content) {
    std::vector<std::string> ids;
    const absl::Status status = ReadJsonLines(
        folder_.Write("f.jsonl", content), [&](const JsonLine& line) {
          const absl::StatusOr<JsonId> id = IdOf(line);
          if (!id.ok()) return id.status();
          ids.push_back((id->is_number ? "#" : "") + id->text);
          return absl::OkStatus();
        });
    if (!status.ok()) ids.push_back(std::string(status.message()));
    return ids;
  }

  const testing::TempFolder folder_;
};

TEST_F(JsonlTest, AByteOrderMarkIsSkipped) {
  EXPECT_THAT(Ids("\xEF\xBB\xBF{\"id\": \"a\"}\r\n{\"id\": \"b\"}\r\n"),
              ElementsAre("a", "b"));
  EXPECT_THAT(Ids("\xEF\xBB\xBF\n{}"), ElementsAre("2"));
  EXPECT_THAT(Ids("\xEF\xBB\xBF"), ElementsAre());
  // It has no business anywhere else.
  EXPECT_THAT(Ids("{}\n\xEF\xBB\xBF{}"),
              ElementsAre("1", HasSubstr("f.jsonl:2: not a JSON object")));
}

TEST_F(JsonlTest, AnIdIsAStringOrAnInteger) {
  EXPECT_THAT(
      Ids("{\"id\": 7}\n{\"id\":-12}\n{\"id\"\t:\t0 }\n{\"id\": \"7\"}"),
      ElementsAre("#7", "#-12", "#0", "7"));
  // More digits than a double holds.
  EXPECT_THAT(Ids("{\"id\": 12345678901234567890}\n{\"id\":9007199254740993}"),
              ElementsAre("#12345678901234567890", "#9007199254740993"));
  // Only the object's own member counts.
  EXPECT_THAT(Ids("{\"x\": {\"id\": 1}, \"s\": \"\\\"id\\\": 2\", \"id\": 3, "
                  "\"y\": [{\"id\": 4}], \"id2\": 5}"),
              ElementsAre("#3"));
  EXPECT_THAT(Ids("{\"a\": \"id\", \"b\": 1, \"id\" : 6}"), ElementsAre("#6"));
  EXPECT_THAT(Ids("{\"a\": \"\\\\\", \"id\":8,\"b\":[1,2]}"),
              ElementsAre("#8"));
}

TEST_F(JsonlTest, OtherIdsAreRefused) {
  for (const char* id :
       {"1.5", "1e3", "true", "null", "[1]", "{\"id\": 1}", "\"\""}) {
    EXPECT_THAT(Ids(std::string("{\"id\": ") + id + "}"),
                ElementsAre(HasSubstr("f.jsonl:1: \"id\" must be a string that "
                                      "is not empty, or an integer")))
        << id;
  }
}

}  // namespace
}  // namespace qk::client
