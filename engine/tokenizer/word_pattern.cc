#include "engine/tokenizer/word_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/formats/excerpt.h"
#include "engine/tokenizer/pattern_translation.h"
#include "engine/tokenizer/unicode.h"

namespace qk {
namespace {

constexpr size_t kMaxPatternBytes = 16 << 10;
// The part of the text that a match is first looked for in. Most words are
// shorter; where the end of the part would matter, a longer one is taken.
constexpr size_t kFirstWindow = 256;
// Bytes that may be looked at for each byte of the text, and in any case. A
// match counts as some bytes more than it has.
constexpr uint64_t kWorkPerByte = 128;
constexpr uint64_t kWorkFloor = 16 << 20;
constexpr uint64_t kWorkOfMatch = 32;
// Backtracking steps of one attempt: per byte that it may look at, and in any
// case. And the memory for them.
constexpr uint64_t kStepsPerByte = 16;
constexpr uint64_t kStepsFloor = 4096;
constexpr uint32_t kHeapLimitKiB = 128 << 10;
constexpr size_t kJitStackStart = 32 << 10;
constexpr size_t kJitStackLimit = size_t{64} << 20;

absl::Status TooMuchWork() {
  return absl::InvalidArgumentError(
      "the tokenizer's word pattern takes too much work on this text");
}

std::string LiteralPattern(absl::string_view text) {
  std::string pattern;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = Utf8At(text, at);
    absl::StrAppend(&pattern, "\\x{", absl::Hex(static_cast<uint32_t>(c.code)),
                    "}");
    at += c.size;
  }
  return pattern;
}

}  // namespace

struct WordPattern::Code {
  ~Code() { pcre2_code_free(code); }

  // Whether a match may begin in the text. Most of the pieces that one pattern
  // leaves to the next have none.
  bool MayMatch(absl::string_view text) const {
    return first_bytes == nullptr ||
           absl::c_any_of(text, [this](unsigned char byte) {
             return (first_bytes[byte / 8] >> byte % 8 & 1) != 0;
           });
  }

  pcre2_code* code = nullptr;
  bool jit = false;
  // A bit for each byte that a match may begin with; nullptr: not known.
  const uint8_t* first_bytes = nullptr;
};

struct PatternScratch::Memory {
  Memory()
      // Where the whole match lies; nobody asks for its groups.
      : data(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)) {
    if (context != nullptr) pcre2_set_heap_limit(context, kHeapLimitKiB);
  }
  ~Memory() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    if (stack != nullptr) pcre2_jit_stack_free(stack);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  pcre2_match_data* const data;
  pcre2_match_context* const context;
  pcre2_jit_stack* stack = nullptr;  // made when a text needs a large one
};

PatternScratch::PatternScratch() = default;
PatternScratch::~PatternScratch() = default;

// One pass over one text.
class WordPattern::Search {
 public:
  Search(const Code& code, absl::string_view text,
         PatternScratch::Memory* memory)
      : code_(code),
        text_(text),
        memory_(*memory),
        budget_(kWorkFloor + kWorkPerByte * text.size()) {}

  // The first match that begins at `from` or later; nullopt: none.
  absl::StatusOr<std::optional<std::pair<size_t, size_t>>> Next(size_t from) {
    while (from <= text_.size()) {
      const size_t window = WindowEnd(from, kFirstWindow);
      QK_ASSIGN_OR_RETURN(const int found, Match(from, window, 0));
      if (found > 0) return Found();
      if (found == PCRE2_ERROR_NOMATCH) {
        // Nothing begins in the window, and nothing that begins there needs
        // more text to be sure.
        if (window == text_.size()) break;
        from = window;
        continue;
      }
      // Something begins here that the window is too short for.
      const size_t begin = Vector()[0];
      QK_ASSIGN_OR_RETURN(const int whole, MatchAt(begin));
      if (whole > 0) return Found();
      from = begin + Utf8At(text_, begin).size;
    }
    return std::nullopt;
  }

 private:
  // Tries at `begin` alone, with longer and longer windows.
  absl::StatusOr<int> MatchAt(size_t begin) {
    for (size_t size = 2 * kFirstWindow;; size *= 4) {
      const size_t window = WindowEnd(begin, size);
      QK_ASSIGN_OR_RETURN(const int found,
                          Match(begin, window, PCRE2_ANCHORED));
      if (found != PCRE2_ERROR_PARTIAL) return found;
    }
  }

  absl::StatusOr<int> Match(size_t begin, size_t end, uint32_t options) {
    const uint64_t work = end - begin + 1;
    if (work > budget_) return TooMuchWork();
    pcre2_set_match_limit(memory_.context,
                          static_cast<uint32_t>(std::min<uint64_t>(
                              kStepsFloor + kStepsPerByte * work, UINT32_MAX)));
    if (end < text_.size()) options |= PCRE2_PARTIAL_HARD;
    int found = Run(begin, end, options);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT && memory_.stack == nullptr) {
      memory_.stack =
          pcre2_jit_stack_create(kJitStackStart, kJitStackLimit, nullptr);
      if (memory_.stack != nullptr) {
        pcre2_jit_stack_assign(memory_.context, nullptr, memory_.stack);
        found = Run(begin, end, options);
      }
    }
    if (found >= 0) {
      budget_ -= std::min(budget_, Vector()[1] - begin + kWorkOfMatch);
      return 1;
    }
    budget_ -= work;
    if (found == PCRE2_ERROR_NOMATCH || found == PCRE2_ERROR_PARTIAL) {
      return found;
    }
    return TooMuchWork();  // every other code is of a limit
  }

  int Run(size_t begin, size_t end, uint32_t options) {
    // What is compiled just in time is not anchored.
    const bool jit = code_.jit && (options & PCRE2_ANCHORED) == 0;
    return (jit ? pcre2_jit_match : pcre2_match)(
        code_.code, reinterpret_cast<PCRE2_SPTR>(text_.data()), end, begin,
        options | (jit ? 0 : PCRE2_NO_UTF_CHECK), memory_.data,
        memory_.context);
  }

  // The end of at least `bytes` bytes from `begin` on, between characters.
  size_t WindowEnd(size_t begin, size_t bytes) const {
    if (text_.size() - begin <= bytes) return text_.size();
    size_t end = begin + bytes;
    while (end < text_.size() && (text_[end] & 0xC0) == 0x80) ++end;
    return end;
  }

  const size_t* Vector() const {
    return pcre2_get_ovector_pointer(memory_.data);
  }
  std::optional<std::pair<size_t, size_t>> Found() const {
    return std::make_pair(Vector()[0], Vector()[1]);
  }

  const Code& code_;
  absl::string_view text_;
  PatternScratch::Memory& memory_;
  uint64_t budget_;
};

WordPattern::WordPattern(std::unique_ptr<Code> code) : code_(std::move(code)) {}
WordPattern::~WordPattern() = default;

absl::StatusOr<std::shared_ptr<const WordPattern>> WordPattern::Create(
    absl::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the pattern has ", pattern.size(), " bytes, limit ",
                     kMaxPatternBytes));
  }
  QK_ASSIGN_OR_RETURN(const std::string translated, TranslatePattern(pattern));
  return Compile(translated);
}

absl::StatusOr<std::shared_ptr<const WordPattern>> WordPattern::CreateLiteral(
    absl::string_view text) {
  return Compile(LiteralPattern(text));
}

absl::StatusOr<std::shared_ptr<const WordPattern>> WordPattern::CreateAnyOf(
    const std::vector<std::string>& texts) {
  std::string pattern;
  for (const std::string& text : texts) {
    absl::StrAppend(&pattern, pattern.empty() ? "" : "|", LiteralPattern(text));
  }
  return Compile(pattern);
}

absl::StatusOr<std::shared_ptr<const WordPattern>> WordPattern::Compile(
    const std::string& pattern) {
  auto code = std::make_unique<Code>();
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  if (context == nullptr) {
    return absl::ResourceExhaustedError("out of memory for a pattern");
  }
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  int error = 0;
  size_t offset = 0;
  code->code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
      &offset, context);
  pcre2_compile_context_free(context);
  if (code->code == nullptr) {
    char message[256] = "";
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(message),
                            sizeof(message));
    return absl::InvalidArgumentError(
        absl::StrCat("the pattern does not compile: ", message));
  }
  // Where memory may not become executable, PCRE2 interprets the pattern.
  code->jit = pcre2_jit_compile(
                  code->code, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD) == 0;
  pcre2_pattern_info(code->code, PCRE2_INFO_FIRSTBITMAP, &code->first_bytes);
  return std::shared_ptr<const WordPattern>(new WordPattern(std::move(code)));
}

absl::Status WordPattern::ForEachMatch(
    absl::string_view text, PatternScratch* scratch,
    absl::FunctionRef<void(size_t begin, size_t end)> visit) const {
  if (!code_->MayMatch(text)) return absl::OkStatus();
  auto& memory = scratch->memory_;
  if (memory == nullptr) memory = std::make_unique<PatternScratch::Memory>();
  if (memory->data == nullptr || memory->context == nullptr) {
    return absl::ResourceExhaustedError("out of memory for a word pattern");
  }
  Search search(*code_, text, memory.get());
  std::optional<size_t> last_end;
  for (size_t from = 0; from <= text.size();) {
    QK_ASSIGN_OR_RETURN(const auto match, search.Next(from));
    if (!match.has_value()) break;
    const auto [begin, end] = *match;
    if (begin < end || begin != last_end) visit(begin, end);
    last_end = end;
    from = end;
    if (begin == end) {
      if (end == text.size()) break;
      from += Utf8At(text, end).size;
    }
  }
  return absl::OkStatus();
}

}  // namespace qk
