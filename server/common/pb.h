// The short name of the namespace of the API's messages.
#ifndef QKSCOPE_SERVER_COMMON_PB_H_
#define QKSCOPE_SERVER_COMMON_PB_H_

namespace qkscope::v1 {}

namespace qk {

namespace pb = ::qkscope::v1;

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_PB_H_
