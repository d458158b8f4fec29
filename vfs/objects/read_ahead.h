// ReadAhead: objects read one after the other, the next ones already under way. Many small objects
// cost the store's time to answer, each, and a reader that waits for one before it asks for the
// next pays it for all of them.
//
//   1. Answers come in the order of the questions, each as Get() would have given it, whole.
//   2. Asked for is one object, and when it is there another one; then two, and two, four, and
//      four, up to the store's gets_at_once(), and from there on one more with each answer. So who
//      does not know where the end is asks for fewer beyond it than he found before it, and of a
//      short log for hardly any.
//   3. Under way or not taken yet are at most kBytesMax, or one object.
//   4. No thread outlives it. A store that gains nothing (gets_at_once() == 1) is asked by the
//      calling thread, one object at a time; and so is any other where no thread can be had.
//
// For one thread. A question may be asked of the store any time from Ask() to Answer().
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>

#include "guildlite/object_store.h"
#include "vfs/base/task.h"

namespace guildlite {

class ReadAhead {
 public:
  enum class End { kUnknown, kKnown };  // known: every object asked for should be there

  ReadAhead(ObjectStore& store, End end);
  // Waits for what is under way; what is not is never asked.
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // Without the size of an object that much of it is read at first, and the rest by Answer():
  // hardly any log object is longer.
  static constexpr uint64_t kFirstBytes = 512 << 10;
  static constexpr uint64_t kBytesMax = 32 << 20;

  // Whether to Ask() for another object now; always, if nothing is to be answered.
  bool HasRoom(uint64_t size = kFirstBytes) const;
  void Ask(std::string key, std::optional<uint64_t> size = std::nullopt);
  // To the first question not answered yet. REQUIRES !empty().
  Result<StoredObject> Answer();
  bool empty() const { return questions_.empty(); }

 private:
  struct Question {
    std::string key;
    uint64_t size;
    std::optional<ByteRange> range;
    std::optional<Result<StoredObject>> answer;
  };

  void AskStore(Question& question, std::unique_lock<std::mutex>& lock);
  void Work();

  ObjectStore& store_;
  const size_t at_once_;
  size_t window_;        // questions of a round
  size_t room_ = 0;      // of them not asked yet
  bool second_ = false;  // round of that size
  uint64_t bytes_ = 0;   // of all questions

  std::mutex mutex_;
  std::condition_variable asked_;
  std::condition_variable answered_;
  // Guarded by mutex_; only the owner adds and removes questions, at the ends.
  std::deque<Question> questions_;
  size_t idle_ = 0;  // the last ones, which nobody has begun to ask the store
  bool ending_ = false;

  std::optional<CallThreads> threads_;  // joined first
};

}  // namespace guildlite
