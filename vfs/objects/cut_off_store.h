// CutOffStore: an ObjectStore that can be given up. After CutOff() every call ends in an error,
// also one that is still waiting for its answer and gets it later: whoever made it goes on as after
// a store that failed, which changes nothing, however late.
//
// It does not make a call return: a thread inside the other store stays there until that answers.
#pragma once

#include <atomic>
#include <memory>
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
  // How many Steps (vfs/base/task.h) are inside the other store. Threads of the application do not
  // count: one of them is no sign that a Step has nothing left to do outside.
  size_t waiting() const { return waiting_.load(); }

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
  std::string Describe() const override { return store_->Describe(); }

 private:
  template <class Ask>
  auto Call(Tag tag, Ask ask) -> decltype(ask()) {
    const auto given_up = [&] {
      return Status(tag, store_->Describe() + " was given up: the database is closed", true);
    };
    if (cut_.load()) return given_up();
    const size_t step = WorkerPool::InStep() ? 1 : 0;
    const WorkerPool::Waiting thread_is_free;
    waiting_.fetch_add(step);
    auto answer = ask();
    waiting_.fetch_sub(step);
    if (cut_.load()) return given_up();
    return answer;
  }

  const std::unique_ptr<ObjectStore> store_;
  std::atomic<bool> cut_{false};
  std::atomic<size_t> waiting_{0};
};

}  // namespace guildlite
