// An ObjectStore that answers in rounds: a Get waits until the test lets all go that wait by then,
// so that their number is how long a reader takes, in times of the store's answer.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>

#include "guildlite/object_store.h"

namespace guildlite::testing {

class RoundStore : public ObjectStore {
 public:
  RoundStore(ObjectStore& base, size_t gets_at_once) : base_(base), gets_at_once_(gets_at_once) {}

  // Answers the next `gets`, which must come without an answer to one of them.
  void Round(size_t gets) {
    std::unique_lock lock(mutex_);
    arrived_.wait_for(lock, kPatience, [&] { return waiting_ >= gets; });
    EXPECT_EQ(waiting_, gets) << "in round " << round_ + 1;
    waiting_ = 0;
    ++round_;
    answered_.notify_all();
  }
  // Answers everything at once from now on.
  void Open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    answered_.notify_all();
  }

  Result<StoredObject> Get(std::string_view key, std::optional<ByteRange> range) override {
    {
      std::unique_lock lock(mutex_);
      ++waiting_;
      arrived_.notify_all();
      answered_.wait(lock, [this, round = round_] { return open_ || round_ != round; });
    }
    return base_.Get(key, range);
  }
  Result<std::string> Put(std::string_view key, std::string_view bytes,
                          const PutCondition& condition) override {
    return base_.Put(key, bytes, condition);
  }
  Result<std::vector<ListEntry>> List(std::string_view prefix, std::string_view start_after,
                                      size_t limit) override {
    return base_.List(prefix, start_after, limit);
  }
  Status Delete(std::string_view key) override { return base_.Delete(key); }
  size_t gets_at_once() const override { return gets_at_once_; }
  std::string Describe() const override { return base_.Describe(); }

 private:
  static constexpr std::chrono::seconds kPatience{20};

  ObjectStore& base_;
  const size_t gets_at_once_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::condition_variable answered_;
  // Guarded by mutex_.
  size_t waiting_ = 0;
  size_t round_ = 0;
  bool open_ = false;
};

}  // namespace guildlite::testing
