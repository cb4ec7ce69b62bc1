#include "engine/tokenizer/decoder.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "engine/tokenizer/byte_fallback.h"
#include "engine/tokenizer/byte_level.h"

namespace qk {
namespace {

std::string Strip(const DecoderStep& step, absl::string_view text) {
  for (int i = 0; i < step.left; ++i) {
    if (!absl::ConsumePrefix(&text, step.from)) break;
  }
  for (int i = 0; i < step.right; ++i) {
    if (!absl::ConsumeSuffix(&text, step.from)) break;
  }
  return std::string(text);
}

std::string ApplyStep(const DecoderStep& step, const std::string& text,
                      bool first) {
  switch (step.kind) {
    case DecoderStep::Kind::kReplace:
      return absl::StrReplaceAll(text, {{step.from, step.to}});
    case DecoderStep::Kind::kMetaspace:
      return absl::StrReplaceAll(text, {{step.from, first ? "" : step.to}});
    case DecoderStep::Kind::kStrip:
      return Strip(step, text);
    default:
      const auto byte = ByteOfToken(text);
      return byte.ok() ? std::string(1, static_cast<char>(*byte)) : text;
  }
}

std::string ApplySteps(const std::vector<DecoderStep>& steps, std::string text,
                       bool first) {
  for (const DecoderStep& step : steps) {
    text = ApplyStep(step, std::move(text), first);
  }
  return text;
}

}  // namespace

std::string TokenDecoder::Piece(absl::string_view token) const {
  if (byte_level) return ByteLevelBytes(token).value_or(std::string(token));
  return ApplySteps(token_steps, std::string(token), false);
}

std::optional<std::string> TokenDecoder::FirstPiece(
    absl::string_view token) const {
  if (byte_level) return std::nullopt;
  std::string first = ApplySteps(token_steps, std::string(token), true);
  if (first == Piece(token)) return std::nullopt;
  return first;
}

std::string TokenDecoder::Finish(std::string text) const {
  return ApplySteps(text_steps, std::move(text), true);
}

}  // namespace qk
