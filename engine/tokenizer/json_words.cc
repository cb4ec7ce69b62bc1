#include "engine/tokenizer/json_words.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/tokenizer/json_steps.h"
#include "engine/tokenizer/splitters.h"
#include "engine/tokenizer/unicode.h"

namespace qk {
namespace {

using Prefix = PieceSpelling::Prefix;

absl::StatusOr<SplitBehavior> ReadBehavior(const JsonValue& step) {
  QK_ASSIGN_OR_RETURN(const absl::string_view name, step.GetString("behavior"));
  constexpr std::pair<absl::string_view, SplitBehavior> kBehaviors[] = {
      {"Isolated", SplitBehavior::kIsolated},
      {"Removed", SplitBehavior::kRemoved},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous}};
  for (const auto& [known, behavior] : kBehaviors) {
    if (name == known) return behavior;
  }
  return Unsupported(step, "pre_tokenizer behavior", name);
}

absl::StatusOr<Splitter> ReadSplit(const JsonValue& step) {
  QK_ASSIGN_OR_RETURN(const JsonValue pattern, step.GetObject("pattern"));
  QK_ASSIGN_OR_RETURN(const SplitBehavior behavior, ReadBehavior(step));
  QK_ASSIGN_OR_RETURN(const bool invert, step.GetBoolOr("invert", false));
  absl::StatusOr<std::shared_ptr<const WordPattern>> compiled;
  if (pattern.Find("Regex").has_value()) {
    QK_ASSIGN_OR_RETURN(const absl::string_view regex,
                        pattern.GetString("Regex"));
    // Such a pattern matches all of a text: nothing lies between matches.
    const bool keeps_matches = (behavior == SplitBehavior::kIsolated) ||
                               (behavior == SplitBehavior::kRemoved && invert);
    if (const auto scanner = ScannerOfPattern(regex);
        scanner != nullptr && keeps_matches) {
      return Splitter(scanner);
    }
    compiled = WordPattern::Create(regex);
  } else {
    QK_ASSIGN_OR_RETURN(const std::string text,
                        StringPattern(step, "pre_tokenizer"));
    if (text == " " && behavior == SplitBehavior::kMergedWithPrevious &&
        !invert) {
      return Splitter(NextAfterSpace);
    }
    compiled = WordPattern::CreateLiteral(text);
  }
  if (!compiled.ok()) {
    const absl::string_view message = compiled.status().message();
    return step.Error(absl::StrCat("pattern: ", message));
  }
  return Splitter(*std::move(compiled), behavior, invert);
}

absl::Status ReadByteLevel(const JsonValue& step, PreTokenizer* out) {
  QK_ASSIGN_OR_RETURN(const bool add_prefix_space,
                      step.GetBoolOr("add_prefix_space", true));
  out->spelling = {" ", add_prefix_space ? Prefix::kAlways : Prefix::kNever};
  // This has no effect here: offsets always cover all bytes of a token.
  QK_RETURN_IF_ERROR(step.GetBoolOr("trim_offsets", true).status());
  QK_ASSIGN_OR_RETURN(const bool use_regex, step.GetBoolOr("use_regex", true));
  if (use_regex) out->after = {NextGpt2};
  return absl::OkStatus();
}

absl::Status ReadMetaspace(const JsonValue& step, PreTokenizer* out) {
  QK_ASSIGN_OR_RETURN(const Prefix prefix, ReadPrependScheme(step));
  out->spelling = {kMetaspace, prefix};
  QK_ASSIGN_OR_RETURN(const bool split, step.GetBoolOr("split", true));
  if (split) out->after = {NextBeforeMetaspace};
  return absl::OkStatus();
}

// A step that cuts the text as it is, before or after Metaspace.
absl::StatusOr<Splitter> ReadSplitter(const JsonValue& step,
                                      absl::string_view type) {
  if (type == "Split") return ReadSplit(step);
  if (type == "WhitespaceSplit") return Splitter(NextSpaceRun, kSpace);
  if (type == "Whitespace") return Splitter(NextWordRun, kSpace);
  if (type == "Digits") {
    QK_ASSIGN_OR_RETURN(const bool individual,
                        step.GetBoolOr("individual_digits", false));
    return Splitter(individual ? NextDigit : NextDigitRun);
  }
  return Unsupported(step, "pre_tokenizer", type);
}

}  // namespace

absl::StatusOr<Prefix> ReadPrependScheme(const JsonValue& step) {
  QK_ASSIGN_OR_RETURN(const absl::string_view replacement,
                      step.GetString("replacement"));
  if (replacement != kMetaspace) {
    return Unsupported(step, "replacement", replacement);
  }
  QK_ASSIGN_OR_RETURN(const bool add_prefix_space,
                      step.GetBoolOr("add_prefix_space", true));
  QK_ASSIGN_OR_RETURN(const absl::string_view scheme,
                      step.GetStringOr("prepend_scheme",
                                       add_prefix_space ? "always" : "never"));
  if (!add_prefix_space && scheme != "never") {
    return step.Error(
        absl::StrCat("add_prefix_space: false does not go with prepend_scheme ",
                     Quoted(scheme)));
  }
  if (scheme == "always") return Prefix::kAlways;
  if (scheme == "first") return Prefix::kFirst;
  if (scheme == "never") return Prefix::kNever;
  return Unsupported(step, "prepend_scheme", scheme);
}

absl::Status ReadJsonPreTokenizer(const JsonValue& root, TokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(const auto steps,
                      Steps(root, "pre_tokenizer", "pretokenizers"));
  PreTokenizer& out = spec->pre_tokenizer;
  spec->byte_level = false;
  absl::string_view respelled;  // the step after which a text is respelled
  for (const JsonValue& step : steps) {
    QK_ASSIGN_OR_RETURN(const absl::string_view type, step.GetString("type"));
    const bool respells = type == "ByteLevel" || type == "Metaspace";
    if (respelled == "ByteLevel" || (respells && !respelled.empty())) {
      return step.Error(
          absl::StrCat("unsupported pre_tokenizer step after ", respelled));
    }
    if (type == "ByteLevel") {
      spec->byte_level = true;
      QK_RETURN_IF_ERROR(ReadByteLevel(step, &out));
    } else if (type == "Metaspace") {
      QK_RETURN_IF_ERROR(ReadMetaspace(step, &out));
    } else {
      QK_ASSIGN_OR_RETURN(Splitter splitter, ReadSplitter(step, type));
      (respelled.empty() ? out.splitters : out.after)
          .push_back(std::move(splitter));
    }
    if (respells) respelled = type;
  }
  return absl::OkStatus();
}

}  // namespace qk
