#include "engine/tokenizer/splitter.h"

#include <optional>
#include <vector>

#include "engine/base/check.h"
#include "engine/tokenizer/splitters.h"
#include "engine/tokenizer/unicode.h"

namespace qk {
namespace {

constexpr absl::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+)"
    R"(|\s+(?!\S)|\s+)";
constexpr absl::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Turns a text's parts, which alternate between matches and what lies between
// them, into pieces.
class PieceMaker {
 public:
  PieceMaker(SplitBehavior behavior,
             absl::FunctionRef<void(size_t, size_t)> visit)
      : behavior_(behavior), visit_(visit) {}

  void Add(size_t begin, size_t end, bool is_match) {
    if (behavior_ == SplitBehavior::kRemoved) {
      if (!is_match) Visit(begin, end);
      return;
    }
    if (Joins(is_match)) {
      end_ = end;
    } else {
      Flush();
      begin_ = begin;
      end_ = end;
    }
    was_match_ = is_match;
  }
  void Flush() {
    Visit(begin_, end_);
    begin_ = end_;
  }

 private:
  // Whether the part belongs to the piece before it.
  bool Joins(bool is_match) const {
    if (!was_match_.has_value()) return false;
    switch (behavior_) {
      case SplitBehavior::kMergedWithPrevious:
        return is_match && !*was_match_;
      case SplitBehavior::kMergedWithNext:
        return !is_match && *was_match_;
      case SplitBehavior::kContiguous:
        return is_match == *was_match_;
      default:
        return false;
    }
  }
  void Visit(size_t begin, size_t end) {
    if (begin < end) visit_(begin, end);
  }

  const SplitBehavior behavior_;
  absl::FunctionRef<void(size_t, size_t)> visit_;
  size_t begin_ = 0;
  size_t end_ = 0;
  std::optional<bool> was_match_;
};

}  // namespace

absl::Status Splitter::ForEachPiece(
    absl::string_view text, PatternScratch* scratch,
    absl::FunctionRef<void(size_t begin, size_t end)> visit) const {
  if (scanner_ != nullptr) {
    for (size_t at = 0; at < text.size();) {
      const size_t end = scanner_(text, at);
      const bool drops =
          dropped_ != 0 && (CharClasses(Utf8At(text, at).code) & dropped_) != 0;
      if (!drops) visit(at, end);
      at = end;
    }
    return absl::OkStatus();
  }
  PieceMaker pieces(behavior_, visit);
  size_t done = 0;
  QK_RETURN_IF_ERROR(
      pattern_->ForEachMatch(text, scratch, [&](size_t begin, size_t end) {
        if (done < begin) pieces.Add(done, begin, invert_);
        pieces.Add(begin, end, !invert_);
        done = end;
      }));
  if (done < text.size()) pieces.Add(done, text.size(), invert_);
  pieces.Flush();
  return absl::OkStatus();
}

Splitter::Scanner ScannerOfPattern(absl::string_view pattern) {
  if (pattern == kGpt2Pattern) return NextGpt2;
  if (pattern == kLlama3Pattern) return NextLlama3;
  if (pattern == kQwen2Pattern) return NextQwen2;
  return nullptr;
}

absl::StatusOr<Splitter> SplitterOfPattern(absl::string_view pattern) {
  if (const auto scanner = ScannerOfPattern(pattern)) return Splitter(scanner);
  QK_ASSIGN_OR_RETURN(auto compiled, WordPattern::Create(pattern));
  return Splitter(std::move(compiled), SplitBehavior::kIsolated, false);
}

}  // namespace qk
