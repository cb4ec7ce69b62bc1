// The terminal: results on standard output, a progress line on standard error.
#ifndef QKSCOPE_CLIENT_QKCTL_OUTPUT_CONSOLE_H_
#define QKSCOPE_CLIENT_QKCTL_OUTPUT_CONSOLE_H_

#include <string>

namespace qk::client {

class Console {
 public:
  // Colour only when standard output is a terminal and NO_COLOR is unset or
  // empty; a progress line only when standard error is a terminal.
  static Console ForProcess();
  Console(bool color, bool progress) : color_(color), progress_(progress) {}

  // Prints whole lines, past the progress line. `text` ends with a newline.
  void Print(const std::string& text);
  // Prints text as it is, part of a line or more.
  void Stream(const std::string& text);
  void Progress(const std::string& text);
  void ClearProgress();
  void Error(const std::string& text);

  std::string Bold(const std::string& text) const;
  std::string Dim(const std::string& text) const;
  std::string Warm(const std::string& text) const;  // for massive values
  std::string Bad(const std::string& text) const;

 private:
  std::string Styled(const char* code, const std::string& text) const;

  bool color_;
  bool progress_;
  bool line_shown_ = false;
};

// Bytes of untrusted text made safe to print: control characters escaped.
std::string Printable(const std::string& text);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_OUTPUT_CONSOLE_H_
