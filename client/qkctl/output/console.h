// The terminal: results go to standard output, a progress line to standard
// error.
#ifndef QKSCOPE_CLIENT_QKCTL_OUTPUT_CONSOLE_H_
#define QKSCOPE_CLIENT_QKCTL_OUTPUT_CONSOLE_H_

#include <string>

namespace qk::client {

class Console {
 public:
  // Uses colour only if standard output is a terminal and NO_COLOR is unset or
  // empty. Shows progress only if standard error is a terminal.
  static Console ForProcess();
  Console(bool color, bool progress) : color_(color), progress_(progress) {}

  // Clears the progress line and prints whole lines. `text` must end with a
  // newline.
  void Print(const std::string& text);
  // Prints text of any kind, such as a part of a line.
  void Stream(const std::string& text);
  // Shows nothing while the terminal takes nothing.
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

// Makes untrusted text safe to print: escapes control and format characters
// (IsControlOrFormat) and bytes that are no UTF-8.
std::string Printable(const std::string& text);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_OUTPUT_CONSOLE_H_
