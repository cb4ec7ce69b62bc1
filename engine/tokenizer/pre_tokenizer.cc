#include "engine/tokenizer/pre_tokenizer.h"

#include <string>

#include "absl/strings/str_cat.h"

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

// A piece after all splitters but the last.
void VisitPiece(const PreTokenizer& pre_tokenizer, absl::string_view piece,
                size_t begin, absl::FunctionRef<void(const Word&)> visit) {
  std::string prefixed;
  size_t added = 0;
  if (pre_tokenizer.add_prefix_space && piece[0] != ' ') {
    prefixed = absl::StrCat(" ", piece);
    piece = prefixed;
    added = 1;
  }
  for (size_t at = 0; at < piece.size();) {
    const size_t end = pre_tokenizer.last == nullptr
                           ? piece.size()
                           : pre_tokenizer.last(piece, at);
    const size_t added_here = at == 0 ? added : 0;
    visit({piece.substr(at, end - at), begin + at - (added - added_here),
           added_here});
    at = end;
  }
}

// `splitters` from number `level` on. The depth is the number of steps in the
// file's pre_tokenizer, which has a limit.
void Split(const PreTokenizer& pre_tokenizer, size_t level,
           absl::string_view piece, size_t begin,
           absl::FunctionRef<void(const Word&)> visit) {
  if (level == pre_tokenizer.splitters.size()) {
    return VisitPiece(pre_tokenizer, piece, begin, visit);
  }
  for (size_t at = 0; at < piece.size();) {
    const size_t end = pre_tokenizer.splitters[level](piece, at);
    Split(pre_tokenizer, level + 1, piece.substr(at, end - at), begin + at,
          visit);
    at = end;
  }
}

}  // namespace

void ForEachWord(const PreTokenizer& pre_tokenizer, absl::string_view text,
                 absl::FunctionRef<void(const Word&)> visit) {
  if (!text.empty()) Split(pre_tokenizer, 0, text, 0, visit);
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
