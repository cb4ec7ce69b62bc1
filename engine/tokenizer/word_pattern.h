// A word pattern from a tokenizer's file, run by PCRE2. Patterns are written
// for Oniguruma, the engine of `tokenizers`: what the two engines read in
// different ways is translated or refused.
#ifndef QKSCOPE_ENGINE_TOKENIZER_WORD_PATTERN_H_
#define QKSCOPE_ENGINE_TOKENIZER_WORD_PATTERN_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace qk {

// The memory that searches work in: kept from text to text, since making it
// takes longer than searching a word. Any pattern may use it, also while the
// matches of another are visited. Not thread-safe.
class PatternScratch {
 public:
  PatternScratch();
  ~PatternScratch();
  PatternScratch(const PatternScratch&) = delete;
  PatternScratch& operator=(const PatternScratch&) = delete;

 private:
  friend class WordPattern;
  struct Memory;
  std::unique_ptr<Memory> memory_;
};

// Thread-safe.
class WordPattern {
 public:
  // Errors are messages without a place, for the caller to wrap: the pattern
  // does not compile, is too long, or uses a construct that is not supported.
  static absl::StatusOr<std::shared_ptr<const WordPattern>> Create(
      absl::string_view pattern);
  // The pattern that matches `text` (not empty) and nothing else.
  static absl::StatusOr<std::shared_ptr<const WordPattern>> CreateLiteral(
      absl::string_view text);
  // The pattern that matches any of the texts (not empty), the first one that
  // fits.
  static absl::StatusOr<std::shared_ptr<const WordPattern>> CreateAnyOf(
      const std::vector<std::string>& texts);
  ~WordPattern();
  WordPattern(const WordPattern&) = delete;
  WordPattern& operator=(const WordPattern&) = delete;

  // Calls `visit` for each match in `text` (valid UTF-8), from left to right.
  // An empty match right after another match is passed over.
  // INVALID_ARGUMENT: the pattern looks at the text too often. The work is
  // counted, not timed, and its limit grows linearly with the text.
  absl::Status ForEachMatch(
      absl::string_view text, PatternScratch* scratch,
      absl::FunctionRef<void(size_t begin, size_t end)> visit) const;

 private:
  struct Code;
  class Search;

  explicit WordPattern(std::unique_ptr<Code> code);
  static absl::StatusOr<std::shared_ptr<const WordPattern>> Compile(
      const std::string& pattern);

  std::unique_ptr<Code> code_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_WORD_PATTERN_H_
