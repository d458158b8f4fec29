// CurlClient: HTTP/1.1 by libcurl, over connections that are kept and shared by all databases of
// the process.
//
//   1. At most kConnectionsMax requests run, and as many connections are kept; one more waits for
//      its turn, within its own timeout.
//   2. Whether the server may have acted on a request is decided by whether sending began: libcurl
//      says so before the first byte, after name, connection, proxy and TLS.
//   3. What is not a GET or HEAD is sent once. libcurl would repeat it over a fresh connection when
//      a kept one ended without an answer, and the repetition's "exists already" would be believed
//      to be the answer to the only attempt.
//   4. TLS is always verified.
//   5. After CancelAt() every request ends at that moment, even one whose name lookup hangs (its
//      thread is left behind), and later ones fail at once.
//   6. A forked child has connections of its own: the parent's are neither used nor closed.
//   7. Nothing of the request but method, scheme, host and port gets into a message: paths, queries
//      and headers may hold secrets.
//
// It follows no redirects, keeps no cookies and asks for no compression.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "guildlite/clock.h"
#include "guildlite/options.h"
#include "guildlite/status.h"
#include "vfs/objects/http_client.h"

namespace guildlite {

class CurlClient : public HttpClient {
 public:
  // A read-ahead's (S3Store::kGetsAtOnce) and some more, so that what is shipped meanwhile need not
  // wait for its turn.
  static constexpr size_t kConnectionsMax = 40;
  // For name, TCP, proxy and TLS together; not more than the request's own timeout.
  static constexpr int64_t kConnectTimeoutMs = 10000;
  // Where distributions keep the machine's certificates.
  static const std::vector<std::string> kCaPlaces;

  // Reads from `environment`, once, what other programs read too:
  //   http_proxy, https_proxy, all_proxy, no_proxy and their upper-case forms, as curl does;
  //   SSL_CERT_FILE or else AWS_CA_BUNDLE, in place of the first of `ca_places` that is there;
  //   NODE_EXTRA_CA_CERTS, besides them.
  // Initializes libcurl and OpenSSL, once a process, so that an exit handler registered afterwards
  // runs while they work. `clock` must outlive the client.
  CurlClient(Clock& clock, const Environment& environment, std::string user_agent,
             std::vector<std::string> ca_places = kCaPlaces);
  // REQUIRES: no Send under way.
  ~CurlClient() override;

  Result<HttpResponse> Send(const HttpRequest& request) override;

  // The program is closing: every request ends at this time of Clock::MonotonicMs() at the latest.
  // Of several calls the earliest time counts.
  void CancelAt(int64_t monotonic_ms);

 private:
  struct Slot;
  struct Pool;
  struct Transfer;
  Pool& OwnPool();
  Result<Slot*> Take(Pool& pool, const std::string& origin, int64_t deadline_ms);
  Result<HttpResponse> Perform(Pool& pool, Slot& slot, const HttpRequest& request,
                               const std::string& doing, int64_t timeout_ms);
  Status Trust(Pool& pool);

  Clock& clock_;
  const std::string user_agent_;
  const std::string http_proxy_, https_proxy_, no_proxy_;  // "" = none
  const std::string ca_variable_, ca_file_;                // "" = search ca_places_
  const std::string ca_extra_file_;                        // "" = none
  const std::vector<std::string> ca_places_;
  std::atomic<int64_t> cancel_at_ms_;
  std::atomic<Pool*> pool_;  // of this process, or the parent's
};

// Of the libraries linked in: "OpenSSL 3.0.19, curl 8.14.1".
std::string HttpLibraryVersions();

}  // namespace guildlite
