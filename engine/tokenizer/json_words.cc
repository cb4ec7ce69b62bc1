#include "engine/tokenizer/json_words.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/tokenizer/json_steps.h"

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

absl::StatusOr<Splitter> ReadSplit(const JsonValue& step) {
  QK_ASSIGN_OR_RETURN(const JsonValue pattern, step.GetObject("pattern"));
  const bool is_regex = pattern.Find("Regex").has_value();
  Splitter splitter = nullptr;
  absl::string_view behavior_wanted = "Isolated";
  if (is_regex) {
    QK_ASSIGN_OR_RETURN(const absl::string_view regex,
                        pattern.GetString("Regex"));
    splitter = SplitterOfPattern(regex);
    if (splitter == nullptr) {
      return Unsupported(step, "pre_tokenizer pattern", regex);
    }
  } else {
    QK_ASSIGN_OR_RETURN(const std::string text,
                        StringPattern(step, "pre_tokenizer"));
    if (text != " ") return Unsupported(step, "pre_tokenizer pattern", text);
    splitter = NextAfterSpace;
    behavior_wanted = "MergedWithPrevious";
  }
  QK_ASSIGN_OR_RETURN(const absl::string_view behavior,
                      step.GetString("behavior"));
  if (behavior != behavior_wanted) {
    return Unsupported(step, "pre_tokenizer behavior", behavior);
  }
  QK_ASSIGN_OR_RETURN(const bool invert, step.GetBoolOr("invert", false));
  if (invert) return step.Error("unsupported pre_tokenizer invert: true");
  return splitter;
}

absl::Status ReadByteLevel(const JsonValue& step, PreTokenizer* out) {
  QK_ASSIGN_OR_RETURN(const bool add_prefix_space,
                      step.GetBoolOr("add_prefix_space", true));
  out->spelling = {" ", add_prefix_space ? Prefix::kAlways : Prefix::kNever};
  // This has no effect here: offsets always cover all bytes of a token.
  QK_RETURN_IF_ERROR(step.GetBoolOr("trim_offsets", true).status());
  QK_ASSIGN_OR_RETURN(const bool use_regex, step.GetBoolOr("use_regex", true));
  out->last = use_regex ? NextGpt2 : nullptr;
  return absl::OkStatus();
}

absl::Status ReadMetaspace(const JsonValue& step, PreTokenizer* out) {
  QK_ASSIGN_OR_RETURN(const Prefix prefix, ReadPrependScheme(step));
  out->spelling = {kMetaspace, prefix};
  QK_ASSIGN_OR_RETURN(const bool split, step.GetBoolOr("split", true));
  out->last = split ? NextBeforeMetaspace : nullptr;
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
      QK_ASSIGN_OR_RETURN(const Splitter splitter, ReadSplit(step));
      out.splitters.push_back(splitter);
    } else if (type == "Digits") {
      QK_ASSIGN_OR_RETURN(const bool individual,
                          step.GetBoolOr("individual_digits", false));
      out.splitters.push_back(individual ? NextDigit : NextDigitRun);
    } else {
      return Unsupported(step, "pre_tokenizer", type);
    }
  }
  return absl::OkStatus();
}

}  // namespace qk
