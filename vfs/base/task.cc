#include "vfs/base/task.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cassert>
#include <condition_variable>
#include <mutex>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

namespace guildlite {
namespace {

// musl's default of 128 KiB is too small for a TLS handshake, and glibc's follows `ulimit -s`,
// which may be anything. Address space, not memory.
constexpr size_t kStackBytes = 2 << 20;

// The clock adds the timeout to its own time in nanoseconds; an appointment in 300 years overflows.
constexpr int64_t kWatchMsMax = 24 * 3600 * 1000;

// What this thread runs and for whom, to catch a Remove() or Stop() that would wait for itself.
thread_local const Task* current_step = nullptr;
thread_local void* current_pool = nullptr;

// 0 or an errno value.
int StartQuietThread(void* (*body)(void*), void* argument, pthread_t* thread) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  // Blocked here and inherited: no signal can find the thread in between.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int result = pthread_create(thread, &attributes, body, argument);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  return result;
}

}  // namespace

// Waiting threads are of two kinds: at most one `watcher`, which waits for the earliest
// appointment, and the others, which wait for ever. A thread that leaves the watch while
// appointments remain gets another one into it (invariant 5).
struct WorkerPool::State {
  State(Clock& c, size_t max, size_t waiting) : clock(c), max_threads(max), max_waiting(waiting) {}

  Clock& clock;
  const size_t max_threads;
  const size_t max_waiting;

  mutable std::mutex mutex;
  // The rest is guarded by mutex.
  std::condition_variable work;      // the waiting threads but the watcher
  std::condition_variable watch;     // the watcher
  std::condition_variable step_end;  // Remove()
  std::vector<pthread_t> threads;
  std::vector<pthread_t> ended;  // to be joined; these touch nothing of this any more
  size_t idle = 0;     // waiting, or started and not there yet: will look for work by itself
  size_t in_work = 0;  // waiting in `work`
  size_t away = 0;     // in a Waiting
  bool watched = false;
  int64_t watched_until_ms = Task::kIdle;
  bool stopping = false;
  Task* first = nullptr;  // the queue, linked by Task::next_
  Task* last = nullptr;
  size_t queued = 0;
  std::set<std::pair<int64_t, Task*>> appointments;

  void Queue(Task* task) {
    task->place_ = Task::Place::kQueued;
    task->next_ = nullptr;
    (last ? last->next_ : first) = task;
    last = task;
    ++queued;
  }

  void Unqueue(Task* task) {
    Task* before = nullptr;
    for (Task* t = first; t != task; t = t->next_) before = t;
    (before ? before->next_ : first) = task->next_;
    if (last == task) last = before;
    --queued;
  }

  void CancelAppointment(Task* task) {
    if (task->due_ms_ != Task::kIdle) appointments.erase({task->due_ms_, task});
    task->due_ms_ = Task::kIdle;
  }

  void QueueDue(int64_t now_ms) {
    while (!appointments.empty() && appointments.begin()->first <= now_ms) {
      Task* const task = appointments.begin()->second;
      CancelAppointment(task);
      Queue(task);
    }
  }

  // Gets a thread to whatever has none: queued tasks, or the watch. Called after each change that
  // adds such need, and by each thread that takes work; so one signal a call is enough.
  void Call() {
    if (stopping) return;  // nobody would join a thread started now
    const bool watch_wanted = !appointments.empty() && !watched;
    const size_t wanted = queued + (watch_wanted ? 1 : 0);
    if (wanted == 0) return;
    if (wanted > idle && threads.size() < allowed() && StartThread() == 0) return;
    if (in_work > 0) {
      work.notify_one();
    } else if (watched && queued > 0) {
      watch.notify_one();
    }
  }

  size_t allowed() const { return max_threads + std::min(away, max_waiting); }

  void JoinEnded() {
    for (const pthread_t thread : std::exchange(ended, {})) pthread_join(thread, nullptr);
  }

  // 0 or an errno value.
  int StartThread() {
    JoinEnded();
    pthread_t thread;
    threads.reserve(max_threads + max_waiting);
    ended.reserve(max_threads + max_waiting);
    const int result = StartQuietThread(&WorkerPool::ThreadMain, this, &thread);
    if (result != 0) return result;
    threads.push_back(thread);
    ++idle;
    return 0;
  }

  void Wait(std::unique_lock<std::mutex>& lock) {
    ++idle;
    if (!appointments.empty() && !watched) {
      watched = true;
      watched_until_ms = appointments.begin()->first;
      const int64_t timeout_ms = std::min(watched_until_ms - clock.MonotonicMs(), kWatchMsMax);
      if (timeout_ms > 0) clock.WaitFor(watch, lock, timeout_ms);
      watched = false;
      watched_until_ms = Task::kIdle;
    } else {
      ++in_work;
      work.wait(lock);
      --in_work;
    }
    --idle;
  }

  void RunFirst(std::unique_lock<std::mutex>& lock) {
    Task* const task = first;
    Unqueue(task);
    task->place_ = Task::Place::kRunning;
    Call();
    // An exchange, not a store: it reads the last Wake()'s exchange, and so sees what that thread
    // wrote before it (invariant 2). From here on a wake asks for another Step.
    task->wake_pending_.exchange(false, std::memory_order_acq_rel);

    lock.unlock();
    current_step = task;
    current_pool = this;
    const int64_t due_ms = task->Step(clock.MonotonicMs());
    current_step = nullptr;
    current_pool = nullptr;
    lock.lock();

    if (task->leaving_) {
      task->place_ = Task::Place::kOutside;
      step_end.notify_all();
      return;
    }
    if (task->wake_pending_.load(std::memory_order_acquire) || due_ms <= clock.MonotonicMs()) {
      Queue(task);
      return;
    }
    task->place_ = Task::Place::kResting;
    task->due_ms_ = due_ms;
    if (due_ms == Task::kIdle) return;
    appointments.insert({due_ms, task});
    if (watched && due_ms < watched_until_ms) watch.notify_one();
  }

  void Run() {
    std::unique_lock lock(mutex);
    --idle;
    while (!stopping) {
      QueueDue(clock.MonotonicMs());
      if (first) {
        RunFirst(lock);
      } else if (threads.size() > allowed() && (watched || appointments.empty())) {
        // Nobody joins what Stop() has not seen here: it takes the mutex after this.
        std::erase_if(threads, [](pthread_t t) { return pthread_equal(t, pthread_self()) != 0; });
        ended.push_back(pthread_self());
        return;
      } else {
        Wait(lock);
      }
    }
  }
};

WorkerPool::WorkerPool(Clock& clock, size_t max_threads, size_t max_waiting)
    : state_(new State(clock, std::max<size_t>(max_threads, 1), max_waiting)) {}

WorkerPool::~WorkerPool() {
  Stop();
  delete state_.load();
}

void* WorkerPool::ThreadMain(void* state) {
  pthread_setname_np(pthread_self(), "guildlite");
  static_cast<State*>(state)->Run();
  return nullptr;
}

Status WorkerPool::Add(Task* task) {
  State* const s = state_.load(std::memory_order_acquire);
  if (!s) return Status(Tag::kLocalIo, "start background work: not in a forked child");
  const std::lock_guard lock(s->mutex);
  assert(task->place_ == Task::Place::kOutside);
  if (s->stopping) return Status(Tag::kLocalIo, "start background work: the pool was stopped");
  if (s->threads.empty()) {
    if (const int error = s->StartThread(); error != 0) {
      return Status(Tag::kLocalIo, "start a thread: " + std::generic_category().message(error),
                    true);
    }
  }
  task->leaving_ = false;
  s->Queue(task);
  s->Call();
  return Status::Ok();
}

void WorkerPool::Remove(Task* task) { (void)RemoveWithin(task, std::nullopt); }

bool WorkerPool::RemoveWithin(Task* task, std::optional<int64_t> timeout_ms) {
  State* const s = state_.load(std::memory_order_acquire);
  if (!s) return true;
  assert(current_step != task);
  std::unique_lock lock(s->mutex);
  switch (task->place_) {
    case Task::Place::kOutside:
      break;
    case Task::Place::kResting:
      s->CancelAppointment(task);
      break;
    case Task::Place::kQueued:
      s->Unqueue(task);
      break;
    case Task::Place::kRunning: {
      task->leaving_ = true;
      const auto outside = [&] { return task->place_ == Task::Place::kOutside; };
      if (!timeout_ms) s->step_end.wait(lock, outside);
      const int64_t give_up_ms = s->clock.MonotonicMs() + timeout_ms.value_or(0);
      while (!outside()) {
        const int64_t left_ms = give_up_ms - s->clock.MonotonicMs();
        if (left_ms <= 0) return false;
        s->clock.WaitFor(s->step_end, lock, left_ms);
      }
      break;
    }
  }
  task->place_ = Task::Place::kOutside;
  return true;
}

void WorkerPool::Wake(Task* task) {
  State* const s = state_.load(std::memory_order_acquire);
  if (!s) return;
  if (task->wake_pending_.exchange(true, std::memory_order_acq_rel)) return;
  const std::lock_guard lock(s->mutex);
  // Queued and outside: its next Step is to come. Running: the thread looks at wake_pending_ under
  // the mutex when the Step ends.
  if (task->place_ != Task::Place::kResting || s->stopping) return;
  s->CancelAppointment(task);
  s->Queue(task);
  s->Call();
}

void WorkerPool::Stop() {
  State* const s = state_.load(std::memory_order_acquire);
  if (!s) return;
  assert(current_pool != s);
  std::vector<pthread_t> threads;
  {
    const std::lock_guard lock(s->mutex);
    s->stopping = true;
    threads.swap(s->threads);
    s->JoinEnded();
    s->work.notify_all();
    s->watch.notify_all();
  }
  for (const pthread_t thread : threads) pthread_join(thread, nullptr);
}

void WorkerPool::ForgetThreads() {
  // Leaked: its mutex may be held and its condition variables have waiters, both by threads that
  // the child does not have; destroying either would hang (pthread_cond_destroy waits for waiters).
  state_.store(nullptr, std::memory_order_release);
}

WorkerPool::Waiting::Waiting() {
  auto* const s = static_cast<State*>(current_pool);
  if (!s) return;
  const std::lock_guard lock(s->mutex);
  ++s->away;
  s->Call();
}

WorkerPool::Waiting::~Waiting() {
  auto* const s = static_cast<State*>(current_pool);
  if (!s) return;
  const std::lock_guard lock(s->mutex);
  --s->away;
}

const Task* WorkerPool::CurrentStep() { return current_step; }

size_t WorkerPool::thread_count() const {
  const State* const s = state_.load(std::memory_order_acquire);
  if (!s) return 0;
  const std::lock_guard lock(s->mutex);
  return s->threads.size();
}

namespace {

struct CallThread {
  const Task* step;
  std::function<void()> body;
};

void* RunCallThread(void* argument) {
  const std::unique_ptr<CallThread> thread(static_cast<CallThread*>(argument));
  pthread_setname_np(pthread_self(), "guildlite");
  current_step = thread->step;
  thread->body();
  current_step = nullptr;
  return nullptr;
}

}  // namespace

CallThreads::~CallThreads() {
  for (const pthread_t thread : threads_) pthread_join(thread, nullptr);
}

bool CallThreads::Start(std::function<void()> body) {
  auto argument = std::make_unique<CallThread>(CallThread{current_step, std::move(body)});
  threads_.reserve(threads_.size() + 1);
  pthread_t thread;
  if (StartQuietThread(&RunCallThread, argument.get(), &thread) != 0) return false;
  argument.release();
  threads_.push_back(thread);
  return true;
}

}  // namespace guildlite
