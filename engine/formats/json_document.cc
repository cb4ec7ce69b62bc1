// Parsing, and the checks that simdjson leaves to its caller.
#include <simdjson.h>

#include <array>
#include <string>
#include <utility>

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
    if (!is_object && !is_array) return absl::OkStatus();
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
                        int max_depth, simdjson::error_code error) {
  std::string reason;
  if (error == simdjson::MEMALLOC) {
    return absl::ResourceExhaustedError(
        absl::StrCat(label, ": out of memory for ", bytes.size(), " bytes"));
  }
  if (error == simdjson::DEPTH_ERROR) {
    reason = absl::StrCat("nested deeper than ", max_depth, " levels");
  } else if (const auto at = FindInvalidUtf8(bytes)) {
    reason = absl::StrCat("invalid UTF-8 at byte ", *at);
  } else if (const auto at = FindJsonSyntaxError(bytes)) {
    reason = absl::StrCat("not valid JSON at byte ", *at);
  } else if (error == simdjson::STRING_ERROR) {
    reason = "not valid JSON: a string holds a lone surrogate";
  } else {
    reason = "not valid JSON: a number is out of range";
  }
  return absl::InvalidArgumentError(absl::StrCat(label, ": ", reason));
}

}  // namespace

JsonDocument::JsonDocument(std::unique_ptr<JsonValue::Shared> shared)
    : shared_(std::move(shared)),
      root_(JsonValue::Access::Wrap(shared_.get(), shared_->document.root())) {}

JsonDocument::JsonDocument(JsonDocument&&) noexcept = default;
JsonDocument& JsonDocument::operator=(JsonDocument&&) noexcept = default;
JsonDocument::~JsonDocument() = default;

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
  simdjson::dom::parser parser;
  element root;
  const auto error =
      parser.parse_into_document(shared->document, bytes.data(), bytes.size())
          .get(root);
  if (error != simdjson::SUCCESS) {
    return ParseError(label, bytes, limits.max_depth, error);
  }
  const Checker checker = {label, limits.max_depth};
  QK_RETURN_IF_ERROR(checker.Check(root, 1));
  JsonDocument document(std::move(shared));
  if (document.root().type() != limits.root) {
    return JsonValue::Access::WrongType(document.root(), TypeName(limits.root));
  }
  return document;
}

}  // namespace qk
