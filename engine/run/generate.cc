#include "engine/run/generate.h"

#include <algorithm>

#include "absl/strings/match.h"

namespace qk {
namespace {

// Bytes at the end of `s` that begin a UTF-8 character but do not finish it.
size_t UnfinishedBytes(absl::string_view s) {
  const size_t most = std::min<size_t>(3, s.size());
  for (size_t n = 1; n <= most; ++n) {
    const auto byte = static_cast<unsigned char>(s[s.size() - n]);
    if ((byte & 0xC0) == 0x80) continue;  // inside a character
    const size_t length = byte >= 0xF0   ? 4
                          : byte >= 0xE0 ? 3
                          : byte >= 0xC0 ? 2
                                         : 1;
    return length > n ? n : 0;
  }
  return 0;
}

}  // namespace

std::string TextStream::Release(size_t bytes) {
  std::string out = held_.substr(0, bytes);
  held_.erase(0, bytes);
  text_ += out;
  return out;
}

std::string TextStream::Add(absl::string_view piece) {
  held_.append(piece.data(), piece.size());
  size_t first = std::string::npos;
  for (const std::string& stop : stop_strings_) {
    first = std::min(first, held_.find(stop));
  }
  if (first != std::string::npos) {
    stopped_ = true;
    std::string out = Release(first);
    held_.clear();
    return out;
  }
  // A suffix that may grow into a stop string is held back.
  size_t wait = UnfinishedBytes(held_);
  for (const std::string& stop : stop_strings_) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > wait; --n) {
      if (absl::EndsWith(held_, absl::string_view(stop).substr(0, n))) {
        wait = n;
        break;
      }
    }
  }
  return Release(held_.size() - wait);
}

std::string TextStream::Finish() { return Release(held_.size()); }

}  // namespace qk
