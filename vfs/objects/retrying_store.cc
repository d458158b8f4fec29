#include "vfs/objects/retrying_store.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <utility>

namespace guildlite {
namespace {

bool MayHelp(const Status& status) {
  return status.retryable() || status.tag() == Tag::kOutcomeUnknown;
}

Status Unknown(const Status& status) {
  return Status(Tag::kOutcomeUnknown, status.message(), true);
}

}  // namespace

// The patience of one call: what is left of it is shared by its puts and the get that reconciles
// them.
class RetryingStore::Attempts {
 public:
  explicit Attempts(const RetryingStore& store)
      : store_(store),
        give_up_ms_(store.clock_.MonotonicMs() + store.settings_.deadline_ms),
        backoff_ms_(store.settings_.first_backoff_ms) {}

  // Waits before the next attempt; false when there shall be none.
  bool WaitForNext() {
    const int64_t left_ms = give_up_ms_ - store_.clock_.MonotonicMs();
    if (left_ms <= 0) return false;
    const auto choices = static_cast<uint64_t>(backoff_ms_) + 1;
    const auto wait_ms = static_cast<int64_t>(store_.random_.Next64() % choices);
    backoff_ms_ = std::min(backoff_ms_ * 2, store_.settings_.backoff_ms_max);
    return store_.settings_.wait(std::min(wait_ms, left_ms)) &&
           store_.clock_.MonotonicMs() < give_up_ms_;
  }

 private:
  const RetryingStore& store_;
  const int64_t give_up_ms_;
  int64_t backoff_ms_;
};

RetryingStore::RetryingStore(std::unique_ptr<ObjectStore> base, Clock& clock, Random& random,
                             RetrySettings settings)
    : base_(std::move(base)), clock_(clock), random_(random), settings_([&] {
        if (!settings.wait) {
          settings.wait = [&clock](int64_t ms) {
            std::mutex mutex;
            std::condition_variable never;
            std::unique_lock lock(mutex);
            clock.WaitFor(never, lock, ms);
            return true;
          };
        }
        return std::move(settings);
      }()) {}

Result<std::string> RetryingStore::Put(std::string_view key, std::string_view bytes,
                                       const PutCondition& condition) {
  Attempts attempts(*this);
  bool failed_before = false;
  bool unknown = false;
  for (;;) {
    auto put = base_->Put(key, bytes, condition);
    if (put.ok()) return put;
    const Tag tag = put.status().tag();
    if (failed_before && (tag == Tag::kAlreadyExists || tag == Tag::kPrecondition)) {
      return Reconcile(key, bytes, condition, put.status(), attempts);
    }
    if (tag == Tag::kBadArgument) return put;  // true of every attempt
    if (!MayHelp(put.status())) return failed_before ? Unknown(put.status()) : put.status();
    failed_before = true;
    unknown = unknown || tag == Tag::kOutcomeUnknown;
    if (!attempts.WaitForNext()) return unknown ? Unknown(put.status()) : put.status();
  }
}

Result<std::string> RetryingStore::Reconcile(std::string_view key, std::string_view bytes,
                                             const PutCondition& condition, const Status& answer,
                                             Attempts& attempts) {
  auto there = GetWithin(key, std::nullopt, attempts);
  if (!there.ok()) return Unknown(there.status());
  if (there->bytes == bytes) return std::move(there->version);
  return condition.kind == PutCondition::Kind::kCreate ? answer : Unknown(answer);
}

Result<StoredObject> RetryingStore::Get(std::string_view key, std::optional<ByteRange> range) {
  Attempts attempts(*this);
  return GetWithin(key, range, attempts);
}

Result<StoredObject> RetryingStore::GetWithin(std::string_view key, std::optional<ByteRange> range,
                                              Attempts& attempts) {
  for (;;) {
    auto object = base_->Get(key, range);
    if (object.ok() || !MayHelp(object.status()) || !attempts.WaitForNext()) return object;
  }
}

Result<std::vector<ListEntry>> RetryingStore::List(std::string_view prefix,
                                                   std::string_view start_after, size_t limit) {
  Attempts attempts(*this);
  for (;;) {
    auto entries = base_->List(prefix, start_after, limit);
    if (entries.ok() || !MayHelp(entries.status()) || !attempts.WaitForNext()) return entries;
  }
}

Status RetryingStore::Delete(std::string_view key) {
  Attempts attempts(*this);
  for (;;) {
    const Status status = base_->Delete(key);
    if (status.ok() || !MayHelp(status) || !attempts.WaitForNext()) return status;
  }
}

Status RetryingStore::DeleteAll(std::span<const std::string> keys) {
  Attempts attempts(*this);
  for (;;) {
    const Status status = base_->DeleteAll(keys);
    if (status.ok() || !MayHelp(status) || !attempts.WaitForNext()) return status;
  }
}

}  // namespace guildlite
