// CRC-32C (Castagnoli, RFC 3720 appendix B.4): the checksum of payloads on the
// wire and in manifests.
#ifndef QKSCOPE_ENGINE_BASE_CRC32C_H_
#define QKSCOPE_ENGINE_BASE_CRC32C_H_

#include <cstddef>
#include <cstdint>

namespace qk {

// Extends `crc`, the checksum of the data so far, by `data`; start with crc =
// 0.
uint32_t ExtendCrc32c(uint32_t crc, const void* data, size_t bytes);

inline uint32_t Crc32c(const void* data, size_t bytes) {
  return ExtendCrc32c(0, data, bytes);
}

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_CRC32C_H_
