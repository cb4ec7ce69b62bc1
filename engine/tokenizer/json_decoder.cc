#include "engine/tokenizer/json_decoder.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/tokenizer/json_steps.h"
#include "engine/tokenizer/json_words.h"

namespace qk {
namespace {

// The steps, in the order in which they may come.
enum class Order { kNone, kReplace, kByteFallback, kFuse, kStrip, kAlone };

absl::Status ReadReplace(const JsonValue& step, TokenDecoder* out) {
  QK_ASSIGN_OR_RETURN(out->from, StringPattern(step, "decoder"));
  QK_ASSIGN_OR_RETURN(out->to, ShortText(step, "content", true));
  return absl::OkStatus();
}

absl::Status ReadStrip(const JsonValue& step, TokenDecoder* out) {
  QK_ASSIGN_OR_RETURN(out->stripped, ShortText(step, "content", false));
  QK_ASSIGN_OR_RETURN(const int64_t left, step.GetInt64InRange("start", 0, 16));
  QK_RETURN_IF_ERROR(step.GetInt64InRangeOr("stop", 0, 0, 0).status());
  out->strip_left = static_cast<int>(left);
  return absl::OkStatus();
}

absl::Status ReadMetaspace(const JsonValue& step, TokenDecoder* out) {
  QK_ASSIGN_OR_RETURN(const auto prefix, ReadPrependScheme(step));
  out->from = std::string(kMetaspace);
  out->to.assign(1, ' ');
  out->first_without = prefix != PieceSpelling::Prefix::kNever;
  return absl::OkStatus();
}

// Reads one step of a decoder for characters; `at` is the place in the order
// that the step before it has.
absl::Status ReadStep(const JsonValue& step, Order* at, TokenDecoder* out) {
  QK_ASSIGN_OR_RETURN(const absl::string_view type, step.GetString("type"));
  const Order before = *at;
  if (type == "Replace") {
    *at = Order::kReplace;
    QK_RETURN_IF_ERROR(ReadReplace(step, out));
  } else if (type == "ByteFallback") {
    *at = Order::kByteFallback;
    out->byte_fallback = true;
  } else if (type == "Fuse") {
    *at = Order::kFuse;
  } else if (type == "Strip" && before == Order::kFuse) {
    *at = Order::kStrip;
    QK_RETURN_IF_ERROR(ReadStrip(step, out));
  } else if (type == "Metaspace" && before == Order::kNone) {
    *at = Order::kAlone;
    QK_RETURN_IF_ERROR(ReadMetaspace(step, out));
  } else {
    return Unsupported(step, "decoder", type);
  }
  if (before < *at) return absl::OkStatus();
  return step.Error(
      absl::StrCat("unsupported order of decoders at ", Quoted(type)));
}

}  // namespace

absl::Status ReadJsonDecoder(const JsonValue& root, BpeTokenizerSpec* spec) {
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
  spec->decoder.kind = TokenDecoder::Kind::kReplace;
  Order at = Order::kNone;
  for (const JsonValue& step : steps) {
    QK_RETURN_IF_ERROR(ReadStep(step, &at, &spec->decoder));
  }
  return absl::OkStatus();
}

}  // namespace qk
