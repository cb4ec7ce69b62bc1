// The text of a generation as it grows. It consists of whole UTF-8 characters
// and contains no part of a stop string.
#ifndef QKSCOPE_ENGINE_RUN_GENERATE_H_
#define QKSCOPE_ENGINE_RUN_GENERATE_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace qk {

class TextStream {
 public:
  // `stop_strings` must outlive the stream; none may be empty.
  explicit TextStream(const std::vector<std::string>& stop_strings)
      : stop_strings_(stop_strings) {}

  // Adds a token's bytes and returns what can now be shown. Sets stopped() when
  // a stop string is complete; the text then ends before it.
  std::string Add(absl::string_view piece);
  // Returns the text held back, at the end of a generation that no stop string
  // stopped.
  std::string Finish();

  bool stopped() const { return stopped_; }
  // All text returned so far.
  const std::string& text() const { return text_; }

 private:
  std::string Release(size_t bytes);

  const std::vector<std::string>& stop_strings_;
  std::string held_;
  std::string text_;
  bool stopped_ = false;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_RUN_GENERATE_H_
