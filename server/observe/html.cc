#include "server/observe/html.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/base/utf8.h"

namespace qk {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";  // U+FFFD
constexpr char kEllipsis[] = "\xE2\x80\xA6";

void AppendCharacter(absl::string_view character, std::string* out) {
  switch (character[0]) {
    case '&':
      out->append("&amp;");
      return;
    case '<':
      out->append("&lt;");
      return;
    case '>':
      out->append("&gt;");
      return;
    case '"':
      out->append("&quot;");
      return;
    case '\'':
      out->append("&#39;");
      return;
    default:
      absl::StrAppend(out, IsControlOrFormat(Utf8Character(character))
                               ? absl::string_view(kReplacement)
                               : character);
  }
}

}  // namespace

std::string HtmlText(absl::string_view text, size_t most) {
  std::string out;
  for (size_t characters = 0; !text.empty(); ++characters) {
    if (characters == most) return out + kEllipsis;
    const size_t bytes = Utf8CharacterBytes(text);
    if (bytes == 0) {
      out.append(kReplacement);
      text.remove_prefix(1);
      continue;
    }
    AppendCharacter(text.substr(0, bytes), &out);
    text.remove_prefix(bytes);
  }
  return out;
}

std::string WithCommas(int64_t count) {
  const std::string digits = absl::StrCat(count);
  const size_t sign = count < 0 ? 1 : 0;
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > sign && (digits.size() - i) % 3 == 0) out.push_back(',');
    out.push_back(digits[i]);
  }
  return out;
}

std::string ShortDuration(absl::Duration duration) {
  const double seconds = absl::ToDoubleSeconds(duration);
  if (seconds < 1) return absl::StrFormat("%.0f ms", seconds * 1e3);
  if (seconds < 60) {
    const int digits = seconds < 10 ? 2 : 1;
    const double scale = seconds < 10 ? 100 : 10;
    return absl::StrFormat("%.*f s", digits,
                           std::floor(seconds * scale) / scale);
  }
  const int64_t whole = absl::ToInt64Seconds(duration);
  if (whole < 3600) {
    return absl::StrFormat("%d min %d s", whole / 60, whole % 60);
  }
  if (whole < 86400) {
    return absl::StrFormat("%d h %d min", whole / 3600, whole % 3600 / 60);
  }
  return absl::StrFormat("%d d %d h", whole / 86400, whole % 86400 / 3600);
}

std::string Percent(double part) {
  const double percent = part * 100;
  const int digits = percent > 0 && percent < 9.95 ? 1 : 0;
  return absl::StrFormat("%.*f %%", digits, percent);
}

}  // namespace qk
