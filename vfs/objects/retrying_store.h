// An ObjectStore that asks again: exponential backoff with full jitter, until a deadline.
//
// "Full jitter" (Marc Brooker, AWS Architecture Blog, 2015): each wait is uniform in 0 .. the
// backoff, so that many databases that lost one store do not come back in step.
//
// Get, List and Delete are asked again as they are. A Put, whose earlier attempt may have been done
// without our hearing of it, can collide with itself:
//
//   answer to an attempt          first attempt      after an attempt that failed
//   ok                            ok                 ok
//   kAlreadyExists, kPrecondition returned           GET; the bytes there are
//                                                      ours:      ok, with their version
//                                                      others':   kCreate: kAlreadyExists
//                                                                 kMatch:  kOutcomeUnknown (1)
//                                                      missing:   kCreate: kOutcomeUnknown (2)
//                                                                 kMatch:  kOutcomeUnknown (1)
//                                                      no answer: kOutcomeUnknown
//   kBadArgument                  returned           returned (true of every attempt)
//   kOutcomeUnknown, retryable    wait, try again    wait, try again
//   any other                     returned           kOutcomeUnknown
//   the deadline                  -                  kOutcomeUnknown if any attempt said so, else
//                                                    the last answer
//
//   (1) Ours may have been there and been replaced by the next swap; manifest.h settles that.
//   (2) Ours may have been there and been deleted.
//
// Equal bytes are ours because whoever puts under a condition makes its bytes unique: a log object
// names its slot and epoch, and an epoch has one session (a clone of the whole machine puts equal
// bytes only for equal transactions); the manifest has its nonce. A failed attempt counts as
// perhaps done whatever its tag says: stores answer 500 and 503 after the fact, too.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "guildlite/clock.h"
#include "guildlite/object_store.h"

namespace guildlite {

struct RetrySettings {
  int64_t deadline_ms = 30000;  // from the call's start; no attempt begins after it
  int64_t first_backoff_ms = 100;
  int64_t backoff_ms_max = 5000;
  // Waits; false = give up now (the program is closing). Default: on the clock, never gives up.
  std::function<bool(int64_t ms)> wait;
};

class RetryingStore : public ObjectStore {
 public:
  RetryingStore(std::unique_ptr<ObjectStore> base, Clock& clock, Random& random,
                RetrySettings settings = {});

  Result<std::string> Put(std::string_view key, std::string_view bytes,
                          const PutCondition& condition) override;
  Result<StoredObject> Get(std::string_view key,
                           std::optional<ByteRange> range = std::nullopt) override;
  Result<std::vector<ListEntry>> List(std::string_view prefix, std::string_view start_after,
                                      size_t limit) override;
  Status Delete(std::string_view key) override;
  Status DeleteAll(std::span<const std::string> keys) override;
  size_t gets_at_once() const override { return base_->gets_at_once(); }
  std::string Describe() const override { return base_->Describe(); }

 private:
  class Attempts;
  Result<std::string> Reconcile(std::string_view key, std::string_view bytes,
                                const PutCondition& condition, const Status& answer,
                                Attempts& attempts);
  Result<StoredObject> GetWithin(std::string_view key, std::optional<ByteRange> range,
                                 Attempts& attempts);

  const std::unique_ptr<ObjectStore> base_;
  Clock& clock_;
  Random& random_;
  const RetrySettings settings_;
};

}  // namespace guildlite
