// AWS Signature Version 4 in the Authorization header, as S3 checks it.
//
//   docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
//   docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
//
//   1. A pure function: the same request, credentials, scope and time give the same headers.
//   2. The path is decoded and encoded once, S3's rule ("You do not normalize URI paths for
//   requests
//      to Amazon S3"; every other service encodes it twice and resolves dots), so it does not
//      matter which bytes the url left unencoded. '+' means itself, in the path and in the query.
//   3. Signed are Host and all headers of the request but those that proxies and the HTTP client
//      itself change: Accept-Encoding (Google's front end rewrites it), Connection, Expect,
//      Transfer-Encoding, User-Agent, X-Amzn-Trace-Id.
//
// It does not sign chunks (STREAMING-*) nor query strings (presigned urls).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "vfs/objects/http_client.h"

namespace guildlite {

// Never in a message and never in a log, the access key id excepted.
struct AwsCredentials {
  std::string access_key_id;
  std::string secret_access_key;
  std::string session_token;  // "" = none
  bool operator==(const AwsCredentials&) const = default;
};

struct SigningScope {
  std::string region;
  std::string service = "s3";  // "s3": x-amz-content-sha256 is sent and signed
};

// For requests whose body is protected otherwise (TLS) and not worth hashing.
inline constexpr std::string_view kUnsignedPayload = "UNSIGNED-PAYLOAD";
// Of no bytes.
inline constexpr std::string_view kEmptySha256 =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

// In lower-case hex.
std::string Sha256Hex(std::string_view bytes);

struct Signature {
  HttpHeaders headers;  // to be added to the request's
  // What was signed: S3 sends its own versions of both with SignatureDoesNotMatch. They hold the
  // session token.
  std::string canonical_request;
  std::string string_to_sign;
};

// REQUIRES: request.url is an absolute http(s) url, and request.headers has none of Host,
// Authorization and those added here. `payload_sha256`: Sha256Hex(body) or kUnsignedPayload.
Signature Sign(const HttpRequest& request, std::string_view payload_sha256,
               const AwsCredentials& credentials, const SigningScope& scope, int64_t now_ms);

}  // namespace guildlite
