// A certificate authority of a test's own, and a server it vouches for.
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <string>

namespace guildlite {

class TestCa {
 public:
  explicit TestCa(const std::string& name = "Test CA");

  static std::string Pem(const X509* certificate);
  std::string pem() const { return Pem(certificate_.get()); }  // its own
  // What a server on 127.0.0.1 shows: a certificate for that address, or for another host's name.
  std::shared_ptr<SSL_CTX> ServerContext(const std::string& subject_alt_name = "IP:127.0.0.1");

 private:
  std::shared_ptr<EVP_PKEY> key_;
  std::shared_ptr<X509> certificate_;
};

}  // namespace guildlite
