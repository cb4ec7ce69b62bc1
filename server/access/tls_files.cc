#include "server/access/tls_files.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/stat.h>

#include <ctime>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/base/check.h"
#include "server/common/text_file.h"

namespace qk {
namespace {

using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using PrivateKey = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;

absl::Status Bad(const char* key, const std::string& file,
                 absl::string_view problem) {
  return absl::InvalidArgumentError(
      absl::StrCat("tls.", key, ": ", file, ": ", problem));
}

absl::StatusOr<std::string> Read(const char* key, const std::string& file,
                                 mode_t* mode = nullptr) {
  return ReadTextFile(absl::StrCat("tls.", key), file, mode);
}

Bio OpenPem(const std::string& pem) {
  return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())),
             BIO_free);
}

Certificate FirstCertificate(const std::string& pem) {
  const Bio bio = OpenPem(pem);
  Certificate out(bio == nullptr
                      ? nullptr
                      : PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr),
                  X509_free);
  ERR_clear_error();
  return out;
}

// Rejects keys with a password, for which OpenSSL would ask on the terminal.
PrivateKey ReadKey(const std::string& pem) {
  const Bio bio = OpenPem(pem);
  const auto no_password = [](char*, int, int, void*) { return -1; };
  PrivateKey out(bio == nullptr ? nullptr
                                : PEM_read_bio_PrivateKey(bio.get(), nullptr,
                                                          no_password, nullptr),
                 EVP_PKEY_free);
  ERR_clear_error();
  return out;
}

// Returns nullopt for a time that is malformed, which a certificate may hold.
std::optional<absl::Time> ToTime(const ASN1_TIME* time) {
  std::tm tm = {};
  const bool valid = ASN1_TIME_to_tm(time, &tm) == 1;
  ERR_clear_error();
  if (!valid) return std::nullopt;
  return absl::FromTM(tm, absl::UTCTimeZone());
}

absl::Status CheckKeyMode(const std::string& file, mode_t mode) {
  if ((mode & (S_IROTH | S_IWOTH)) == 0) return absl::OkStatus();
  return Bad("key_file", file,
             absl::StrFormat("must be neither world-readable nor "
                             "world-writable, got mode %04o; chmod o-rw it",
                             mode & 07777));
}

}  // namespace

std::vector<std::string> TlsOptions::Files() const {
  std::vector<std::string> files;
  for (const std::string& file : {certificate_file, key_file, client_ca_file}) {
    if (!file.empty()) files.push_back(file);
  }
  return files;
}

absl::StatusOr<TlsMaterial> ReadTlsFiles(const TlsOptions& options) {
  TlsMaterial out;
  QK_ASSIGN_OR_RETURN(out.certificate,
                      Read("certificate_file", options.certificate_file));
  const Certificate certificate = FirstCertificate(out.certificate);
  if (certificate == nullptr) {
    return Bad("certificate_file", options.certificate_file,
               "has no PEM certificate");
  }
  mode_t mode = 0;
  QK_ASSIGN_OR_RETURN(out.key, Read("key_file", options.key_file, &mode));
  QK_RETURN_IF_ERROR(CheckKeyMode(options.key_file, mode));
  const PrivateKey key = ReadKey(out.key);
  if (key == nullptr) {
    return Bad("key_file", options.key_file,
               "has no PEM private key that opens without a password");
  }
  const bool fits = X509_check_private_key(certificate.get(), key.get()) == 1;
  ERR_clear_error();
  if (!fits) {
    return Bad("key_file", options.key_file,
               absl::StrCat("does not match the certificate in ",
                            options.certificate_file));
  }
  if (options.requires_client_certificate()) {
    QK_ASSIGN_OR_RETURN(out.client_ca,
                        Read("client_ca_file", options.client_ca_file));
    if (FirstCertificate(out.client_ca) == nullptr) {
      return Bad("client_ca_file", options.client_ca_file,
                 "has no PEM certificate");
    }
  }
  const auto not_before = ToTime(X509_get0_notBefore(certificate.get()));
  const auto not_after = ToTime(X509_get0_notAfter(certificate.get()));
  if (!not_before.has_value() || !not_after.has_value()) {
    return Bad("certificate_file", options.certificate_file,
               "has a certificate whose times are malformed");
  }
  out.not_before = *not_before;
  out.not_after = *not_after;
  return out;
}

}  // namespace qk
