// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "server/base/mapped_file.h"

namespace limpid {
namespace {

constexpr size_t kMaxFileBytes = 4 << 20;

template <auto F>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    F(object);
  }
};
using Bio = std::unique_ptr<BIO, Free<BIO_free_all>>;
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;

class Reader {
 public:
  explicit Reader(std::vector<FieldViolation>& mistakes)
      : mistakes_(mistakes) {}

  // The first certificate of a file.
  Certificate ReadCertificate(const char* field, const std::string& path) {
    Bio text = Open(field, path);
    if (text == nullptr) return nullptr;
    Certificate found(PEM_read_bio_X509(text.get(), nullptr, nullptr, nullptr));
    if (found == nullptr) {
      Wrong(field, path, "holds no certificate in PEM");
    } else if (X509_cmp_current_time(X509_get0_notAfter(found.get())) < 0) {
      Wrong(field, path, "holds a certificate that has expired");
    }
    return found;
  }

  Key ReadKey(const char* field, const std::string& path) {
    Bio text = Open(field, path);
    if (text == nullptr) return nullptr;
    // Without this a key with a pass phrase would ask the terminal for it.
    const auto no_pass_phrase = [](char*, int, int, void*) { return -1; };
    Key found(
        PEM_read_bio_PrivateKey(text.get(), nullptr, no_pass_phrase, nullptr));
    if (found == nullptr) {
      Wrong(field, path, "holds no private key in PEM without a pass phrase");
    }
    return found;
  }

  void Wrong(const char* field, const std::string& path,
             absl::string_view what) {
    mistakes_.push_back({field, absl::StrCat("\"", path, "\" ", what)});
  }

 private:
  Bio Open(const char* field, const std::string& path) {
    const absl::StatusOr<std::string> text = ReadFile(path, kMaxFileBytes);
    if (!text.ok()) {
      mistakes_.push_back({field, std::string(text.status().message())});
      return nullptr;
    }
    Bio bio(BIO_new(BIO_s_mem()));
    BIO_write(bio.get(), text->data(), static_cast<int>(text->size()));
    return bio;
  }

  std::vector<FieldViolation>& mistakes_;
};

}  // namespace

std::vector<FieldViolation> CheckTlsFiles(const TlsFiles& files) {
  std::vector<FieldViolation> mistakes;
  Reader reader(mistakes);
  const Certificate certificate =
      reader.ReadCertificate("certificate_file", files.certificate);
  const Key key = reader.ReadKey("key_file", files.key);
  if (certificate != nullptr && key != nullptr &&
      X509_check_private_key(certificate.get(), key.get()) != 1) {
    reader.Wrong("key_file", files.key,
                 absl::StrCat("does not belong to the certificate in \"",
                              files.certificate, "\""));
  }
  if (!files.client_ca.empty()) {
    reader.ReadCertificate("client_ca_file", files.client_ca);
  }
  ERR_clear_error();
  return mistakes;
}

}  // namespace limpid
