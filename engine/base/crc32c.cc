#include "engine/base/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace qk {

uint32_t ExtendCrc32c(uint32_t crc, const void* data, size_t bytes) {
  // The library takes lengths as int. It does not write to its argument,
  // although its signature is not const.
  constexpr size_t kMost = size_t{1} << 30;
  auto* at = static_cast<unsigned char*>(const_cast<void*>(data));
  while (bytes > 0) {
    const size_t part = std::min(bytes, kMost);
    crc = ~crc32_iscsi(at, static_cast<int>(part), ~crc);
    at += part;
    bytes -= part;
  }
  return crc;
}

}  // namespace qk
