// CutOffStore: an ObjectStore that can be given up. After CutOff() every call ends in an error,
// also one that is still waiting for its answer and gets it later: whoever made it goes on as after
// a store that failed, which changes nothing, however late.
//
// It does not make a call return: a thread inside the other store stays there until that answers.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "guildlite/object_store.h"
#include "vfs/base/task.h"

namespace guildlite {

class CutOffStore final : public ObjectStore {
 public:
  explicit CutOffStore(std::unique_ptr<ObjectStore> store) : store_(std::move(store)) {}

  void CutOff() { cut_.store(true); }
  // How many Steps (vfs/base/task.h) are inside the other store, each once, whatever number of
  // calls it has there. Threads of the application do not count: one of them is no sign that a Step
  // has nothing left to do outside.
  size_t waiting() const {
    const std::lock_guard lock(mutex_);
    return inside_.size();
  }

  Result<std::string> Put(std::string_view key, std::string_view bytes,
                          const PutCondition& condition) override {
    return Call(Tag::kOutcomeUnknown, [&] { return store_->Put(key, bytes, condition); });
  }
  Result<StoredObject> Get(std::string_view key, std::optional<ByteRange> range) override {
    return Call(Tag::kStoreUnreachable, [&] { return store_->Get(key, range); });
  }
  Result<std::vector<ListEntry>> List(std::string_view prefix, std::string_view start_after,
                                      size_t limit) override {
    return Call(Tag::kStoreUnreachable, [&] { return store_->List(prefix, start_after, limit); });
  }
  Status Delete(std::string_view key) override {
    return Call(Tag::kOutcomeUnknown, [&] { return store_->Delete(key); });
  }
  Status DeleteAll(std::span<const std::string> keys) override {
    return Call(Tag::kOutcomeUnknown, [&] { return store_->DeleteAll(keys); });
  }
  size_t gets_at_once() const override { return store_->gets_at_once(); }
  std::string Describe() const override { return store_->Describe(); }

 private:
  template <class Ask>
  auto Call(Tag tag, Ask ask) -> decltype(ask()) {
    const auto given_up = [&] {
      return Status(tag, store_->Describe() + " was given up: the database is closed", true);
    };
    if (cut_.load()) return given_up();
    const Task* const step = WorkerPool::CurrentStep();
    const WorkerPool::Waiting thread_is_free;
    Enter(step);
    auto answer = ask();
    Leave(step);
    if (cut_.load()) return given_up();
    return answer;
  }

  void Enter(const Task* step) {
    if (!step) return;
    const std::lock_guard lock(mutex_);
    ++inside_[step];
  }
  void Leave(const Task* step) {
    if (!step) return;
    const std::lock_guard lock(mutex_);
    const auto calls = inside_.find(step);
    if (--calls->second == 0) inside_.erase(calls);
  }

  const std::unique_ptr<ObjectStore> store_;
  std::atomic<bool> cut_{false};
  mutable std::mutex mutex_;
  std::map<const Task*, size_t> inside_;  // guarded by mutex_: calls under way of each Step
};

}  // namespace guildlite
