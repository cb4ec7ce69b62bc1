#include "engine/tokenizer/json_pipeline.h"

#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/formats/excerpt.h"

namespace qk {
namespace {

constexpr int64_t kMaxSteps = 8;

std::string Quoted(absl::string_view text) {
  return absl::StrCat("\"", Excerpt(text), "\"");
}

// The steps of a member: none if it is missing, those of `list` if it is a
// Sequence (which must hold no other Sequence), else itself.
absl::StatusOr<std::vector<JsonValue>> Steps(const JsonValue& root,
                                             absl::string_view member,
                                             absl::string_view list) {
  std::vector<JsonValue> steps;
  if (!root.Find(member).has_value()) return steps;
  QK_ASSIGN_OR_RETURN(const JsonValue step, root.GetObject(member));
  QK_ASSIGN_OR_RETURN(const absl::string_view type, step.GetString("type"));
  if (type != "Sequence") return std::vector<JsonValue>{step};
  QK_ASSIGN_OR_RETURN(const JsonValue array, step.GetArray(list));
  if (array.size() > kMaxSteps) {
    return array.Error(absl::StrCat(array.size(), " steps, limit ", kMaxSteps));
  }
  QK_RETURN_IF_ERROR(array.ForEachElement([&](JsonValue element) {
    steps.push_back(element);
    return absl::OkStatus();
  }));
  return steps;
}

absl::Status Unsupported(const JsonValue& step, absl::string_view what,
                         absl::string_view type) {
  return step.Error(absl::StrCat("unsupported ", what, " ", Quoted(type)));
}

absl::Status ReadNormalizer(const JsonValue& root, BpeTokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(const auto steps,
                      Steps(root, "normalizer", "normalizers"));
  for (const JsonValue& step : steps) {
    QK_ASSIGN_OR_RETURN(const absl::string_view type, step.GetString("type"));
    if (type != "NFC") return Unsupported(step, "normalizer", type);
    spec->normalization = Normalization::kNfc;
  }
  return absl::OkStatus();
}

absl::StatusOr<Splitter> ReadSplit(const JsonValue& step) {
  QK_ASSIGN_OR_RETURN(const JsonValue pattern, step.GetObject("pattern"));
  if (!pattern.Find("Regex").has_value()) {
    return pattern.Error("unsupported pre_tokenizer pattern, must be a Regex");
  }
  QK_ASSIGN_OR_RETURN(const absl::string_view regex,
                      pattern.GetString("Regex"));
  const Splitter splitter = SplitterOfPattern(regex);
  if (splitter == nullptr) {
    return Unsupported(step, "pre_tokenizer pattern", regex);
  }
  QK_ASSIGN_OR_RETURN(const absl::string_view behavior,
                      step.GetString("behavior"));
  if (behavior != "Isolated") {
    return Unsupported(step, "pre_tokenizer behavior", behavior);
  }
  QK_ASSIGN_OR_RETURN(const bool invert, step.GetBoolOr("invert", false));
  if (invert) return step.Error("unsupported pre_tokenizer invert: true");
  return splitter;
}

absl::Status ReadByteLevel(const JsonValue& step, PreTokenizer* out) {
  QK_ASSIGN_OR_RETURN(out->add_prefix_space,
                      step.GetBoolOr("add_prefix_space", true));
  // Of no effect here: offsets always cover all bytes of a token.
  QK_RETURN_IF_ERROR(step.GetBoolOr("trim_offsets", true).status());
  QK_ASSIGN_OR_RETURN(const bool use_regex, step.GetBoolOr("use_regex", true));
  out->last = use_regex ? NextGpt2 : nullptr;
  return absl::OkStatus();
}

absl::Status ReadPreTokenizer(const JsonValue& root, BpeTokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(const auto steps,
                      Steps(root, "pre_tokenizer", "pretokenizers"));
  bool byte_level = false;
  for (const JsonValue& step : steps) {
    if (byte_level) {
      return step.Error("unsupported pre_tokenizer step after ByteLevel");
    }
    QK_ASSIGN_OR_RETURN(const absl::string_view type, step.GetString("type"));
    if (type == "ByteLevel") {
      byte_level = true;
      QK_RETURN_IF_ERROR(ReadByteLevel(step, &spec->pre_tokenizer));
    } else if (type == "Split") {
      QK_ASSIGN_OR_RETURN(const Splitter splitter, ReadSplit(step));
      spec->pre_tokenizer.splitters.push_back(splitter);
    } else if (type == "Digits") {
      QK_ASSIGN_OR_RETURN(const bool individual,
                          step.GetBoolOr("individual_digits", false));
      spec->pre_tokenizer.splitters.push_back(individual ? NextDigit
                                                         : NextDigitRun);
    } else {
      return Unsupported(step, "pre_tokenizer", type);
    }
  }
  if (!byte_level) {
    return root.Error("unsupported pre_tokenizer: it has no ByteLevel step");
  }
  return absl::OkStatus();
}

absl::Status ReadDecoder(const JsonValue& root) {
  QK_ASSIGN_OR_RETURN(const auto steps, Steps(root, "decoder", "decoders"));
  for (const JsonValue& step : steps) {
    QK_ASSIGN_OR_RETURN(const absl::string_view type, step.GetString("type"));
    if (type != "ByteLevel") return Unsupported(step, "decoder", type);
  }
  return absl::OkStatus();
}

// Appends the ids that a template's special token stands for.
absl::Status ReadTemplateToken(const JsonValue& processor,
                               const JsonValue& piece, size_t vocab_size,
                               std::vector<int32_t>* ids) {
  QK_ASSIGN_OR_RETURN(const absl::string_view name, piece.GetString("id"));
  QK_ASSIGN_OR_RETURN(const JsonValue table,
                      processor.GetObject("special_tokens"));
  if (!table.Find(name).has_value()) {
    return piece.Error(
        absl::StrCat(Quoted(name), " is not among special_tokens"));
  }
  QK_ASSIGN_OR_RETURN(const JsonValue entry, table.GetObject(name));
  QK_ASSIGN_OR_RETURN(const JsonValue list, entry.GetArray("ids"));
  return list.ForEachElement([&](JsonValue value) -> absl::Status {
    QK_ASSIGN_OR_RETURN(const int64_t id, value.AsInt64());
    if (id < 0 || id >= static_cast<int64_t>(vocab_size)) {
      return value.Error(
          absl::StrCat("id ", id, " is outside [0, ", vocab_size, ")"));
    }
    ids->push_back(static_cast<int32_t>(id));
    return absl::OkStatus();
  });
}

// The `single` template: special tokens, the text ("A"), special tokens.
absl::Status ReadTemplate(const JsonValue& processor, BpeTokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(const JsonValue pieces, processor.GetArray("single"));
  bool text_seen = false;
  QK_RETURN_IF_ERROR(pieces.ForEachElement([&](JsonValue piece) {
    if (piece.Find("SpecialToken").has_value()) {
      auto token = piece.GetObject("SpecialToken");
      if (!token.ok()) return token.status();
      return ReadTemplateToken(processor, *token, spec->tokens.size(),
                               text_seen ? &spec->suffix : &spec->prefix);
    }
    auto sequence = piece.GetObject("Sequence");
    if (!sequence.ok()) return sequence.status();
    auto id = sequence->GetString("id");
    if (!id.ok()) return id.status();
    if (*id != "A" || text_seen) {
      return piece.Error("the template must have the sequence \"A\" once");
    }
    text_seen = true;
    return absl::OkStatus();
  }));
  if (text_seen) return absl::OkStatus();
  return pieces.Error("the template must have the sequence \"A\" once");
}

absl::Status ReadPostProcessor(const JsonValue& root, BpeTokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(const auto steps,
                      Steps(root, "post_processor", "processors"));
  bool has_template = false;
  for (const JsonValue& step : steps) {
    QK_ASSIGN_OR_RETURN(const absl::string_view type, step.GetString("type"));
    if (type == "ByteLevel") continue;  // trims offsets only
    if (type != "TemplateProcessing" || has_template) {
      return Unsupported(step, "post_processor", type);
    }
    has_template = true;
    QK_RETURN_IF_ERROR(ReadTemplate(step, spec));
  }
  return absl::OkStatus();
}

absl::Status CheckTruncation(const JsonValue& root) {
  if (!root.Find("truncation").has_value()) return absl::OkStatus();
  QK_ASSIGN_OR_RETURN(const JsonValue truncation, root.GetObject("truncation"));
  QK_ASSIGN_OR_RETURN(
      const int64_t max_length,
      truncation.GetInt64InRange("max_length", 1, int64_t{1} << 40));
  QK_ASSIGN_OR_RETURN(const int64_t stride, truncation.GetInt64Or("stride", 0));
  if (stride >= 0 && stride < max_length) return absl::OkStatus();
  return truncation.Error(absl::StrCat("stride: must be less than max_length ",
                                       max_length, " and not negative, got ",
                                       stride));
}

absl::Status CheckPadding(const JsonValue& root) {
  if (!root.Find("padding").has_value()) return absl::OkStatus();
  QK_ASSIGN_OR_RETURN(const JsonValue padding, root.GetObject("padding"));
  QK_ASSIGN_OR_RETURN(const JsonValue strategy, padding.Get("strategy"));
  if (strategy.is_object()) {
    return strategy.GetInt64InRange("Fixed", 1, int64_t{1} << 40).status();
  }
  QK_ASSIGN_OR_RETURN(const absl::string_view name, strategy.AsString());
  if (name == "BatchLongest") return absl::OkStatus();
  return Unsupported(strategy, "padding", name);
}

}  // namespace

absl::Status ReadJsonPipeline(const JsonValue& root, BpeTokenizerSpec* spec) {
  QK_RETURN_IF_ERROR(CheckTruncation(root));
  QK_RETURN_IF_ERROR(CheckPadding(root));
  QK_RETURN_IF_ERROR(ReadNormalizer(root, spec));
  QK_RETURN_IF_ERROR(ReadPreTokenizer(root, spec));
  QK_RETURN_IF_ERROR(ReadPostProcessor(root, spec));
  return ReadDecoder(root);
}

}  // namespace qk
