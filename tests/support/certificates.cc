// SPDX-License-Identifier: Apache-2.0
#include "tests/support/certificates.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <memory>

namespace limpid::testing {
namespace {

constexpr long kDay = 24 * 3600;

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

std::string TextOf(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<size_t>(size));
}

Bio ReadOnly(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

void Extend(X509* certificate, X509* issuer, int what, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  std::unique_ptr<X509_EXTENSION, Free<X509_EXTENSION_free>> extension(
      X509V3_EXT_conf_nid(nullptr, &context, what, value));
  X509_add_ext(certificate, extension.get(), -1);
}

Identity Make(const std::string& name, const Identity* authority, int days) {
  const Key key(EVP_EC_gen("P-256"));
  const Certificate certificate(X509_new());
  X509* const x = certificate.get();
  static long serial = 0;
  X509_set_version(x, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(x), ++serial);
  X509_gmtime_adj(X509_getm_notBefore(x), -2 * kDay);
  X509_gmtime_adj(X509_getm_notAfter(x), days * kDay);
  X509_set_pubkey(x, key.get());
  X509_NAME_add_entry_by_txt(
      X509_get_subject_name(x), "CN", MBSTRING_UTF8,
      reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  Certificate issuer;
  Key signer;
  if (authority != nullptr) {
    issuer.reset(PEM_read_bio_X509(ReadOnly(authority->certificate).get(),
                                   nullptr, nullptr, nullptr));
    signer.reset(PEM_read_bio_PrivateKey(ReadOnly(authority->key).get(),
                                         nullptr, nullptr, nullptr));
  }
  X509* const by = issuer ? issuer.get() : x;
  X509_set_issuer_name(x, X509_get_subject_name(by));
  if (authority == nullptr) {
    Extend(x, by, NID_basic_constraints, "critical,CA:TRUE");
    Extend(x, by, NID_key_usage, "critical,keyCertSign");
  } else {
    Extend(x, by, NID_subject_alt_name, "IP:127.0.0.1");
  }
  X509_sign(x, signer ? signer.get() : key.get(), EVP_sha256());
  const Bio certificate_text(BIO_new(BIO_s_mem()));
  const Bio key_text(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(certificate_text.get(), x);
  PEM_write_bio_PrivateKey(key_text.get(), key.get(), nullptr, nullptr, 0,
                           nullptr, nullptr);
  return {TextOf(certificate_text.get()), TextOf(key_text.get())};
}

}  // namespace

Identity MakeAuthority(const std::string& name) {
  return Make(name, nullptr, 1);
}

Identity Issue(const Identity& authority, const std::string& name, int days) {
  return Make(name, &authority, days);
}

}  // namespace limpid::testing
