#include "engine/base/sha256.h"

#include <openssl/evp.h>

#include <utility>

#include "engine/base/check.h"

namespace qk {

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  QK_CHECK(context_ != nullptr);
  QK_CHECK(EVP_DigestInit_ex(context_, EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() { EVP_MD_CTX_free(context_); }

Sha256::Sha256(Sha256&& other) noexcept
    : context_(std::exchange(other.context_, nullptr)) {}

Sha256& Sha256::operator=(Sha256&& other) noexcept {
  std::swap(context_, other.context_);
  return *this;
}

void Sha256::Update(const void* data, size_t bytes) {
  QK_CHECK(EVP_DigestUpdate(context_, data, bytes) == 1);
}

std::string Sha256::FinishHex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  QK_CHECK(EVP_DigestFinal_ex(context_, digest, &length) == 1);
  constexpr char kHex[] = "0123456789abcdef";
  std::string hex;
  for (unsigned int i = 0; i < length; ++i) {
    hex.push_back(kHex[digest[i] >> 4]);
    hex.push_back(kHex[digest[i] & 15]);
  }
  return hex;
}

std::string Sha256Hex(absl::string_view bytes) {
  Sha256 sha256;
  sha256.Update(bytes.data(), bytes.size());
  return sha256.FinishHex();
}

}  // namespace qk
