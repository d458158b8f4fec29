// HttpClient: one HTTP request, one answer. Everything that speaks HTTP (the S3 store, the sources
// of credentials) speaks through it, so that tests put a scripted one in its place.
//
// An answer of any status code is an answer; a Status means there was none:
//   kStoreUnreachable  nothing was sent that the server could act on (name, connection, TLS)
//   kOutcomeUnknown    the request may have been acted on: the connection ended or the time was
//                      over after it began to be sent
//   kTlsNoCa           no CA certificates were found to check the server with
//   kBadUrl            the url is no http(s) url
// Retries are not its business (retrying_store.h), neither are redirects.
//
// Thread-safe: any method from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "guildlite/object_store.h"
#include "guildlite/status.h"

namespace guildlite {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method = "GET";
  std::string url;
  HttpHeaders headers;         // sent as they are; Host and Content-Length are the client's
  std::string_view body;       // must live until Send returns
  int64_t timeout_ms = 30000;  // for the whole of it
  uint64_t body_bytes_max = uint64_t{1} << 31;  // a longer answer is kStoreUnreachable
  bool direct = false;  // through no proxy, whatever is configured: for endpoints on this machine
};

struct HttpResponse {
  int status = 0;
  HttpHeaders headers;  // names in lower case
  Bytes body;
  // The first header of this lower-case name; "" when there is none.
  std::string_view Header(std::string_view name) const {
    for (const auto& [key, value] : headers) {
      if (key == name) return value;
    }
    return {};
  }
};

class HttpClient {
 public:
  virtual ~HttpClient() = default;
  virtual Result<HttpResponse> Send(const HttpRequest& request) = 0;
};

}  // namespace guildlite
