#include "engine/formats/json.h"

#include <chrono>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/formats/excerpt.h"
#include "engine/formats/json_syntax.h"
#include "gmock/gmock.h"
#include "tests/engine/formats/testing.h"

namespace qk {
namespace {

using testing::ExpectError;
using testing::ExpectGoodMessage;

JsonDocument Parse(absl::string_view text) {
  auto document = JsonDocument::Parse("config", text, {});
  EXPECT_TRUE(document.ok()) << document.status();
  return *std::move(document);
}

std::string Nested(int depth) {
  std::string text;
  for (int i = 0; i < depth; ++i) text += i == 0 ? "{\"a\":" : "[";
  text += "1";
  for (int i = depth; i-- > 0;) text += i == 0 ? "}" : "]";
  return text;
}

struct BadText {
  const char* name;
  std::string text;
  const char* error;
};

class JsonBadTextTest : public ::testing::TestWithParam<BadText> {};

TEST_P(JsonBadTextTest, IsRefused) {
  JsonLimits limits;
  limits.max_bytes = 1000;
  limits.numbers = JsonNumbers::kStrict;
  const auto document = JsonDocument::Parse("config", GetParam().text, limits);
  ExpectError(document.status(), absl::StrCat("config: ", GetParam().error));
}

INSTANTIATE_TEST_SUITE_P(
    Texts, JsonBadTextTest,
    ::testing::ValuesIn(std::vector<BadText>{
        {"Empty", "", "empty"},
        {"Spaces", "  ", "not valid JSON at byte 2"},
        {"TooLarge", std::string(1001, ' '), "1001 bytes, limit 1000"},
        {"NoBrace", "hello", "not valid JSON at byte 0"},
        {"EndsInObject", R"({"a": 1)", "not valid JSON at byte 7"},
        {"EndsInString", R"({"a": "b)", "not valid JSON at byte 8"},
        {"EndsInEscape", R"({"a": "b\)", "not valid JSON at byte 9"},
        {"TrailingComma", R"({"a": 1,})", "not valid JSON at byte 8"},
        {"MissingComma", R"({"a": 1 "b": 2})", "not valid JSON at byte 8"},
        {"MissingColon", R"({"a" 1})", "not valid JSON at byte 5"},
        {"WrongBracket", R"({"a": [1}})", "not valid JSON at byte 8"},
        {"SecondValue", R"({"a": 1} {})", "not valid JSON at byte 9"},
        {"LeadingZero", R"({"a": 01})", "not valid JSON at byte 7"},
        {"BareMinus", R"({"a": -})", "not valid JSON at byte 7"},
        {"BareNan", R"({"a": NaN})", "not valid JSON at byte 6"},
        {"HugeNumber", R"({"a": 1e999})",
         "not valid JSON: a number is out of range"},
        {"HugeInteger", R"({"a": 99999999999999999999})",
         "not valid JSON: a number is out of range"},
        {"BadEscape", R"({"a": "\x"})", "not valid JSON at byte 8"},
        {"BadUnicodeEscape", R"({"a": "\u12g4"})", "not valid JSON at byte 11"},
        {"HighSurrogateAlone", R"({"a": "\ud800"})",
         "not valid JSON: a string holds a lone surrogate"},
        {"LowSurrogateAlone", R"({"a": "\udc00"})",
         "not valid JSON: a string holds a lone surrogate"},
        {"LowSurrogateKey", R"({"\uDC00": 1})",
         "not valid JSON: a string holds a lone surrogate"},
        {"ControlInString", "{\"a\": \"\n\"}", "not valid JSON at byte 7"},
        {"NotUtf8", "{\"a\": \"\xff\"}", "invalid UTF-8 at byte 7"},
        {"OverlongUtf8", "{\"a\": \"\xc0\x80\"}", "invalid UTF-8 at byte 7"},
        {"Utf8Surrogate", "{\"a\": \"\xed\xa0\x80\"}",
         "invalid UTF-8 at byte 7"},
        {"CutUtf8", "{\"a\": \"\xe2\x82\"}", "invalid UTF-8 at byte 7"},
        {"Nul", std::string("{\"a\": 1}\0", 9), "not valid JSON at byte 8"},
        {"ByteOrderMark", "\xef\xbb\xbf{}", "not valid JSON at byte 0"},
        {"TooDeep", Nested(33), "nested deeper than 32 levels"},
        {"WrongRootArray", "[1]", "must be an object, got an array"},
        {"WrongRootNumber", "1.5", "must be an object, got 1.5"},
        {"WrongRootNull", "null", "must be an object, got null"},
        {"DuplicateKey", R"({"a": 1, "b": 2, "a": 3})", "duplicate key \"a\""},
        {"DuplicateKeyInside", R"({"x": [{"a": 1, "a": 3}]})",
         "duplicate key \"a\""},
        {"DuplicateByEscape", R"({"a": 1, "\u0061": 3})",
         "duplicate key \"a\""},
    }),
    [](const auto& param) { return param.param.name; });

TEST(JsonTest, DuplicateAmongManyKeys) {
  std::string text = "{";
  for (int i = 0; i < 40; ++i) absl::StrAppend(&text, "\"k", i, "\": 0,");
  ExpectError(JsonDocument::Parse("config", text + "\"k20\": 0}", {}).status(),
              "config: duplicate key \"k20\"");
  EXPECT_EQ(Parse(text + "\"k40\": 0}").root().size(), 41);
}

// What Python 3.11's json.dumps writes, and what its json.loads gives.
TEST(JsonTest, ReadsNumbersAsPythonWritesThem) {
  const JsonDocument document =
      Parse(R"({"length": 1000000000000000019884624838656,)"
            R"( "low": -9223372036854775809, "over": 18446744073709551616,)"
            R"( "nan": NaN, "list": [Infinity, -Infinity, 1e999, -1e999, 5],)"
            R"( "text": "NaN, \"Infinity", "fits": 18446744073709551615})");
  const JsonValue root = document.root();
  EXPECT_EQ(*root.GetDouble("length"), 1e30);
  EXPECT_EQ(*root.GetDouble("low"), -9223372036854775808.0);
  EXPECT_EQ(*root.GetString("text"), "NaN, \"Infinity");
  EXPECT_EQ(*root.Get("fits")->AsUint64(), UINT64_MAX);
  for (const char* key : {"length", "low", "over", "nan"}) {
    EXPECT_TRUE(root.Get(key)->is_number()) << key;
    EXPECT_FALSE(root.Get(key)->AsString().ok()) << key;
  }
  ExpectError(root.GetInt64("length").status(),
              "config: length: must be at most 9223372036854775807, got "
              "1000000000000000019884624838656");
  ExpectError(root.GetInt64("low").status(),
              "config: low: must be at least -9223372036854775808, got "
              "-9223372036854775809");
  ExpectError(root.Get("over")->AsUint64().status(),
              "config: over: must be at most 18446744073709551615, got "
              "18446744073709551616");
  ExpectError(root.Get("low")->AsUint64().status(),
              "config: low: must be at least 0, got -9223372036854775809");
  ExpectError(root.GetDouble("nan").status(),
              "config: nan: must be a finite number, got NaN");
  ExpectError(root.GetInt64("nan").status(),
              "config: nan: must be an integer, got NaN");
  std::vector<std::string> described;
  ASSERT_TRUE(root.GetArray("list")
                  ->ForEachElement([&](JsonValue element) {
                    described.push_back(element.Describe());
                    EXPECT_EQ(element.AsDouble().ok(), described.size() == 5);
                    return absl::OkStatus();
                  })
                  .ok());
  EXPECT_THAT(described, ::testing::ElementsAre("Infinity", "-Infinity",
                                                "1e999", "-1e999", "5"));
}

TEST(JsonTest, ReadsIntegersOfAnyLength) {
  const std::string digits(5000, '9');
  const JsonDocument document = Parse(absl::StrCat("{\"a\": ", digits, "}"));
  ExpectError(
      document.root().GetInt64("a").status(),
      absl::StrCat("config: a: must be at most 9223372036854775807, got ",
                   std::string(61, '9'), "..."));
  ExpectError(document.root().GetDouble("a").status(),
              absl::StrCat("config: a: must be a finite number, got ",
                           std::string(61, '9'), "..."));
}

TEST(JsonTest, PythonsNumbersDoNotHideErrors) {
  const auto parse = [](absl::string_view text) {
    return JsonDocument::Parse("config", text, {}).status();
  };
  ExpectError(parse(R"({"a": NaN, "b": nan})"),
              "config: not valid JSON at byte 16");
  ExpectError(parse(R"({"a": +Infinity})"), "config: not valid JSON at byte 6");
  ExpectError(parse(R"({"a": NaN, "a": 1})"), "config: duplicate key \"a\"");
  ExpectError(parse(R"({"a": NaN, "b": "\ud800"})"),
              "config: not valid JSON: a string holds a lone surrogate");
  ExpectError(parse("{\"a\": NaN, \"b\": \"\xff\"}"),
              "config: invalid UTF-8 at byte 17");
  // A text that looks like what numbers become on the way.
  EXPECT_FALSE(parse(R"({"a": NaN, "b": "\u0001number 7"})").ok());
  EXPECT_EQ(*Parse(R"({"b": "\u0001number 7"})").root().GetString("b"),
            "\x01number 7");
}

TEST(JsonTest, VeryDeepTextIsAnError) {
  for (const int depth : {2000, 1000000}) {
    ExpectError(JsonDocument::Parse("config", Nested(depth), {}).status(),
                "nested deeper than 32 levels");
    EXPECT_EQ(FindJsonSyntaxError(Nested(depth)), std::nullopt);
  }
  EXPECT_TRUE(JsonDocument::Parse("config", Nested(32), {}).ok());
}

TEST(JsonTest, ReadsEveryType) {
  const JsonDocument document =
      Parse(R"({"i": -5, "u": 18446744073709551615, "d": 1e-5, "b": true,)"
            R"( "s": "caf\u00e9 \ud83d\ude00 \u0000", "n": null,)"
            R"( "a": [1, "x"], "o": {"k": 2.0}})");
  const JsonValue root = document.root();
  EXPECT_EQ(*root.GetInt64("i"), -5);
  EXPECT_EQ(*root.Find("u")->AsUint64(), UINT64_MAX);
  EXPECT_EQ(*root.GetDouble("d"), 1e-5);
  EXPECT_EQ(*root.GetDouble("i"), -5.0);
  EXPECT_TRUE(*root.GetBool("b"));
  EXPECT_EQ(*root.GetString("s"),
            absl::string_view("caf\xc3\xa9 \xf0\x9f\x98\x80 \0", 12));
  EXPECT_FALSE(root.Find("n").has_value());
  EXPECT_FALSE(root.Find("missing").has_value());
  EXPECT_EQ(root.GetArray("a")->size(), 2);
  EXPECT_EQ(root.size(), 8);
  EXPECT_EQ(*root.GetObject("o")->GetDouble("k"), 2.0);
  EXPECT_EQ(*root.GetInt64Or("n", 7), 7);
  EXPECT_EQ(*root.GetInt64InRangeOr("missing", 0, 9, 8), 8);
  EXPECT_EQ(*root.GetStringOr("missing", "x"), "x");
  EXPECT_EQ(*root.GetDoubleOr("missing", 0.5), 0.5);
  EXPECT_FALSE(*root.GetBoolOr("missing", false));
}

TEST(JsonTest, IteratesInFileOrder) {
  const JsonDocument document = Parse(R"({"z": 1, "a": [3, 2], "m": 4})");
  std::string seen;
  EXPECT_TRUE(document.root()
                  .ForEachMember([&](absl::string_view key, JsonValue) {
                    absl::StrAppend(&seen, key);
                    return absl::OkStatus();
                  })
                  .ok());
  EXPECT_EQ(seen, "zam");
  std::vector<int64_t> numbers;
  EXPECT_TRUE(document.root()
                  .Find("a")
                  ->ForEachElement([&](JsonValue element) {
                    numbers.push_back(*element.AsInt64());
                    return absl::OkStatus();
                  })
                  .ok());
  EXPECT_EQ(numbers, (std::vector<int64_t>{3, 2}));
}

TEST(JsonTest, HandlesOutliveAMove) {
  JsonDocument document = Parse(R"({"a": 5})");
  const JsonValue root = document.root();
  const JsonDocument moved = std::move(document);
  EXPECT_EQ(*root.GetInt64("a"), 5);
  EXPECT_EQ(*moved.root().GetInt64("a"), 5);
}

TEST(JsonTest, ErrorsNameFieldGotAndExpected) {
  const JsonDocument document = Parse(
      R"({"heads": 1.5, "one": 1.0, "big": 9223372036854775808, "n": null,)"
      R"( "text": "a\"b", "rope": {"theta": "x"}, "list": [1, [2, {}]],)"
      R"( "ids": {"\u0120the": -1}, "": 3, "neg": -1, "t": true})");
  const JsonValue root = document.root();
  ExpectError(root.GetInt64("heads").status(),
              "config: heads: must be an integer, got 1.5");
  ExpectError(root.GetInt64("one").status(), "must be an integer, got 1");
  ExpectError(root.GetInt64("big").status(),
              "config: big: must be at most 9223372036854775807, got "
              "9223372036854775808");
  ExpectError(root.Find("neg")->AsUint64().status(),
              "config: neg: must be at least 0, got -1");
  ExpectError(root.GetInt64("n").status(), "config: n: missing");
  ExpectError(root.GetInt64("layers").status(), "config: layers: missing");
  ExpectError(root.GetInt64("text").status(),
              R"(config: text: must be an integer, got "a\"b")");
  ExpectError(root.GetDouble("text").status(), "must be a finite number");
  ExpectError(root.GetString("t").status(), "must be a string, got true");
  ExpectError(root.GetBool("neg").status(), "must be true or false, got -1");
  ExpectError(root.GetArray("rope").status(),
              "config: rope: must be an array, got an object");
  ExpectError(root.GetObject("list").status(),
              "config: list: must be an object, got an array");
  ExpectError(root.Find("rope")->GetDouble("theta").status(),
              "config: rope.theta: must be a finite number, got \"x\"");
  ExpectError(root.Find("rope")->Get("factor").status(),
              "config: rope.factor: missing");
  ExpectError(root.Find("text")->Get("x").status(), "must be an object");
  ExpectError(root.GetInt64InRange("neg", 1, 65536).status(),
              "config: neg: must be in [1, 65536], got -1");
  ExpectError(root.Find("list")->Error("too odd"), "config: list: too odd");
  ExpectError(root.Error("too odd"), "config: too odd");
  ExpectError(root.Find("list")->GetString("x").status(), "config: list: ");
  ExpectError(
      root.Find("ids")->ForEachMember([](absl::string_view, JsonValue id) {
        return id.Error("must be at least 0");
      }),
      "config: ids[\"\\304\\240the\"]: must be at least 0");
  EXPECT_EQ(root.Find("")->Path(), "[\"\"]");
}

TEST(JsonTest, PathOfNestedElements) {
  const JsonDocument document = Parse(R"({"merges": [["a"], ["b", 7]]})");
  std::string path;
  EXPECT_FALSE(document.root()
                   .Find("merges")
                   ->ForEachElement([&](JsonValue pair) {
                     return pair.ForEachElement([&](JsonValue part) {
                       path = part.Path();
                       return part.AsString().status();
                     });
                   })
                   .ok());
  EXPECT_EQ(path, "merges[1][1]");
}

TEST(JsonTest, LongValuesAreCut) {
  const JsonDocument document =
      Parse(absl::StrCat(R"({")", std::string(200, 'k'), R"(": ")",
                         std::string(1000, '\x7f'), R"("})"));
  absl::Status status;
  EXPECT_TRUE(document.root()
                  .ForEachMember([&](absl::string_view, JsonValue value) {
                    status = value.AsInt64().status();
                    return absl::OkStatus();
                  })
                  .ok());
  ExpectGoodMessage(status);
  EXPECT_LE(status.message().size(), 200u);
}

// A tokenizer.json of the largest size that we serve; it takes about 0.2 s.
TEST(JsonTest, LargeVocabulary) {
  std::string text = R"({"vocab": {)";
  for (int i = 0; i < 250000; ++i) {
    absl::StrAppend(&text, i == 0 ? "" : ",", "\"token ", i, "\":", i);
  }
  absl::StrAppend(&text, R"(}, "merges": [)");
  for (int i = 0; i < 2000000; ++i) {
    absl::StrAppend(&text, i == 0 ? "" : ",", "\"to ken", i % 1000, "\"");
  }
  absl::StrAppend(&text, "]}");
  const auto start = std::chrono::steady_clock::now();
  const JsonDocument document = Parse(text);
  int64_t sum = 0;
  EXPECT_TRUE(document.root()
                  .Find("vocab")
                  ->ForEachMember([&](absl::string_view, JsonValue id) {
                    sum += *id.AsInt64();
                    return absl::OkStatus();
                  })
                  .ok());
  int64_t bytes = 0;
  EXPECT_TRUE(document.root()
                  .Find("merges")
                  ->ForEachElement([&](JsonValue merge) {
                    bytes += merge.AsString()->size();
                    return absl::OkStatus();
                  })
                  .ok());
  const std::chrono::duration<double> spent =
      std::chrono::steady_clock::now() - start;
  EXPECT_EQ(sum, int64_t{250000} * 249999 / 2);
  EXPECT_GT(bytes, 2000000 * 7);
  RecordProperty("seconds", absl::StrCat(spent.count()));
}

// simdjson decides; the scanner must agree wherever it is used.
TEST(JsonSyntaxTest, AgreesWithSimdjsonOnMutations) {
  const std::string good =
      R"({"a": [1, -2.5e+3, "x\n\u00e9", true, false, null, {}, []], "b": 0})";
  EXPECT_EQ(FindJsonSyntaxError(good), std::nullopt);
  const std::string replacements = "{}[]\",:\\0129-+.eEutfn ax";
  for (size_t i = 0; i < good.size(); ++i) {
    for (const char c : replacements) {
      std::string text = good;
      text[i] = c;
      const auto document = JsonDocument::Parse("x", text, {});
      const bool syntax_error = FindJsonSyntaxError(text).has_value();
      if (document.ok()) {
        EXPECT_FALSE(syntax_error) << text;
      } else if (!syntax_error) {
        EXPECT_THAT(std::string(document.status().message()),
                    ::testing::AnyOf(::testing::HasSubstr("duplicate"),
                                     ::testing::HasSubstr("range"),
                                     ::testing::HasSubstr("surrogate")))
            << text;
      }
    }
  }
}

TEST(ExcerptTest, EscapesAndCuts) {
  EXPECT_EQ(Excerpt("abc"), "abc");
  EXPECT_EQ(Excerpt(absl::string_view("a\0\n'\xff", 5)), "a\\000\\n\\'\\377");
  EXPECT_EQ(Excerpt(std::string(64, 'a')), std::string(64, 'a'));
  EXPECT_EQ(Excerpt(std::string(65, 'a')), std::string(61, 'a') + "...");
  EXPECT_LE(Excerpt(std::string(1000, '\n')).size(), 64u);
  EXPECT_EQ(FileNameOf("/a/b/model.gguf"), "model.gguf");
  EXPECT_EQ(FileNameOf("/a/b/"), "b");
  EXPECT_EQ(FileNameOf("x"), "x");
}

TEST(JsonHideTest, AMemberSeemsMissing) {
  auto document = JsonDocument::Parse(
      "config", R"({"a": 1, "b": {"c": [1], "d": 2}, "e.f": 3, "n": null})",
      {});
  ASSERT_TRUE(document.ok());
  const JsonValue root = document->root();
  const JsonValue inner = root.Get("b").value();
  EXPECT_TRUE(document->Hide("a").ok());
  EXPECT_TRUE(document->Hide("b.c").ok());
  EXPECT_TRUE(document->Hide("e.f").ok());
  EXPECT_FALSE(root.Find("a").has_value());
  EXPECT_FALSE(root.Find("e.f").has_value());
  EXPECT_FALSE(inner.Find("c").has_value());
  EXPECT_EQ(inner.GetInt64("d").value(), 2);
  EXPECT_EQ(root.size(), 2);
  EXPECT_EQ(inner.size(), 1);
  std::vector<std::string> keys;
  EXPECT_TRUE(root.ForEachMember([&](absl::string_view key, JsonValue) {
                    keys.emplace_back(key);
                    return absl::OkStatus();
                  })
                  .ok());
  EXPECT_THAT(keys, ::testing::ElementsAre("b", "n"));
  for (const char* path : {"a", "x", "b.x", "b.d.x", "e", "", ".", "b.", "n"}) {
    testing::ExpectError(document->Hide(path), ": missing");
  }
}

}  // namespace
}  // namespace qk
