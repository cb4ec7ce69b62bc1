#include "client/qkctl/output/console.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace qk::client {

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
  if (!progress_) return;
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
  for (const char c : text) {
    const unsigned char byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      printable += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      absl::StrAppendFormat(&printable, "\\x%02x", byte);
    } else {
      printable += c;
    }
  }
  return printable;
}

}  // namespace qk::client
