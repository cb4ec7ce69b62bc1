#include "engine/tokenizer/json_words.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/tokenizer/json_steps.h"
#include "engine/tokenizer/splitters.h"

namespace qk {
namespace {

using Prefix = PieceSpelling::Prefix;

absl::StatusOr<NormalizerStep> ReadNormalizerStep(const JsonValue& step) {
  QK_ASSIGN_OR_RETURN(const absl::string_view type, step.GetString("type"));
  NormalizerStep out{NormalizerStep::Kind::kNfc, "", ""};
  if (type == "NFC") return out;
  if (type == "Prepend") {
    out.kind = NormalizerStep::Kind::kPrepend;
    QK_ASSIGN_OR_RETURN(out.to, ShortText(step, "prepend", false));
    return out;
  }
  if (type == "Replace") {
    out.kind = NormalizerStep::Kind::kReplace;
    QK_ASSIGN_OR_RETURN(out.from, StringPattern(step, "normalizer"));
    QK_ASSIGN_OR_RETURN(out.to, ShortText(step, "content", false));
    return out;
  }
  return Unsupported(step, "normalizer", type);
}

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
  if (use_regex) out->last = NextGpt2;
  return absl::OkStatus();
}

absl::Status ReadMetaspace(const JsonValue& step, PreTokenizer* out) {
  QK_ASSIGN_OR_RETURN(const Prefix prefix, ReadPrependScheme(step));
  out->spelling = {kMetaspace, prefix};
  QK_ASSIGN_OR_RETURN(const bool split, step.GetBoolOr("split", true));
  if (split) out->last = NextBeforeMetaspace;
  return absl::OkStatus();
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

absl::Status ReadJsonNormalizer(const JsonValue& root, Normalizer* normalizer) {
  QK_ASSIGN_OR_RETURN(const auto steps,
                      Steps(root, "normalizer", "normalizers"));
  for (const JsonValue& step : steps) {
    QK_ASSIGN_OR_RETURN(NormalizerStep read, ReadNormalizerStep(step));
    for (const NormalizerStep& before : *normalizer) {
      if (before.kind == read.kind) {
        return step.Error("unsupported normalizer: a second one of its type");
      }
    }
    normalizer->push_back(std::move(read));
  }
  return absl::OkStatus();
}

absl::Status ReadJsonPreTokenizer(const JsonValue& root,
                                  BpeTokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(const auto steps,
                      Steps(root, "pre_tokenizer", "pretokenizers"));
  PreTokenizer& out = spec->pre_tokenizer;
  spec->byte_level = false;
  absl::string_view last;  // the step that must come last
  for (const JsonValue& step : steps) {
    if (!last.empty()) {
      return step.Error(
          absl::StrCat("unsupported pre_tokenizer step after ", last));
    }
    QK_ASSIGN_OR_RETURN(const absl::string_view type, step.GetString("type"));
    if (type == "ByteLevel") {
      last = type;
      spec->byte_level = true;
      QK_RETURN_IF_ERROR(ReadByteLevel(step, &out));
    } else if (type == "Metaspace") {
      last = type;
      QK_RETURN_IF_ERROR(ReadMetaspace(step, &out));
    } else if (type == "Split") {
      QK_ASSIGN_OR_RETURN(Splitter splitter, ReadSplit(step));
      out.splitters.push_back(std::move(splitter));
    } else if (type == "Digits") {
      QK_ASSIGN_OR_RETURN(const bool individual,
                          step.GetBoolOr("individual_digits", false));
      out.splitters.emplace_back(individual ? NextDigit : NextDigitRun);
    } else {
      return Unsupported(step, "pre_tokenizer", type);
    }
  }
  return absl::OkStatus();
}

}  // namespace qk
