// Stores: from a url to its store, and what all stores of a process share: the connections, the
// credentials, what is known of a server, and that the program is closing.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>

#include "guildlite/clock.h"
#include "guildlite/object_store.h"
#include "guildlite/options.h"
#include "vfs/objects/credentials.h"
#include "vfs/objects/http_client.h"
#include "vfs/objects/retrying_store.h"
#include "vfs/objects/store_probe.h"

namespace guildlite {

class Stores {
 public:
  // `clock`, `random` and `http` must outlive it; it must outlive the stores.
  Stores(Clock& clock, Random& random, HttpClient& http, Environment environment);

  // How long one call to a bucket is tried (retrying_store.h). Whoever ships tries for ever, but
  // hears of trouble and lets go of its thread in between; a restore has no other patience.
  static constexpr int64_t kShippingPatienceMs = 5000;
  static constexpr int64_t kReadingPatienceMs = 30000;

  // Opens no connection and makes no file: trouble with the store shows at its first use. A
  // bucket's server, unless it is AWS's, is probed before the first put whose condition matters
  // (store_probe.h).
  Result<std::unique_ptr<ObjectStore>> Open(std::string_view url, int64_t patience_ms);

  // Where a url leads, however it is spelled: equal for two urls whose objects would be the same.
  // Asks the file system what is a symbolic link, and no server. BAD_URL.
  Result<std::string> Place(std::string_view url) const;

  // Waits that long; false at once when the program is closing.
  bool Wait(int64_t ms);
  // The program is closing: nobody waits to ask a store again beyond this Clock::MonotonicMs().
  void CancelAt(int64_t monotonic_ms);

 private:
  Result<std::unique_ptr<ObjectStore>> OpenS3(std::string_view rest, int64_t patience_ms);

  Clock& clock_;
  Random& random_;
  HttpClient& http_;
  const Environment environment_;
  CredentialsProvider credentials_;
  StoreVerdicts verdicts_;
  std::mutex mutex_;
  std::condition_variable cancelled_;
  int64_t cancel_at_ms_;  // guarded by mutex_
};

}  // namespace guildlite
