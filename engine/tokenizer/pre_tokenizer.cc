#include "engine/tokenizer/pre_tokenizer.h"

#include "absl/strings/match.h"

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

// Walks through one text.
class Cutter {
 public:
  Cutter(const PreTokenizer& pre_tokenizer, bool is_first,
         absl::FunctionRef<void(const Word&)> visit)
      : pre_tokenizer_(pre_tokenizer), is_first_(is_first), visit_(visit) {}

  // Cuts by the splitters from number `level` on. The depth is the number of
  // steps in the file's pre_tokenizer, which is limited.
  void Cut(size_t level, absl::string_view piece, size_t begin) {
    if (level == pre_tokenizer_.splitters.size()) {
      return VisitPiece(piece, begin);
    }
    for (size_t at = 0; at < piece.size();) {
      const size_t end = pre_tokenizer_.splitters[level](piece, at);
      Cut(level + 1, piece.substr(at, end - at), begin + at);
      at = end;
    }
  }

 private:
  void VisitPiece(absl::string_view piece, size_t begin) {
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
    for (size_t at = 0; at < text.size();) {
      const size_t end = pre_tokenizer_.last == nullptr
                             ? text.size()
                             : pre_tokenizer_.last(text, at);
      visit_({text.substr(at, end - at), at, &spelled, begin});
      at = end;
    }
  }

  const PreTokenizer& pre_tokenizer_;
  bool is_first_;
  absl::FunctionRef<void(const Word&)> visit_;
};

}  // namespace

void ForEachWord(const PreTokenizer& pre_tokenizer, absl::string_view text,
                 bool is_first, absl::FunctionRef<void(const Word&)> visit) {
  Cutter(pre_tokenizer, is_first, visit).Cut(0, text, 0);
}

Splitter SplitterOfPattern(absl::string_view pattern) {
  if (pattern == kGpt2Pattern) return NextGpt2;
  if (pattern == kLlama3Pattern) return NextLlama3;
  if (pattern == kQwen2Pattern) return NextQwen2;
  return nullptr;
}

const GgufPreTokenizer* FindGgufPreTokenizer(absl::string_view name) {
  static const auto* const table = new std::vector<GgufPreTokenizer>{
      {.name = "gpt-2", .splitters = {NextGpt2}},
      {.name = "phi-2", .splitters = {NextGpt2}},
      // Used by GPT-NeoX's vocabularies.
      {.name = "mpt", .splitters = {NextGpt2}, .nfc = true},
      {.name = "olmo", .splitters = {NextGpt2}, .nfc = true},
      {.name = "smollm", .splitters = {NextDigit, NextGpt2}},
      {.name = "starcoder", .splitters = {NextDigit, NextGpt2}},
      {.name = "refact", .splitters = {NextDigit, NextGpt2}},
      {.name = "llama3",
       .splitters = {NextLlama3},
       .ignore_merges = true,
       .adds_bos = true},
      {.name = "llama-v3",
       .splitters = {NextLlama3},
       .ignore_merges = true,
       .adds_bos = true},
      {.name = "llama-bpe",
       .splitters = {NextLlama3},
       .ignore_merges = true,
       .adds_bos = true},
      {.name = "qwen2", .splitters = {NextQwen2}, .nfc = true},
  };
  for (const GgufPreTokenizer& known : *table) {
    if (known.name == name) return &known;
  }
  return nullptr;
}

}  // namespace qk
