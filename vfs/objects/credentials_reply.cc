#include "vfs/objects/credentials_reply.h"

#include <algorithm>

#include "vfs/base/file_io.h"

namespace guildlite {
namespace {

constexpr uint64_t kReplyBytesMax = 256 * 1024;

}  // namespace

Result<HttpResponse> Ask(HttpClient& http, HttpRequest request, const std::string& doing) {
  request.body_bytes_max = kReplyBytesMax;
  auto response = http.Send(request);
  if (response.ok()) return response;
  const Status& status = response.status();
  if (status.tag() == Tag::kTlsNoCa || status.tag() == Tag::kBadUrl) return status.Context(doing);
  return Status(Tag::kStoreUnreachable, doing + ": " + status.message(), /*retryable=*/true);
}

Status Refusal(const HttpResponse& response, const std::string& doing, std::string_view code,
               std::string_view message, std::string_view secret) {
  std::string words = "HTTP " + std::to_string(response.status);
  for (const std::string_view word : {code, message}) {
    if (!word.empty() && (secret.empty() || word.find(secret) == std::string_view::npos)) {
      words += ", " + std::string(word);
    }
  }
  const bool throttled = response.status == 429 || code == "Throttling";
  // STS could not reach who vouches for the token; its documentation says to ask again.
  const bool passing = response.status >= 500 || code == "IDPCommunicationError";
  const Tag tag =
      throttled ? Tag::kStoreThrottled : (passing ? Tag::kStoreUnreachable : Tag::kStoreDenied);
  return Status(tag, doing + ": " + words, throttled || passing);
}

Result<std::string> ReadSecretFile(const std::string& path) {
  auto content = ReadWholeFile(path);
  if (!content.ok()) {
    return {Tag::kStoreDenied, "the token's file cannot be used: " + content.status().message()};
  }
  while (!content->empty() && static_cast<unsigned char>(content->back()) <= ' ') {
    content->pop_back();
  }
  const bool clean = std::none_of(content->begin(), content->end(), [](char c) {
    return static_cast<unsigned char>(c) < ' ' || c == 0x7f;
  });
  if (content->empty() || !clean) {
    return {Tag::kStoreDenied, path + " holds no token"};
  }
  return content;
}

}  // namespace guildlite
