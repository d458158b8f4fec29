// An HttpClient that answers as a test's function says and keeps what it was sent; and an
// environment made of a map.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "guildlite/options.h"
#include "vfs/objects/http_client.h"

namespace guildlite {

inline Environment MapEnvironment(std::map<std::string, std::string> values) {
  return [values = std::move(values)](const std::string& name) -> std::optional<std::string> {
    const auto at = values.find(name);
    return at == values.end() ? std::nullopt : std::optional(at->second);
  };
}

class ScriptedHttp : public HttpClient {
 public:
  struct Sent {
    std::string method;
    std::string url;
    HttpHeaders headers;
    std::string body;
    int64_t timeout_ms = 0;
    bool direct = false;
  };
  using Answer = std::function<Result<HttpResponse>(const HttpRequest&)>;

  // Called outside of every lock, on the thread that sends.
  explicit ScriptedHttp(Answer answer) : answer_(std::move(answer)) {}

  Result<HttpResponse> Send(const HttpRequest& request) override {
    {
      const std::lock_guard lock(mutex_);
      sent_.push_back({request.method, request.url, request.headers, std::string(request.body),
                       request.timeout_ms, request.direct});
    }
    return answer_(request);
  }
  std::vector<Sent> sent() const {
    const std::lock_guard lock(mutex_);
    return sent_;
  }

 private:
  const Answer answer_;
  mutable std::mutex mutex_;
  std::vector<Sent> sent_;  // guarded by mutex_
};

inline HttpResponse HttpReply(int status, std::string body) {
  HttpResponse response;
  response.status = status;
  response.body = std::move(body);
  return response;
}

// Nobody can be reached, as on a machine without a network.
inline Result<HttpResponse> NoNetwork(const HttpRequest&) {
  return Status(Tag::kStoreUnreachable, "no route to host", /*retryable=*/true);
}

}  // namespace guildlite
