#include "engine/tokenizer/json_pipeline.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/tokenizer/json_decoder.h"
#include "engine/tokenizer/json_normalizer.h"
#include "engine/tokenizer/json_steps.h"
#include "engine/tokenizer/json_words.h"

namespace qk {
namespace {

// Appends the ids for which a template's special token stands.
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

// Reads the `single` template: special tokens, the text ("A"), special tokens.
absl::Status ReadTemplate(const JsonValue& processor, TokenizerSpec* spec) {
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

absl::Status ReadPostProcessor(const JsonValue& root, TokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(const auto steps,
                      Steps(root, "post_processor", "processors"));
  bool has_template = false;
  for (const JsonValue& step : steps) {
    QK_ASSIGN_OR_RETURN(const absl::string_view type, step.GetString("type"));
    if (type == "ByteLevel") continue;  // only trims offsets
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

absl::Status ReadJsonPipeline(const JsonValue& root, TokenizerSpec* spec) {
  QK_RETURN_IF_ERROR(CheckTruncation(root));
  QK_RETURN_IF_ERROR(CheckPadding(root));
  QK_RETURN_IF_ERROR(ReadJsonNormalizer(root, &spec->normalizer));
  QK_RETURN_IF_ERROR(ReadJsonPreTokenizer(root, spec));
  if (spec->byte_level && spec->unigram.has_value()) {
    return root.Error(
        "unsupported tokenizer model \"Unigram\" with a ByteLevel "
        "pre_tokenizer");
  }
  if (spec->byte_level && spec->byte_tokens.has_value()) {
    return root.Error(
        "unsupported byte_fallback: true with a ByteLevel pre_tokenizer");
  }
  QK_RETURN_IF_ERROR(ReadPostProcessor(root, spec));
  return ReadJsonDecoder(root, spec);
}

}  // namespace qk
