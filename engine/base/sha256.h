// SHA-256 (OpenSSL's), for weights, tokenizers and manifests.
#ifndef QKSCOPE_ENGINE_BASE_SHA256_H_
#define QKSCOPE_ENGINE_BASE_SHA256_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"

struct evp_md_ctx_st;

namespace qk {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void Update(const void* data, size_t bytes);
  // The digest of all data so far as 64 lower-case hex digits. Call it once.
  std::string FinishHex();

 private:
  evp_md_ctx_st* context_;
};

// Returns the digest of the bytes, as FinishHex does.
std::string Sha256Hex(absl::string_view bytes);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_SHA256_H_
