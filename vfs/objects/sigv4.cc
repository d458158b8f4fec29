#include "vfs/objects/sigv4.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstdio>
#include <map>
#include <utility>
#include <vector>

#include "vfs/base/ascii.h"
#include "vfs/base/percent.h"

namespace guildlite {
namespace {

constexpr std::string_view kAlgorithm = "AWS4-HMAC-SHA256";
constexpr std::array<std::string_view, 6> kNotSigned = {"accept-encoding", "connection",
                                                        "expect",          "transfer-encoding",
                                                        "user-agent",      "x-amzn-trace-id"};

// No clean-up at exit: a thread of ours may still be hashing then.
void InitOpenSsl() { OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, nullptr); }

std::string Hmac(std::string_view key, std::string_view bytes) {
  InitOpenSsl();
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  const auto* const made =
      HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
           reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest, &size);
  assert(made != nullptr && size == 32);
  return {reinterpret_cast<const char*>(digest), size};
}

std::string Hex(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(bytes.size() * 2);
  for (const char c : bytes) {
    hex += kDigits[static_cast<unsigned char>(c) >> 4];
    hex += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return hex;
}

// Encoded once, however it was encoded before. What decodes to nothing means itself.
std::string EncodeAgain(std::string_view text, std::string_view kept = {}) {
  const auto decoded = PercentDecode(text);
  return PercentEncode(decoded ? *decoded : text, kept);
}

struct UrlParts {
  std::string_view host;  // as the HTTP client sends it: without the scheme's own port
  std::string_view path;
  std::string_view query;
};

UrlParts Split(std::string_view url) {
  UrlParts parts;
  const size_t scheme_end = url.find("://");
  assert(scheme_end != std::string_view::npos);
  const std::string_view own_port = url.substr(0, scheme_end) == "https" ? ":443" : ":80";
  url.remove_prefix(scheme_end + 3);
  url = url.substr(0, url.find('#'));
  const size_t host_end = std::min(url.find_first_of("/?"), url.size());
  parts.host = url.substr(0, host_end);
  if (parts.host.ends_with(own_port)) parts.host.remove_suffix(own_port.size());
  url.remove_prefix(host_end);
  const size_t query = url.find('?');
  parts.path = url.substr(0, query);
  if (query != std::string_view::npos) parts.query = url.substr(query + 1);
  return parts;
}

std::string CanonicalQuery(std::string_view query) {
  std::vector<std::pair<std::string, std::string>> parameters;
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view parameter = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    if (parameter.empty()) continue;
    const size_t equals = std::min(parameter.find('='), parameter.size());
    const std::string_view value = parameter.substr(std::min(equals + 1, parameter.size()));
    parameters.emplace_back(EncodeAgain(parameter.substr(0, equals)), EncodeAgain(value));
  }
  // By what is sent, not by what it means: the specification sorts after encoding.
  std::sort(parameters.begin(), parameters.end());
  std::string canonical;
  for (const auto& [name, value] : parameters) {
    canonical += (canonical.empty() ? "" : "&") + name + "=" + value;
  }
  return canonical;
}

// Without white space at the ends, a single space for each run of it within.
std::string Trimmed(std::string_view value) {
  std::string trimmed;
  for (const char c : value) {
    const bool space = c == ' ' || c == '\t' || c == '\r' || c == '\n';
    if (!space) {
      trimmed += c;
    } else if (!trimmed.empty() && trimmed.back() != ' ') {
      trimmed += ' ';
    }
  }
  if (!trimmed.empty() && trimmed.back() == ' ') trimmed.pop_back();
  return trimmed;
}

// "20130524T000000Z"
std::string Timestamp(int64_t now_ms) {
  const time_t seconds = now_ms / 1000;
  tm parts{};
  gmtime_r(&seconds, &parts);
  char text[80];
  std::snprintf(text, sizeof text, "%04d%02d%02dT%02d%02d%02dZ", parts.tm_year + 1900,
                parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
  return text;
}

}  // namespace

std::string Sha256Hex(std::string_view bytes) {
  InitOpenSsl();
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  const int made =
      EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(), /*impl=*/nullptr);
  assert(made == 1 && size == 32);
  static_cast<void>(made);
  return Hex({reinterpret_cast<const char*>(digest), size});
}

Signature Sign(const HttpRequest& request, std::string_view payload_sha256,
               const AwsCredentials& credentials, const SigningScope& scope, int64_t now_ms) {
  const UrlParts url = Split(request.url);
  const std::string timestamp = Timestamp(now_ms);
  const std::string date = timestamp.substr(0, 8);

  Signature signature;
  signature.headers.emplace_back("x-amz-date", timestamp);
  if (scope.service == "s3") {
    signature.headers.emplace_back("x-amz-content-sha256", payload_sha256);
  }
  if (!credentials.session_token.empty()) {
    signature.headers.emplace_back("x-amz-security-token", credentials.session_token);
  }

  // By lower-case name; values of one name in the order given.
  std::map<std::string, std::string> headers = {{"host", std::string(url.host)}};
  for (const HttpHeaders* const list : {&request.headers, &std::as_const(signature.headers)}) {
    for (const auto& [name, value] : *list) {
      const std::string lower = LowerCase(name);
      if (std::find(kNotSigned.begin(), kNotSigned.end(), lower) != kNotSigned.end()) continue;
      const auto [at, added] = headers.emplace(lower, Trimmed(value));
      if (!added) at->second += "," + Trimmed(value);
    }
  }
  std::string names;
  std::string lines;
  for (const auto& [name, value] : headers) {
    names += (names.empty() ? "" : ";") + name;
    lines += name + ":" + value + "\n";
  }

  const std::string path = EncodeAgain(url.path, "/");
  signature.canonical_request = request.method + "\n" + (path.empty() ? "/" : path) + "\n" +
                                CanonicalQuery(url.query) + "\n" + lines + "\n" + names + "\n" +
                                std::string(payload_sha256);
  const std::string credential_scope =
      date + "/" + scope.region + "/" + scope.service + "/aws4_request";
  signature.string_to_sign = std::string(kAlgorithm) + "\n" + timestamp + "\n" + credential_scope +
                             "\n" + Sha256Hex(signature.canonical_request);

  std::string key = "AWS4" + credentials.secret_access_key;
  for (const std::string_view part :
       {std::string_view(date), std::string_view(scope.region), std::string_view(scope.service),
        std::string_view("aws4_request")}) {
    key = Hmac(key, part);
  }
  signature.headers.emplace_back(
      "Authorization", std::string(kAlgorithm) + " Credential=" + credentials.access_key_id + "/" +
                           credential_scope + ", SignedHeaders=" + names +
                           ", Signature=" + Hex(Hmac(key, signature.string_to_sign)));
  return signature;
}

}  // namespace guildlite
