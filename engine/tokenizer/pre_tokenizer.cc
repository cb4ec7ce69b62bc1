#include "engine/tokenizer/pre_tokenizer.h"

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"

namespace qk {
namespace {

// Cuts `piece`, which starts at `begin` of a text, by the splitters from number
// `level` on. The depth is the number of steps in the file's pre_tokenizer,
// which is limited.
absl::Status Cut(
    const std::vector<Splitter>& splitters, size_t level,
    absl::string_view piece, size_t begin, PatternScratch* scratch,
    absl::FunctionRef<absl::Status(absl::string_view, size_t)> visit) {
  if (level == splitters.size()) return visit(piece, begin);
  absl::Status status;
  const absl::Status split = splitters[level].ForEachPiece(
      piece, scratch, [&](size_t first, size_t last) {
        if (!status.ok()) return;
        status = Cut(splitters, level + 1, piece.substr(first, last - first),
                     begin + first, scratch, visit);
      });
  return status.ok() ? split : status;
}

}  // namespace

absl::Status ForEachWord(const PreTokenizer& pre_tokenizer,
                         absl::string_view text,
                         absl::FunctionRef<bool(size_t at)> begins_prompt,
                         PatternScratch* scratch,
                         absl::FunctionRef<void(const Word&)> visit) {
  const PieceSpelling& spelling = pre_tokenizer.spelling;
  const auto visit_piece = [&](absl::string_view piece, size_t begin) {
    EditedText spelled(piece);
    if (spelling.space != " ") spelled.Replace(" ", spelling.space);
    using Prefix = PieceSpelling::Prefix;
    const bool wants_prefix =
        spelling.prefix == Prefix::kAlways ||
        (spelling.prefix == Prefix::kFirst && begins_prompt(begin));
    if (wants_prefix && !absl::StartsWith(spelled.text(), spelling.space)) {
      spelled.Prepend(spelling.space);
    }
    if (spelled.text().empty()) return absl::OkStatus();
    return Cut(pre_tokenizer.after, 0, spelled.text(), 0, scratch,
               [&](absl::string_view word, size_t first) {
                 visit({word, first, &spelled, begin});
                 return absl::OkStatus();
               });
  };
  return Cut(pre_tokenizer.splitters, 0, text, 0, scratch, visit_piece);
}

bool PreTokenizer::runs_pattern() const {
  const auto runs = [](const Splitter& s) { return s.runs_pattern(); };
  return absl::c_any_of(splitters, runs) || absl::c_any_of(after, runs);
}

}  // namespace qk
