// Text for HTML pages.
#ifndef QKSCOPE_SERVER_OBSERVE_HTML_H_
#define QKSCOPE_SERVER_OBSERVE_HTML_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace qk {

inline constexpr char kHtmlContentType[] = "text/html; charset=utf-8";

// `text` as the content of an element or of a quoted attribute. What is not
// UTF-8, and characters that a viewer may act on (IsControlOrFormat), become
// U+FFFD. Text over `most` characters is cut off and ends in an ellipsis.
std::string HtmlText(absl::string_view text, size_t most = 200);

// "12,345,678".
std::string WithCommas(int64_t count);

// The two largest units: "3 d 4 h", "5 min 12 s", "1.25 s", "12 ms".
std::string ShortDuration(absl::Duration duration);

// "37 %", "0.4 %".
std::string Percent(double part);

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_HTML_H_
