#include "server/common/text.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace qk {
namespace {

constexpr size_t kMaxEcho = 64;
constexpr size_t kMaxPrintable = 200;

}  // namespace

std::string Echo(absl::string_view text) {
  std::string escaped = absl::CHexEscape(text.substr(0, kMaxEcho));
  const bool cut = text.size() > kMaxEcho || escaped.size() > kMaxEcho;
  if (escaped.size() > kMaxEcho) escaped.resize(kMaxEcho);
  return cut ? escaped + "..." : escaped;
}

std::string Printable(absl::string_view message) {
  std::string out;
  for (const char& c : message.substr(0, kMaxPrintable)) {
    const absl::string_view byte(&c, 1);
    absl::StrAppend(&out, absl::ascii_isprint(static_cast<unsigned char>(c))
                              ? std::string(byte)
                              : absl::CHexEscape(byte));
  }
  return message.size() > kMaxPrintable ? out + "..." : out;
}

std::string HumanBytes(int64_t bytes) {
  static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  const std::string number = absl::StrFormat("%.1f", value);
  const absl::string_view digits = number;
  const bool whole =
      digits.size() > 2 && digits.substr(digits.size() - 2) == ".0";
  return absl::StrCat(digits.substr(0, digits.size() - (whole ? 2 : 0)), " ",
                      kUnits[unit]);
}

bool IsSha256(absl::string_view text) {
  return text.size() == 64 &&
         std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return absl::ascii_isxdigit(c); });
}

std::string StripPaths(absl::string_view text) {
  const auto in_path = [](char c) {
    return absl::ascii_isalnum(c) || c == '/' || c == '.' || c == '_' ||
           c == '-' || c == '+' || c == '@' || c == '~';
  };
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const bool starts = text[i] == '/' && (i == 0 || !in_path(text[i - 1]));
    if (!starts) {
      out += text[i++];
      continue;
    }
    size_t end = i;
    while (end < text.size() && in_path(text[end])) ++end;
    const absl::string_view path = text.substr(i, end - i);
    out.append(path.substr(path.rfind('/') + 1).data(),
               path.size() - path.rfind('/') - 1);
    i = end;
  }
  return out;
}

}  // namespace qk
