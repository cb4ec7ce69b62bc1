#include "client/qkctl/output/console.h"

#include <poll.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "engine/base/utf8.h"

namespace qk::client {
namespace {

// Whether the descriptor takes text at once: a terminal may be stopped.
bool IsReady(int fd) {
  pollfd ready = {fd, POLLOUT, 0};
  return poll(&ready, 1, /*timeout=*/0) == 1;
}

}  // namespace

Console Console::ForProcess() {
  const char* no_color = std::getenv("NO_COLOR");
  const bool color =
      isatty(STDOUT_FILENO) && (no_color == nullptr || *no_color == '\0');
  return Console(color, isatty(STDERR_FILENO));
}

void Console::Print(const std::string& text) {
  ClearProgress();
  Stream(text);
}

void Console::Stream(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void Console::Progress(const std::string& text) {
  if (!progress_ || !IsReady(STDERR_FILENO)) return;
  std::fprintf(stderr, "\r\033[K%s", text.c_str());
  std::fflush(stderr);
  line_shown_ = true;
}

void Console::ClearProgress() {
  if (!line_shown_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  line_shown_ = false;
}

void Console::Error(const std::string& text) {
  ClearProgress();
  std::fflush(stdout);
  std::fprintf(stderr, "%s\n", text.c_str());
}

std::string Console::Styled(const char* code, const std::string& text) const {
  return color_ ? absl::StrCat("\033[", code, "m", text, "\033[0m") : text;
}

std::string Console::Bold(const std::string& text) const {
  return Styled("1", text);
}
std::string Console::Dim(const std::string& text) const {
  return Styled("2", text);
}
std::string Console::Warm(const std::string& text) const {
  return Styled("33", text);
}
std::string Console::Bad(const std::string& text) const {
  return Styled("31", text);
}

std::string Printable(const std::string& text) {
  std::string printable;
  for (size_t at = 0; at < text.size();) {
    const absl::string_view rest = absl::string_view(text).substr(at);
    const size_t bytes = Utf8CharacterBytes(rest);
    const char32_t c =
        bytes == 0 ? static_cast<unsigned char>(rest[0]) : Utf8Character(rest);
    if (c == '\n') {
      printable += "\\n";
    } else if (bytes == 0 || (c < 0x80 && IsControlOrFormat(c))) {
      absl::StrAppendFormat(&printable, "\\x%02x", static_cast<uint32_t>(c));
    } else if (IsControlOrFormat(c)) {
      absl::StrAppendFormat(&printable, "\\u%04x", static_cast<uint32_t>(c));
    } else {
      printable.append(rest.data(), bytes);
    }
    at += bytes == 0 ? 1 : bytes;
  }
  return printable;
}

}  // namespace qk::client
