// CredentialsProvider: the AWS credentials of this process, found where AWS's own tools find them,
// and new ones before they end.
//
//   docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html (the order)
//
//   1. The first place where something is configured decides: the environment's keys, web identity,
//      the shared files' profile, the container's endpoint, the instance's. If it does not work,
//      that is the answer; nobody else's credentials are taken instead.
//   2. Credentials are asked for again kRefreshBeforeMs before they end, or at half their life if
//      that is later. If it fails, they are used until they have ended.
//   3. What a source gave is used for kPauseMs at least, even if our clock says that it has ended:
//      the clock may be wrong, the source hears nothing of a hurry.
//   4. Nobody waits for a source while there are credentials that have not ended, but the one
//      thread that asks.
//   5. No message and no log line holds a secret.
//
// Thread-safe.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>

#include "guildlite/clock.h"
#include "guildlite/options.h"
#include "guildlite/status.h"
#include "vfs/objects/credentials_source.h"
#include "vfs/objects/http_client.h"
#include "vfs/objects/sigv4.h"

namespace guildlite {

class CredentialsProvider {
 public:
  static constexpr int64_t kRefreshBeforeMs = 5 * 60 * 1000;
  // Between two questions to a source while there is something to go on with.
  static constexpr int64_t kPauseMs = 10 * 1000;

  // Asks nobody yet. `http` and `clock` must outlive it.
  CredentialsProvider(Environment environment, HttpClient& http, Clock& clock);

  // kStoreDenied: there are none (the message names every place and why it gave none), or the place
  // that should give them refuses; kStoreUnreachable, retryable: it does not answer.
  Result<AwsCredentials> Get();
  // The store refused what Get() returned: the next one asks the source, within (3).
  void Invalidate();

 private:
  Result<FoundCredentials> Find() const;
  bool MustAsk() const;
  bool Ended() const;

  const Environment environment_;
  HttpClient& http_;
  Clock& clock_;
  std::mutex mutex_;
  std::condition_variable asked_;
  // Guarded by mutex_.
  bool asking_ = false;
  uint64_t failures_ = 0;
  Status failure_;  // the last one
  std::optional<FoundCredentials> found_;
  int64_t refresh_at_ms_ = 0;   // unix time; found_->expires_ms decides if it counts
  int64_t pause_until_ms_ = 0;  // Clock::MonotonicMs()
  bool refused_ = false;
};

// As a source: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN.
Result<FoundCredentials> CredentialsFromEnvironment(const Environment& environment);

}  // namespace guildlite
