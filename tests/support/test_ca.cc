#include "tests/support/test_ca.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <cstdlib>

namespace guildlite {
namespace {

// Broken test support ends the tests, whose answers would mean nothing.
void Must(bool ok) {
  if (ok) return;
  std::fprintf(stderr, "TestCa: OpenSSL refused\n");
  std::abort();
}

std::shared_ptr<EVP_PKEY> NewKey() {
  std::shared_ptr<EVP_PKEY> key(EVP_EC_gen("P-256"), EVP_PKEY_free);
  Must(key != nullptr);
  return key;
}

void Extend(X509* certificate, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value);
  Must(extension && X509_add_ext(certificate, extension, -1) == 1);
  X509_EXTENSION_free(extension);
}

// Valid for a day, unsigned. `issuer` null: itself.
std::shared_ptr<X509> NewCertificate(const char* name, EVP_PKEY* key, X509* issuer) {
  std::shared_ptr<X509> certificate(X509_new(), X509_free);
  X509* const x = certificate.get();
  Must(x && X509_set_version(x, X509_VERSION_3) == 1);
  Must(ASN1_INTEGER_set(X509_get_serialNumber(x), issuer ? 2 : 1) == 1);
  Must(X509_gmtime_adj(X509_getm_notBefore(x), -3600) != nullptr);
  Must(X509_gmtime_adj(X509_getm_notAfter(x), 24 * 3600) != nullptr);
  X509_NAME* const subject = X509_get_subject_name(x);
  Must(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                                  reinterpret_cast<const unsigned char*>(name), -1, -1, 0) == 1);
  Must(X509_set_issuer_name(x, issuer ? X509_get_subject_name(issuer) : subject) == 1);
  Must(X509_set_pubkey(x, key) == 1);
  return certificate;
}

}  // namespace

TestCa::TestCa(const std::string& name)
    : key_(NewKey()), certificate_(NewCertificate(name.c_str(), key_.get(), nullptr)) {
  Extend(certificate_.get(), certificate_.get(), NID_basic_constraints, "critical,CA:TRUE");
  Must(X509_sign(certificate_.get(), key_.get(), EVP_sha256()) > 0);
}

std::string TestCa::Pem(const X509* certificate) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> text(BIO_new(BIO_s_mem()), BIO_free);
  Must(PEM_write_bio_X509(text.get(), certificate) == 1);
  char* data = nullptr;
  const long size = BIO_get_mem_data(text.get(), &data);
  return std::string(data, static_cast<size_t>(size));
}

std::shared_ptr<SSL_CTX> TestCa::ServerContext(const std::string& subject_alt_name) {
  const auto key = NewKey();
  const auto certificate = NewCertificate("Test server", key.get(), certificate_.get());
  Extend(certificate.get(), certificate_.get(), NID_subject_alt_name, subject_alt_name.c_str());
  Must(X509_sign(certificate.get(), key_.get(), EVP_sha256()) > 0);
  std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  Must(context && SSL_CTX_use_certificate(context.get(), certificate.get()) == 1 &&
       SSL_CTX_use_PrivateKey(context.get(), key.get()) == 1);
  return context;
}

}  // namespace guildlite
