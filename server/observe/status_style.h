// The style sheet of the status page. deploy/prometheus/consoles has the same
// colours.
#ifndef QKSCOPE_SERVER_OBSERVE_STATUS_STYLE_H_
#define QKSCOPE_SERVER_OBSERVE_STATUS_STYLE_H_

namespace qk {

inline constexpr char kCssContentType[] = "text/css; charset=utf-8";
extern const char kStatusStyle[];

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_STATUS_STYLE_H_
