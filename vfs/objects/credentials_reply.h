// How an HTTP source of credentials is asked, and what its refusals mean: one reading for STS, ECS,
// EKS and EC2.
#pragma once

#include <string>
#include <string_view>

#include "guildlite/status.h"
#include "vfs/objects/http_client.h"

namespace guildlite {

// Sends with the bounds of such a request. No answer is kStoreUnreachable, retryable (asking
// changes nothing, so its outcome does not matter); kTlsNoCa and kBadUrl stay what they are.
Result<HttpResponse> Ask(HttpClient& http, HttpRequest request, const std::string& doing);

// An answer that is no 200: kStoreThrottled and kStoreUnreachable, retryable, for 429 and 5xx;
// kStoreDenied for all else. `code` and `message` are the server's words, "" = none; they are left
// out where they repeat `secret`.
Status Refusal(const HttpResponse& response, const std::string& doing, std::string_view code,
               std::string_view message, std::string_view secret);

// A token's file: its content without the white space at its end. kStoreDenied: not readable,
// empty, or no token (it would break the header it is put into).
Result<std::string> ReadSecretFile(const std::string& path);

}  // namespace guildlite
