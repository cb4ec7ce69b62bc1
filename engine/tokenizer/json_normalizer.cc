#include "engine/tokenizer/json_normalizer.h"

#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/tokenizer/json_steps.h"

namespace qk {
namespace {

using Kind = NormalizerStep::Kind;

// The pattern by which `transformers` 5 writes that spaces go on both sides.
// PCRE2 would look at every run of spaces once for each space in it.
constexpr absl::string_view kSpacesAtSides = R"(\A +| +\z)";

absl::Status ReadPrepend(const JsonValue& step, Normalizer* out) {
  QK_ASSIGN_OR_RETURN(std::string prefix, ShortText(step, "prepend", false));
  out->push_back({.kind = Kind::kPrepend, .to = std::move(prefix)});
  return absl::OkStatus();
}

absl::Status ReadReplace(const JsonValue& step, Normalizer* out) {
  NormalizerStep read{.kind = Kind::kReplace};
  QK_ASSIGN_OR_RETURN(read.to, ShortText(step, "content", true));
  QK_ASSIGN_OR_RETURN(const JsonValue pattern, step.GetObject("pattern"));
  if (pattern.Find("Regex").has_value()) {
    QK_ASSIGN_OR_RETURN(const absl::string_view regex,
                        pattern.GetString("Regex"));
    read.kind = Kind::kReplacePattern;
    if (regex == kSpacesAtSides && read.to.empty()) {
      read.kind = Kind::kStripSpaces;
    } else {
      auto compiled = WordPattern::Create(regex);
      if (!compiled.ok()) {
        const absl::string_view message = compiled.status().message();
        return step.Error(absl::StrCat("pattern: ", message));
      }
      read.pattern = *std::move(compiled);
    }
  } else {
    QK_ASSIGN_OR_RETURN(read.from, StringPattern(step, "normalizer"));
  }
  out->push_back(std::move(read));
  return absl::OkStatus();
}

absl::Status ReadStrip(const JsonValue& step, Normalizer* out) {
  QK_ASSIGN_OR_RETURN(const bool left, step.GetBool("strip_left"));
  QK_ASSIGN_OR_RETURN(const bool right, step.GetBool("strip_right"));
  if (left) out->push_back({.kind = Kind::kStripLeft});
  if (right) out->push_back({.kind = Kind::kStripRight});
  return absl::OkStatus();
}

absl::Status ReadPrecompiled(const JsonValue& step, Normalizer* out) {
  QK_ASSIGN_OR_RETURN(const absl::string_view base64,
                      step.GetString("precompiled_charsmap"));
  std::string bytes;
  if (!absl::Base64Unescape(base64, &bytes)) {
    return step.Error("precompiled_charsmap: must be base64");
  }
  auto charsmap = Charsmap::Create(bytes);
  if (!charsmap.ok()) {
    const absl::string_view message = charsmap.status().message();
    return step.Error(message);
  }
  out->push_back({.kind = Kind::kCharsmap, .charsmap = *std::move(charsmap)});
  return absl::OkStatus();
}

absl::Status ReadStep(const JsonValue& step, Normalizer* out) {
  constexpr std::pair<absl::string_view, Kind> kPlain[] = {
      {"NFC", Kind::kNfc},
      {"NFD", Kind::kNfd},
      {"NFKC", Kind::kNfkc},
      {"NFKD", Kind::kNfkd},
      {"Nmt", Kind::kNmt},
      {"Lowercase", Kind::kLowercase},
      {"StripAccents", Kind::kStripAccents}};
  QK_ASSIGN_OR_RETURN(const absl::string_view type, step.GetString("type"));
  for (const auto& [name, kind] : kPlain) {
    if (type != name) continue;
    out->push_back({.kind = kind});
    return absl::OkStatus();
  }
  if (type == "Prepend") return ReadPrepend(step, out);
  if (type == "Replace") return ReadReplace(step, out);
  if (type == "Strip") return ReadStrip(step, out);
  if (type == "Precompiled") return ReadPrecompiled(step, out);
  return Unsupported(step, "normalizer", type);
}

}  // namespace

absl::Status ReadJsonNormalizer(const JsonValue& root, Normalizer* normalizer) {
  QK_ASSIGN_OR_RETURN(const auto steps,
                      Steps(root, "normalizer", "normalizers"));
  for (const JsonValue& step : steps) {
    QK_RETURN_IF_ERROR(ReadStep(step, normalizer));
  }
  return absl::OkStatus();
}

}  // namespace qk
