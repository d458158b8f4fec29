// A server of S3 in this process's memory: one bucket, answering as AWS documents it, or wrong in
// the way a test asks for.
//
//   MemoryS3 s3("bucket");
//   TestHttpServer server(s3.handler());          // through sockets, or
//   DirectHttp http(s3.handler());                // an HttpClient that calls it
//
// Signatures are not checked (a real server does that in scripts/test s3), but that there is one of
// the region and the time, and that the body is the one that was signed.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "tests/support/http_server.h"
#include "vfs/objects/credentials.h"
#include "vfs/objects/http_client.h"

namespace guildlite {

// How a store differs from S3. Found in the wild, each of them.
struct S3Flaws {
  bool ignores_create = false;      // If-None-Match is not looked at
  bool ignores_match = false;       // If-Match is not looked at
  bool matches_missing = false;     // If-Match on a missing key creates it
  bool races = false;               // conditions are looked at before others' puts are done
  bool bare_etags_only = false;     // If-Match must come without quotes
  bool refuses_conditions = false;  // 501
  bool denies_missing = false;      // 403 in place of 404, as S3 without s3:ListBucket
  bool reads_stale = false;         // a get finds what was there before the last put
  bool no_ranges = false;           // Range is not looked at
  bool no_checksums = false;        // x-amz-checksum-sha256 is not kept
  bool no_delete_many = false;      // 501
  std::string keeps;                // a key that is not deleted: AccessDenied
};

class MemoryS3 {
 public:
  explicit MemoryS3(std::string bucket, S3Flaws flaws = {});

  TestHttpServer::Reply Handle(const TestHttpServer::Request& request);
  TestHttpServer::Handler handler() {
    return [this](const TestHttpServer::Request& request) { return Handle(request); };
  }

  // Requests must be signed for this region; "" = any.
  void SetRegion(std::string region);
  // How far this server's clock is from the SystemClock's.
  void SetSkewMs(int64_t ms);
  // At most so many keys in a page of a listing.
  void SetListPage(size_t keys);
  size_t objects() const;
  // The newest content, "" if there is none.
  std::string Content(const std::string& key) const;

  static TestHttpServer::Reply Error(int status, const std::string& code,
                                     const std::string& more_xml = "");

 private:
  struct Object {
    std::string bytes;
    std::string previous;
    std::string etag;
    std::string sha256;  // as it came; "" = none
  };
  struct Evaluated {  // puts whose condition was looked at
    int count = 0;
    int waiting = 0;
  };
  TestHttpServer::Reply Put(const TestHttpServer::Request& request, const std::string& key);
  TestHttpServer::Reply Get(const TestHttpServer::Request& request, const std::string& key);
  TestHttpServer::Reply DeleteMany(const TestHttpServer::Request& request);
  TestHttpServer::Reply List(const std::map<std::string, std::string>& query);
  std::optional<TestHttpServer::Reply> Unacceptable(const TestHttpServer::Request& request) const;

  const std::string bucket_;
  const S3Flaws flaws_;
  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::condition_variable evaluated_changed_;
  std::map<std::string, Evaluated> evaluated_;  // by key; if races
  std::map<std::string, Object> objects_;
  std::string region_;
  int64_t skew_ms_ = 0;
  size_t list_page_ = 1000;
};

// An HttpClient whose requests are function calls. A reply's gate and faults mean what they mean
// through a socket.
class DirectHttp : public HttpClient {
 public:
  explicit DirectHttp(TestHttpServer::Handler handler) : handler_(std::move(handler)) {}
  Result<HttpResponse> Send(const HttpRequest& request) override;

 private:
  const TestHttpServer::Handler handler_;
};

// As if configured in the environment.
class TestCredentials : public CredentialsProvider {
 public:
  explicit TestCredentials(HttpClient& http);
};

}  // namespace guildlite
