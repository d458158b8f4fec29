// An ObjectStore in a bucket of S3, or of a server that speaks like it.
//
//   1. Each call is one request, repeated only where the answer taught how to ask: the bucket's
//      region, the store's clock, or that the credentials are spent; once for each of them. Such an
//      answer is a refusal: nothing was done. All other patience is retrying_store.h's.
//   2. A version is the ETag as it came, quotes included, and goes back as it came; without them
//      once UseBareEtags() was called (store_probe.h finds out). Equal contents may have equal
//      versions: whoever swaps puts something fresh into each body (manifest.h).
//   3. kNotFound is said only when S3 itself said NoSuchKey. Any other 404 is no proof of anything:
//      it may be a proxy's, and an empty bucket is where a new history begins.
//   4. A body that is shorter than announced, another range than asked for, or not what its
//      checksum says is never returned. The SHA-256 of a put is in its signature, so that the store
//      refuses what arrived damaged, and in x-amz-checksum-sha256, so that stores that keep it give
//      it back with each get; that is one hash for both, and unlike Content-MD5 it works where MD5
//      is switched off and says something where the ETag is no MD5 (SSE-KMS).
//   5. Messages name operation, bucket, key, S3's code and request id. Never headers: they hold the
//      signature and the session token.
//
// What an answer means:
//
//   200 204 206              done
//   301 307 400 with region  repeated there, once
//   403 RequestTimeTooSkewed repeated with the store's time, once
//   400 403 ExpiredToken     repeated with new credentials, once
//   other 401 403            kStoreDenied. To a get without s3:ListBucket S3 says it for missing
//   keys 404 NoSuchKey            get: kNotFound, delete: ok, put of a version: kPrecondition 404
//   NoSuchBucket         kNoBucket 409                      another put of this key is under way:
//   kStoreThrottled, retryable 412                      kAlreadyExists, or kPrecondition 416 no
//   bytes: the range is beyond the end 429, 503 SlowDown        kStoreThrottled, retryable 501
//   kStoreUnsafe 507                      kDiskFull other 5xx                put: kOutcomeUnknown,
//   stores say it after the fact, too; others:
//                            kStoreUnreachable, retryable
//   anything else            kStoreUnreachable, with what was said
//
// One put makes one object, of at most 5 GiB: parts/ keeps them small. Multipart uploads are not
// used: their conditions are younger and rarer than those of a put.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>

#include "guildlite/clock.h"
#include "guildlite/object_store.h"
#include "vfs/objects/credentials.h"
#include "vfs/objects/http_client.h"
#include "vfs/objects/s3_url.h"
#include "vfs/objects/s3_xml.h"

namespace guildlite {

class S3Store final : public ObjectStore {
 public:
  // `url` is complete (CompleteS3Url); the others must outlive the store. Nothing is sent yet.
  S3Store(S3Url url, HttpClient& http, CredentialsProvider& credentials, Clock& clock);

  Result<std::string> Put(std::string_view key, std::string_view bytes,
                          const PutCondition& condition) override;
  Result<StoredObject> Get(std::string_view key,
                           std::optional<ByteRange> range = std::nullopt) override;
  Result<std::vector<ListEntry>> List(std::string_view prefix, std::string_view start_after,
                                      size_t limit) override;
  Status Delete(std::string_view key) override;
  // One request for each thousand; one for each key where the store does not know that request.
  Status DeleteAll(std::span<const std::string> keys) override;
  // A log of 5,000 slots is then read in seconds, and the first byte of an answer, 30 ms or more,
  // is still what they are spent on.
  static constexpr size_t kGetsAtOnce = 32;
  size_t gets_at_once() const override { return kGetsAtOnce; }
  std::string Describe() const override;

  // If-Match is sent without the ETag's quotes from now on.
  void UseBareEtags() { bare_etags_ = true; }

 private:
  struct Call;
  Result<HttpResponse> Send(const Call& call);
  bool Learn(const HttpResponse& response, unsigned* learned);
  Status Failure(const Call& call, const HttpResponse& response) const;
  Status Failure(const Call& call, const HttpResponse& response, const S3Error& error) const;
  std::string Doing(const Call& call) const;
  std::string FullKey(std::string_view key) const;
  std::string region() const;

  const S3Url url_;
  HttpClient& http_;
  CredentialsProvider& credentials_;
  Clock& clock_;
  std::atomic<bool> bare_etags_{false};
  std::atomic<bool> single_deletes_{false};  // DeleteObjects is not known here
  std::atomic<int64_t> clock_skew_ms_{0};    // the store's clock minus ours
  mutable std::mutex mutex_;
  std::string region_;  // guarded by mutex_
};

}  // namespace guildlite
