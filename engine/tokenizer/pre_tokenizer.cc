#include "engine/tokenizer/pre_tokenizer.h"

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"

namespace qk {
namespace {

// Walks through one text.
class Cutter {
 public:
  Cutter(const PreTokenizer& pre_tokenizer, bool is_first,
         absl::FunctionRef<void(const Word&)> visit)
      : pre_tokenizer_(pre_tokenizer), is_first_(is_first), visit_(visit) {}

  // Cuts by the splitters from number `level` on. The depth is the number of
  // steps in the file's pre_tokenizer, which is limited.
  absl::Status Cut(size_t level, absl::string_view piece, size_t begin) {
    if (level == pre_tokenizer_.splitters.size()) {
      return VisitPiece(piece, begin);
    }
    absl::Status status;
    const absl::Status split = pre_tokenizer_.splitters[level].ForEachPiece(
        piece, [&](size_t first, size_t last) {
          if (!status.ok()) return;
          status =
              Cut(level + 1, piece.substr(first, last - first), begin + first);
        });
    return status.ok() ? split : status;
  }

 private:
  absl::Status VisitPiece(absl::string_view piece, size_t begin) {
    const PieceSpelling& spelling = pre_tokenizer_.spelling;
    EditedText spelled(piece);
    if (spelling.space != " ") spelled.Replace(" ", spelling.space);
    using Prefix = PieceSpelling::Prefix;
    const bool wants_prefix =
        spelling.prefix == Prefix::kAlways ||
        (spelling.prefix == Prefix::kFirst && is_first_ && begin == 0);
    if (wants_prefix && !absl::StartsWith(spelled.text(), spelling.space)) {
      spelled.Prepend(spelling.space);
    }
    const absl::string_view text = spelled.text();
    const auto visit = [&](size_t first, size_t last) {
      visit_({text.substr(first, last - first), first, &spelled, begin});
    };
    if (pre_tokenizer_.last.has_value()) {
      return pre_tokenizer_.last->ForEachPiece(text, visit);
    }
    if (!text.empty()) visit(0, text.size());
    return absl::OkStatus();
  }

  const PreTokenizer& pre_tokenizer_;
  bool is_first_;
  absl::FunctionRef<void(const Word&)> visit_;
};

}  // namespace

absl::Status ForEachWord(const PreTokenizer& pre_tokenizer,
                         absl::string_view text, bool is_first,
                         absl::FunctionRef<void(const Word&)> visit) {
  return Cutter(pre_tokenizer, is_first, visit).Cut(0, text, 0);
}

bool PreTokenizer::runs_pattern() const {
  return (last.has_value() && last->runs_pattern()) ||
         absl::c_any_of(splitters, [](const Splitter& splitter) {
           return splitter.runs_pattern();
         });
}

}  // namespace qk
