// An ObjectStore that goes wrong as told, in front of one that does not.
//
//   FaultStore store(memory);
//   store.Inject(FaultStore::kPut, 3, Fault::kLoseReply);  // the third put from now
//   store.OnCall([&](const FaultStore::Call& call) { ... return Fault::kNone; });  // or by script
//
// OnCall's function runs before the call and outside of every lock, so it may also do what others
// do in the meantime (swap the manifest, delete a slot, Advance() a clock): that is how delays are
// made.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "guildlite/object_store.h"

namespace guildlite {

enum class Fault {
  kNone,
  kFail,       // not done: STORE_UNREACHABLE, retryable
  kDeny,       // not done: STORE_DENIED, not retryable
  kDrop,       // not done, but the caller cannot know: OUTCOME_UNKNOWN
  kLoseReply,  // done, but the caller cannot know: OUTCOME_UNKNOWN
  kHold,       // as kDrop; a Put or Delete is done by DeliverHeld()
};

class FaultStore : public ObjectStore {
 public:
  enum Kind { kPut, kGet, kList, kDelete, kAny };
  struct Call {
    Kind kind;
    std::string key;      // List: the prefix
    uint64_t number = 0;  // of this kind, from 1
  };

  explicit FaultStore(ObjectStore& base) : base_(base) {}

  // The n-th call of `kind` from now (1 = the next), once.
  void Inject(Kind kind, uint64_t n, Fault fault);
  // Every call, until kNone is set.
  void SetOutage(Fault fault);
  // Asked first; kNone leaves it to the other two.
  void OnCall(std::function<Fault(const Call&)> hook);
  // What gets_at_once() says from now on: 1 keeps a reader on its own thread, and its calls in
  // order.
  void set_gets_at_once(size_t n) { gets_at_once_ = n; }
  // Lets the requests held back arrive now, in order; their answers go nowhere.
  void DeliverHeld();
  size_t held() const;
  // Calls made, including those that failed.
  uint64_t calls(Kind kind) const;

  Result<std::string> Put(std::string_view key, std::string_view bytes,
                          const PutCondition& condition) override;
  Result<StoredObject> Get(std::string_view key,
                           std::optional<ByteRange> range = std::nullopt) override;
  Result<std::vector<ListEntry>> List(std::string_view prefix, std::string_view start_after,
                                      size_t limit) override;
  Status Delete(std::string_view key) override;
  size_t gets_at_once() const override { return gets_at_once_; }
  std::string Describe() const override { return "faulty " + base_.Describe(); }

 private:
  Fault Decide(Kind kind, std::string_view key);
  void Hold(std::function<void()> request);

  ObjectStore& base_;
  std::atomic<size_t> gets_at_once_{1};
  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::map<Kind, uint64_t> calls_;
  std::map<std::pair<Kind, uint64_t>, Fault> injected_;  // by absolute number
  Fault outage_ = Fault::kNone;
  std::function<Fault(const Call&)> hook_;
  std::deque<std::function<void()>> held_;
};

}  // namespace guildlite
