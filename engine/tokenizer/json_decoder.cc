#include "engine/tokenizer/json_decoder.h"

#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/tokenizer/json_steps.h"
#include "engine/tokenizer/json_words.h"

namespace qk {
namespace {

using Kind = DecoderStep::Kind;

constexpr int64_t kMaxStripped = 16;

absl::StatusOr<DecoderStep> ReadReplace(const JsonValue& step) {
  DecoderStep out{.kind = Kind::kReplace};
  QK_ASSIGN_OR_RETURN(out.from, StringPattern(step, "decoder"));
  QK_ASSIGN_OR_RETURN(out.to, ShortText(step, "content", true));
  return out;
}

absl::StatusOr<DecoderStep> ReadStrip(const JsonValue& step) {
  DecoderStep out{.kind = Kind::kStrip};
  QK_ASSIGN_OR_RETURN(out.from, ShortText(step, "content", false));
  QK_ASSIGN_OR_RETURN(const int64_t left,
                      step.GetInt64InRange("start", 0, kMaxStripped));
  QK_ASSIGN_OR_RETURN(const int64_t right,
                      step.GetInt64InRangeOr("stop", 0, kMaxStripped, 0));
  out.left = static_cast<int>(left);
  out.right = static_cast<int>(right);
  return out;
}

absl::StatusOr<DecoderStep> ReadMetaspace(const JsonValue& step) {
  QK_ASSIGN_OR_RETURN(const auto prefix, ReadPrependScheme(step));
  DecoderStep out{.kind = prefix == PieceSpelling::Prefix::kNever
                              ? Kind::kReplace
                              : Kind::kMetaspace};
  out.from = std::string(kMetaspace);
  out.to.assign(1, ' ');
  return out;
}

absl::StatusOr<DecoderStep> ReadStep(const JsonValue& step,
                                     absl::string_view type) {
  if (type == "Replace") return ReadReplace(step);
  if (type == "ByteFallback") return DecoderStep{.kind = Kind::kByteFallback};
  if (type == "Strip") return ReadStrip(step);
  if (type == "Metaspace") return ReadMetaspace(step);
  return Unsupported(step, "decoder", type);
}

}  // namespace

absl::Status ReadJsonDecoder(const JsonValue& root, TokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(const auto steps, Steps(root, "decoder", "decoders"));
  if (spec->byte_level) {
    for (const JsonValue& step : steps) {
      QK_ASSIGN_OR_RETURN(const absl::string_view type, step.GetString("type"));
      if (type != "ByteLevel") return Unsupported(step, "decoder", type);
    }
    return absl::OkStatus();
  }
  if (steps.empty()) {
    return root.Error(
        "unsupported decoder: there must be one where the pre_tokenizer has no "
        "ByteLevel step");
  }
  TokenDecoder& decoder = spec->decoder;
  decoder.byte_level = false;
  // Fuse makes one token of all.
  std::vector<DecoderStep>* out = &decoder.token_steps;
  for (const JsonValue& step : steps) {
    QK_ASSIGN_OR_RETURN(const absl::string_view type, step.GetString("type"));
    if (type == "Fuse") {
      out = &decoder.text_steps;
      continue;
    }
    QK_ASSIGN_OR_RETURN(DecoderStep read, ReadStep(step, type));
    out->push_back(std::move(read));
  }
  return absl::OkStatus();
}

}  // namespace qk
