// Whether a store's conditional puts are what the log rests on: one winner, whoever comes at once.
//
// Half of the servers that speak S3 took If-Match and If-None-Match for decoration until lately,
// and some look at them, but not as one step with the put: they let all of many simultaneous
// creates win. Neither shows in use, until two writers meet. So the store is asked, with objects of
// our own under probe/, before the first put whose condition matters:
//
//   1. one after the other: create, create again, read, replace, replace by the version gone,
//   replace
//      what is not there, read, read what is not there, delete
//   2. `rounds` times: `parallel` creates of one key at once, then `parallel` replacements of one
//      version at once. Of each exactly one may win, and what it put must be what is there.
//
// The first round opens the connections, so that the later ones arrive together. Finding a race
// needs luck; what is called safe here may still be a store with a small window. What is called
// unsafe is proven to be.
//
// AWS's own endpoints are not asked (ProbedStore's caller decides): it documents that these are
// atomic (docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html).
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "guildlite/clock.h"
#include "guildlite/object_store.h"

namespace guildlite {

struct StoreVerdict {
  std::string unsafe;       // what was seen; "" = safe
  bool bare_etags = false;  // If-Match must come without quotes
};

struct ProbeSettings {
  size_t parallel = 16;
  int rounds = 3;
};

// An error means that there is no verdict: the store was not reached, or refused us. What was put
// is deleted, whatever came out; and what a probe left here whose process was killed a day ago.
// `store` should be patient with 409 and 503 (RetryingStore).
Result<StoreVerdict> ProbeStore(ObjectStore& store, Clock& clock, Random& random,
                                ProbeSettings settings = {});

// The verdicts of a process, by place (endpoint and bucket). Thread-safe; a second caller for a
// place waits for the first one's probe, whose requests are bounded.
class StoreVerdicts {
 public:
  Result<StoreVerdict> Of(const std::string& place,
                          const std::function<Result<StoreVerdict>()>& probe);

 private:
  struct Place {
    std::mutex probing;  // held over the probe: that is what the others wait for
    std::optional<StoreVerdict> verdict;
  };
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Place>> places_;  // guarded by mutex_
};

// A store whose conditional puts wait for a verdict, and are STORE_UNSAFE if it is a bad one.
// Readers never ask.
class ProbedStore final : public ObjectStore {
 public:
  ProbedStore(std::unique_ptr<ObjectStore> base,
              std::function<Result<StoreVerdict>(ObjectStore& base)> verdict)
      : base_(std::move(base)), verdict_(std::move(verdict)) {}

  Result<std::string> Put(std::string_view key, std::string_view bytes,
                          const PutCondition& condition) override;
  Result<StoredObject> Get(std::string_view key,
                           std::optional<ByteRange> range = std::nullopt) override {
    return base_->Get(key, range);
  }
  Result<std::vector<ListEntry>> List(std::string_view prefix, std::string_view start_after,
                                      size_t limit) override {
    return base_->List(prefix, start_after, limit);
  }
  Status Delete(std::string_view key) override { return base_->Delete(key); }
  Status DeleteAll(std::span<const std::string> keys) override { return base_->DeleteAll(keys); }
  size_t gets_at_once() const override { return base_->gets_at_once(); }
  std::string Describe() const override { return base_->Describe(); }

 private:
  const std::unique_ptr<ObjectStore> base_;
  const std::function<Result<StoreVerdict>(ObjectStore& base)> verdict_;
  std::atomic<bool> safe_{false};
};

}  // namespace guildlite
