// Background work: a Task does a little per Step and says when it wants the next one; the
// WorkerPool owns the threads that call it. CallThreads are the only others below the shim.
//
// Invariants:
//   1. A task never runs on two threads at once, and never after Remove() returned.
//   2. A Wake() is never lost: whatever the waking thread wrote before it is seen by a Step that
//      begins afterwards. A wake during a Step makes the task run once more; any number of them,
//      once.
//   3. Waking a task that is queued, or running with a wake pending, is one atomic exchange.
//   4. An idle pool makes no wake-ups: its threads wait without a timeout, but one that waits for
//      the earliest appointment, when there is one.
//   5. An appointment is kept even while other tasks block in their Step, as long as one of
//      max_threads is free: a thread that takes work hands the watch over the appointments to
//      another.
//   7. A Step that waits for the network says so (WorkerPool::Waiting). Its thread does not count
//      then, up to max_waiting: one store that hangs does not stop the tasks of another. A thread
//      too many ends as soon as it has nothing to do.
//   6. The threads take no signal of the host's, and are not there before the first task.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "guildlite/clock.h"
#include "guildlite/status.h"

namespace guildlite {

class Task {
 public:
  // The answer of a Step that has nothing to do until somebody calls Wake().
  static constexpr int64_t kIdle = std::numeric_limits<int64_t>::max();

  Task() = default;
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;
  virtual ~Task() = default;

  // Does a little; returns when to call again, on the clock's MonotonicMs() that `now_ms` was read
  // from (now or earlier: at once, after the others that are due). Must not throw.
  virtual int64_t Step(int64_t now_ms) = 0;

 private:
  friend class WorkerPool;
  enum class Place : uint8_t { kOutside, kResting, kQueued, kRunning };

  std::atomic<bool> wake_pending_{false};
  // The rest is guarded by the pool's mutex.
  Place place_ = Place::kOutside;
  bool leaving_ = false;    // Remove() waits for the Step to end
  int64_t due_ms_ = kIdle;  // kResting: its appointment
  Task* next_ = nullptr;    // kQueued: the one behind it
};

class WorkerPool {
 public:
  WorkerPool(Clock& clock, size_t max_threads, size_t max_waiting = 0);
  ~WorkerPool();  // Stop()
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // The first Step follows at once. `task` must outlive its Remove(). LOCAL_IO when not one thread
  // can be started (a container's pid limit); the task is not added then.
  Status Add(Task* task);
  // Waits until a running Step ended. REQUIRES: not called from inside a Step of `task`. No Wake()
  // of it may be under way or follow if the task is destroyed.
  void Remove(Task* task);
  // The same, but waits no longer than that. False: the Step still runs; the task will not run
  // again, and must outlive a Remove() or RemoveWithin() that came to its end.
  bool RemoveWithin(Task* task, std::optional<int64_t> timeout_ms);
  // From any thread, also from inside a Step.
  void Wake(Task* task);
  // Waits for running Steps, then joins the threads; tasks stay added but never run again.
  // Idempotent. REQUIRES: not called from inside a Step of this pool.
  void Stop();

  // In the child after fork(2), whose copy of the pool has no threads and may have a locked mutex:
  // gives all of it up without a lock, a join or a destructor. From then on every call is a no-op
  // (Add fails).
  void ForgetThreads();

  // For the scope of a call that may take long and needs no processor. Outside of a Step a no-op.
  class Waiting {
   public:
    Waiting();
    ~Waiting();
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;
  };

  size_t thread_count() const;
  // The task in whose Step the calling thread is, of whichever pool; null outside of all.
  static const Task* CurrentStep();

 private:
  struct State;
  static void* ThreadMain(void* state);

  std::atomic<State*> state_;  // null: forgotten
};

// Threads at the side of one call, which they do not outlive. They take no signal of the host's,
// and what they do counts as done in the Step that the call is made from.
class CallThreads {
 public:
  CallThreads() = default;
  // Waits until all have returned.
  ~CallThreads();
  CallThreads(const CallThreads&) = delete;
  CallThreads& operator=(const CallThreads&) = delete;

  // False: no thread can be had. REQUIRES: one thread at a time.
  bool Start(std::function<void()> body);
  size_t size() const { return threads_.size(); }

 private:
  std::vector<pthread_t> threads_;
};

}  // namespace guildlite
