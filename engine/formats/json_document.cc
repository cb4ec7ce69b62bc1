// Parsing, and the checks that simdjson leaves to its caller.
#include <simdjson.h>

#include <array>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/flat_hash.h"
#include "engine/base/utf8.h"
#include "engine/formats/excerpt.h"
#include "engine/formats/json.h"
#include "engine/formats/json_internal.h"
#include "engine/formats/json_syntax.h"

namespace qk {
namespace {

using simdjson::dom::element;

// The keys of one object, to notice a duplicate.
class KeySet {
 public:
  bool Insert(absl::string_view key) {
    if (large_.empty() && count_ < kSmall) {
      for (int i = 0; i < count_; ++i) {
        if (small_[i] == key) return false;
      }
      small_[count_++] = key;
      return true;
    }
    if (large_.empty()) {
      for (const absl::string_view earlier : small_) large_.insert(earlier);
    }
    return large_.insert(key).second;
  }

 private:
  static constexpr int kSmall = 16;

  int count_ = 0;
  std::array<absl::string_view, kSmall> small_;
  FlatHashSet<absl::string_view> large_;
};

// Checks what simdjson accepts and we do not: depth and duplicate keys.
struct Checker {
  absl::string_view label;
  int max_depth;
  // Counts the strings that begin with this, unless it is empty.
  absl::string_view mark;
  int64_t* marked;

  absl::Status Fail(absl::string_view message) const {
    return absl::InvalidArgumentError(absl::StrCat(label, ": ", message));
  }

  absl::Status CheckObject(simdjson::dom::object object, int depth) const {
    KeySet keys;
    for (const auto member : object) {
      if (!keys.Insert(View(member.key))) {
        return Fail(
            absl::StrCat("duplicate key \"", Excerpt(View(member.key)), "\""));
      }
      QK_RETURN_IF_ERROR(Check(member.value, depth + 1));
    }
    return absl::OkStatus();
  }

  // `depth` is the depth that `at` has if it is a container.
  absl::Status Check(element at, int depth) const {
    simdjson::dom::object object;
    simdjson::dom::array array;
    const bool is_object = at.get(object) == simdjson::SUCCESS;
    const bool is_array = at.get(array) == simdjson::SUCCESS;
    if (!is_object && !is_array) {
      std::string_view text;
      if (!mark.empty() && at.get(text) == simdjson::SUCCESS &&
          absl::StartsWith(View(text), mark)) {
        ++*marked;
      }
      return absl::OkStatus();
    }
    if (depth > max_depth) {
      return Fail(absl::StrCat("nested deeper than ", max_depth, " levels"));
    }
    if (is_object) return CheckObject(object, depth);
    for (const element child : array) {
      QK_RETURN_IF_ERROR(Check(child, depth + 1));
    }
    return absl::OkStatus();
  }
};

absl::Status ParseError(absl::string_view label, absl::string_view bytes,
                        int max_depth, JsonNumbers numbers,
                        simdjson::error_code error) {
  std::string reason;
  if (error == simdjson::MEMALLOC) {
    return absl::ResourceExhaustedError(
        absl::StrCat(label, ": out of memory for ", bytes.size(), " bytes"));
  }
  if (error == simdjson::DEPTH_ERROR) {
    reason = absl::StrCat("nested deeper than ", max_depth, " levels");
  } else if (const auto at = FindInvalidUtf8(bytes)) {
    reason = absl::StrCat("invalid UTF-8 at byte ", *at);
  } else if (const auto at = FindJsonSyntaxError(bytes, numbers)) {
    reason = absl::StrCat("not valid JSON at byte ", *at);
  } else if (error == simdjson::STRING_ERROR) {
    reason = "not valid JSON: a string holds a lone surrogate";
  } else {
    reason = "not valid JSON: a number is out of range";
  }
  return absl::InvalidArgumentError(absl::StrCat(label, ": ", reason));
}

simdjson::error_code ParseInto(absl::string_view bytes,
                               simdjson::dom::document* document) {
  simdjson::dom::parser parser;
  return parser.parse_into_document(*document, bytes.data(), bytes.size())
      .error();
}

// Control characters are escaped in JSON: no file has this mark by accident.
constexpr char kNumberMark[] = "\x01number ";
constexpr char kQuotedNumberMark[] = "\\u0001number ";

}  // namespace

JsonDocument::JsonDocument(std::unique_ptr<JsonValue::Shared> shared)
    : shared_(std::move(shared)),
      root_(JsonValue::Access::Wrap(shared_.get(), shared_->document.root())) {}

JsonDocument::JsonDocument(JsonDocument&&) noexcept = default;
JsonDocument& JsonDocument::operator=(JsonDocument&&) noexcept = default;
JsonDocument::~JsonDocument() = default;

absl::Status JsonDocument::Hide(absl::string_view path) {
  JsonValue at = root_;
  absl::string_view rest = path;
  while (true) {
    if (const auto found = at.Find(rest); found.has_value()) {
      shared_->hidden.push_back(found->element_);
      return absl::OkStatus();
    }
    const size_t dot = rest.find('.');
    const auto inner = dot == absl::string_view::npos
                           ? std::nullopt
                           : at.Find(rest.substr(0, dot));
    if (!inner.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat(shared_->label, ": ", Excerpt(path), ": missing"));
    }
    at = *inner;
    rest.remove_prefix(dot + 1);
  }
}

absl::StatusOr<JsonDocument> JsonDocument::Parse(absl::string_view label,
                                                 absl::string_view bytes,
                                                 const JsonLimits& limits) {
  const int64_t size = static_cast<int64_t>(bytes.size());
  if (size > limits.max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(label, ": ", size, " bytes, limit ", limits.max_bytes));
  }
  if (bytes.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(label, ": empty"));
  }
  auto shared = std::make_unique<JsonValue::Shared>();
  shared->label = std::string(label);
  auto error = ParseInto(bytes, &shared->document);
  std::string quoted;
  int64_t numbers = 0;
  if (limits.numbers == JsonNumbers::kPython && error != simdjson::SUCCESS &&
      !FindInvalidUtf8(bytes) &&
      !FindJsonSyntaxError(bytes, JsonNumbers::kPython)) {
    shared->number_mark = kNumberMark;
    quoted = QuotePythonNumbers(bytes, kQuotedNumberMark, &numbers);
    error = ParseInto(quoted, &shared->document);
  }
  if (error != simdjson::SUCCESS) {
    return ParseError(label, bytes, limits.max_depth, limits.numbers, error);
  }
  int64_t marked = 0;
  const Checker checker = {label, limits.max_depth, shared->number_mark,
                           &marked};
  QK_RETURN_IF_ERROR(checker.Check(shared->document.root(), 1));
  if (marked != numbers) {
    return absl::InvalidArgumentError(
        absl::StrCat(label, ": a string begins with the control character ",
                     "U+0001 and \"number \", which is not supported beside ",
                     "numbers that are out of range"));
  }
  JsonDocument document(std::move(shared));
  if (document.root().type() != limits.root) {
    return JsonValue::Access::WrongType(document.root(), TypeName(limits.root));
  }
  return document;
}

}  // namespace qk
