#include "engine/formats/excerpt.h"

#include <cstddef>

#include "absl/strings/escaping.h"

namespace qk {
namespace {

constexpr size_t kMaxBytes = 64;

}  // namespace

std::string Excerpt(absl::string_view text) {
  std::string escaped;
  size_t fitting = 0;  // bytes of `escaped` that leave room for the dots
  for (size_t i = 0; i < text.size(); ++i) {
    // Escapes one byte at a time: the C escape of a byte depends on the next
    // byte only after "\x", and octal escapes always have three digits.
    escaped += absl::CEscape(text.substr(i, 1));
    if (escaped.size() <= kMaxBytes - 3) fitting = escaped.size();
    if (escaped.size() > kMaxBytes) return escaped.substr(0, fitting) + "...";
  }
  return escaped;
}

std::string FileNameOf(absl::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  if (slash != absl::string_view::npos) path.remove_prefix(slash + 1);
  return Excerpt(path);
}

}  // namespace qk
