#include "vfs/base/task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <latch>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace guildlite {
namespace {

// Stands still until told; threads really wait in WaitFor(), so the pool is tested as it runs.
class HandClock : public Clock {
 public:
  int64_t NowMs() override { return MonotonicMs(); }
  int64_t MonotonicMs() override {
    const std::lock_guard lock(mutex_);
    return now_ms_;
  }
  bool WaitFor(std::condition_variable& cv, std::unique_lock<std::mutex>& lock,
               int64_t timeout_ms) override {
    int64_t until;
    {
      const std::lock_guard guard(mutex_);
      until = now_ms_ + timeout_ms;
      sleeper_ = {&cv, lock.mutex(), until};
      ++waits_;
      changed_.notify_all();
    }
    cv.wait(lock);
    const std::lock_guard guard(mutex_);
    sleeper_ = {};
    return now_ms_ < until;
  }
  void Advance(int64_t ms) {
    Sleeper sleeper;
    {
      const std::lock_guard lock(mutex_);
      now_ms_ += ms;
      sleeper = sleeper_;
    }
    if (!sleeper.cv) return;
    // Taken once: whoever set sleeper_ under it is inside cv.wait() by now.
    { const std::lock_guard lock(*sleeper.mutex); }
    sleeper.cv->notify_all();
  }
  // Until a thread waits for `until` (in ms of this clock).
  void AwaitSleeper(int64_t until) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return sleeper_.cv && sleeper_.until == until; });
  }
  int waits() {
    const std::lock_guard lock(mutex_);
    return waits_;
  }

 private:
  struct Sleeper {
    std::condition_variable* cv = nullptr;
    std::mutex* mutex = nullptr;
    int64_t until = 0;
  };
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t now_ms_ = 1000;
  Sleeper sleeper_;
  int waits_ = 0;
};

// Runs a function per Step and lets the test wait for the n-th to have ended its body.
class TestTask : public Task {
 public:
  explicit TestTask(std::function<int64_t(int64_t)> body) : body_(std::move(body)) {}
  int64_t Step(int64_t now_ms) override {
    const int64_t next = body_(now_ms);
    const std::lock_guard lock(mutex_);
    ++steps_;
    changed_.notify_all();
    return next;
  }
  void AwaitSteps(int n) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return steps_ >= n; });
  }
  int steps() {
    const std::lock_guard lock(mutex_);
    return steps_;
  }

 private:
  std::function<int64_t(int64_t)> body_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int steps_ = 0;
};

TEST(WorkerPool, StartsNoThreadBeforeTheFirstTask) {
  HandClock clock;
  WorkerPool pool(clock, 4);
  EXPECT_EQ(pool.thread_count(), 0u);
  TestTask task([](int64_t) { return Task::kIdle; });
  ASSERT_TRUE(pool.Add(&task).ok());
  task.AwaitSteps(1);
  EXPECT_EQ(pool.thread_count(), 1u);
  pool.Remove(&task);
}

TEST(WorkerPool, AnIdleTaskWaitsForAWakeAndNothingTicks) {
  HandClock clock;
  WorkerPool pool(clock, 2);
  TestTask task([](int64_t) { return Task::kIdle; });
  ASSERT_TRUE(pool.Add(&task).ok());
  task.AwaitSteps(1);
  pool.Wake(&task);
  task.AwaitSteps(2);
  pool.Remove(&task);
  EXPECT_EQ(task.steps(), 2);
  EXPECT_EQ(clock.waits(), 0) << "a timed wait with no appointment";
}

TEST(WorkerPool, KeepsAnAppointment) {
  HandClock clock;
  WorkerPool pool(clock, 2);
  std::atomic<int64_t> second_at{0};
  TestTask task([&](int64_t now_ms) {
    if (now_ms < 1500) return int64_t{1500};
    second_at = now_ms;
    return Task::kIdle;
  });
  ASSERT_TRUE(pool.Add(&task).ok());
  clock.AwaitSleeper(1500);
  clock.Advance(500);
  task.AwaitSteps(2);
  EXPECT_EQ(second_at, 1500);
  pool.Remove(&task);
}

TEST(WorkerPool, AnEarlierAppointmentMovesTheWatch) {
  HandClock clock;
  WorkerPool pool(clock, 1);
  TestTask late([](int64_t now_ms) { return now_ms < 9000 ? int64_t{9000} : Task::kIdle; });
  TestTask early([](int64_t now_ms) { return now_ms < 2000 ? int64_t{2000} : Task::kIdle; });
  ASSERT_TRUE(pool.Add(&late).ok());
  clock.AwaitSleeper(9000);
  ASSERT_TRUE(pool.Add(&early).ok());
  clock.AwaitSleeper(2000);
  clock.Advance(1000);
  early.AwaitSteps(2);
  clock.AwaitSleeper(9000);
  EXPECT_EQ(late.steps(), 1);
  pool.Remove(&late);
  pool.Remove(&early);
}

// An upload may block for many seconds; another database's appointment must not wait for it.
TEST(WorkerPool, KeepsAppointmentsWhileAnotherTaskBlocks) {
  HandClock clock;
  WorkerPool pool(clock, 2);
  TestTask timed([](int64_t now_ms) { return now_ms < 2000 ? int64_t{2000} : Task::kIdle; });
  ASSERT_TRUE(pool.Add(&timed).ok());
  clock.AwaitSleeper(2000);
  std::latch release(1), inside(1);
  TestTask blocking([&](int64_t) {
    inside.count_down();
    release.wait();
    return Task::kIdle;
  });
  ASSERT_TRUE(pool.Add(&blocking).ok());
  inside.wait();
  clock.AwaitSleeper(2000);
  clock.Advance(1000);
  timed.AwaitSteps(2);
  EXPECT_EQ(blocking.steps(), 0);
  release.count_down();
  blocking.AwaitSteps(1);
  pool.Remove(&timed);
  pool.Remove(&blocking);
}

TEST(WorkerPool, AWakeReplacesTheAppointment) {
  HandClock clock;
  WorkerPool pool(clock, 2);
  TestTask task([](int64_t now_ms) { return now_ms + 60000; });
  ASSERT_TRUE(pool.Add(&task).ok());
  clock.AwaitSleeper(61000);
  pool.Wake(&task);
  task.AwaitSteps(2);
  pool.Remove(&task);
}

TEST(WorkerPool, AWakeDuringAStepRunsTheTaskOnceMore) {
  HandClock clock;
  WorkerPool pool(clock, 4);
  std::latch inside(1), release(1);
  std::atomic<int> runs{0};
  TestTask task([&](int64_t) {
    if (runs++ == 0) {
      inside.count_down();
      release.wait();
    }
    return Task::kIdle;
  });
  ASSERT_TRUE(pool.Add(&task).ok());
  inside.wait();
  for (int i = 0; i < 100; ++i) pool.Wake(&task);
  release.count_down();
  task.AwaitSteps(2);
  pool.Remove(&task);
  EXPECT_EQ(task.steps(), 2) << "a hundred wakes are one";
}

TEST(WorkerPool, RemoveWaitsForTheRunningStep) {
  HandClock clock;
  WorkerPool pool(clock, 2);
  std::latch inside(1), release(1);
  std::atomic<bool> ended{false};
  auto task = std::make_unique<TestTask>([&](int64_t now_ms) {
    inside.count_down();
    release.wait();
    ended = true;
    return now_ms;  // "at once again": must not happen
  });
  ASSERT_TRUE(pool.Add(task.get()).ok());
  inside.wait();
  std::latch removing(1);
  std::thread remover([&] {
    removing.count_down();
    pool.Remove(task.get());
    EXPECT_TRUE(ended);
    EXPECT_EQ(task->steps(), 1);
    task.reset();
  });
  removing.wait();
  release.count_down();
  remover.join();
}

TEST(WorkerPool, RemovesAQueuedAndAnUnknownTask) {
  HandClock clock;
  WorkerPool pool(clock, 1);
  std::latch inside(1), release(1);
  TestTask blocking([&](int64_t) {
    inside.count_down();
    release.wait();
    return Task::kIdle;
  });
  ASSERT_TRUE(pool.Add(&blocking).ok());
  inside.wait();
  TestTask a([](int64_t) { return Task::kIdle; });
  TestTask b([](int64_t) { return Task::kIdle; });
  TestTask c([](int64_t) { return Task::kIdle; });
  ASSERT_TRUE(pool.Add(&a).ok());
  ASSERT_TRUE(pool.Add(&b).ok());
  pool.Remove(&b);  // the last of the queue
  ASSERT_TRUE(pool.Add(&c).ok());
  pool.Remove(&a);  // the first
  pool.Remove(&a);
  release.count_down();
  c.AwaitSteps(1);
  EXPECT_EQ(a.steps(), 0);
  EXPECT_EQ(b.steps(), 0);
  pool.Remove(&c);
  pool.Remove(&blocking);
  ASSERT_TRUE(pool.Add(&a).ok()) << "a removed task may come back";
  a.AwaitSteps(1);
  pool.Remove(&a);
}

TEST(WorkerPool, AStepMayHaveAPoolOfItsOwn) {
  HandClock clock;
  WorkerPool outer(clock, 1);
  TestTask inside([](int64_t) { return Task::kIdle; });
  TestTask step([&](int64_t) {
    WorkerPool inner(clock, 2);
    EXPECT_TRUE(inner.Add(&inside).ok());
    inside.AwaitSteps(1);
    inner.Remove(&inside);
    inner.Stop();
    return Task::kIdle;
  });
  ASSERT_TRUE(outer.Add(&step).ok());
  step.AwaitSteps(1);
  outer.Remove(&step);
}

TEST(WorkerPool, StopJoinsAndNothingRunsAfterwards) {
  HandClock clock;
  WorkerPool pool(clock, 3);
  std::array<std::unique_ptr<TestTask>, 8> tasks;
  for (auto& task : tasks) {
    task = std::make_unique<TestTask>([](int64_t now_ms) { return now_ms; });
    ASSERT_TRUE(pool.Add(task.get()).ok());
  }
  for (auto& task : tasks) task->AwaitSteps(3);
  pool.Stop();
  std::vector<int> steps;
  for (auto& task : tasks) steps.push_back(task->steps());
  for (auto& task : tasks) pool.Wake(task.get());
  for (size_t i = 0; i < tasks.size(); ++i) EXPECT_EQ(tasks[i]->steps(), steps[i]);
  TestTask late([](int64_t) { return Task::kIdle; });
  EXPECT_EQ(pool.Add(&late).tag(), Tag::kLocalIo);
  for (auto& task : tasks) pool.Remove(task.get());
  pool.Stop();
}

// A step that begins to wait has its thread replaced; nobody would join that one any more.
TEST(WorkerPool, AStepThatWaitsDuringStopGetsNoThreadStarted) {
  HandClock clock;
  WorkerPool pool(clock, 1, 1);
  std::latch running(1), stopped(1);
  TestTask first([&](int64_t) {
    running.count_down();
    stopped.wait();
    const WorkerPool::Waiting waiting;
    EXPECT_EQ(pool.thread_count(), 0u);
    return Task::kIdle;
  });
  TestTask second([](int64_t) { return Task::kIdle; });
  ASSERT_TRUE(pool.Add(&first).ok());
  running.wait();
  ASSERT_TRUE(pool.Add(&second).ok());  // queued
  std::thread stop([&] { pool.Stop(); });
  while (pool.thread_count() != 0) std::this_thread::yield();
  stopped.count_down();
  stop.join();
  EXPECT_EQ(second.steps(), 0);
  pool.Stop();  // what was started all the same
  pool.Remove(&second);
}

TEST(WorkerPool, UsesNoMoreThreadsThanAllowed) {
  HandClock clock;
  WorkerPool pool(clock, 2);
  std::atomic<int> running{0}, most{0};
  std::array<std::unique_ptr<TestTask>, 16> tasks;
  for (auto& task : tasks) {
    task = std::make_unique<TestTask>([&](int64_t now_ms) {
      const int n = ++running;
      for (int seen = most; n > seen && !most.compare_exchange_weak(seen, n);) {
      }
      std::this_thread::yield();
      --running;
      return now_ms;
    });
    ASSERT_TRUE(pool.Add(task.get()).ok());
  }
  for (auto& task : tasks) task->AwaitSteps(50);
  for (auto& task : tasks) pool.Remove(task.get());
  EXPECT_LE(most, 2);
  EXPECT_EQ(pool.thread_count(), 2u);
}

// Invariant 7: stores that hang take no thread from whoever has work to do.
TEST(WorkerPool, AStepThatWaitsForTheNetworkLeavesItsThreadToOthers) {
  HandClock clock;
  WorkerPool pool(clock, 1, 3);
  std::latch release(1);
  std::array<std::unique_ptr<TestTask>, 3> hung;
  for (auto& task : hung) {
    task = std::make_unique<TestTask>([&](int64_t) {
      const WorkerPool::Waiting waiting;
      release.wait();
      return Task::kIdle;
    });
    ASSERT_TRUE(pool.Add(task.get()).ok());
  }
  TestTask busy([](int64_t) { return Task::kIdle; });
  ASSERT_TRUE(pool.Add(&busy).ok());
  busy.AwaitSteps(1);
  // An appointment too.
  TestTask punctual([](int64_t now_ms) { return now_ms < 1500 ? 1500 : Task::kIdle; });
  ASSERT_TRUE(pool.Add(&punctual).ok());
  clock.AwaitSleeper(1500);
  clock.Advance(500);
  punctual.AwaitSteps(2);
  EXPECT_EQ(pool.thread_count(), 4u);
  release.count_down();
  for (auto& task : hung) task->AwaitSteps(1);
  // The threads too many end as they find nothing to do, and are not missed.
  while (pool.thread_count() > 1) std::this_thread::yield();
  pool.Wake(&busy);
  busy.AwaitSteps(2);
  for (auto& task : hung) pool.Remove(task.get());
  pool.Remove(&busy);
  pool.Remove(&punctual);
}

TEST(WorkerPool, WhatWaitsIsBoundedToo) {
  HandClock clock;
  WorkerPool pool(clock, 1, 2);
  std::atomic<int> waiting{0}, most{0};
  std::array<std::unique_ptr<TestTask>, 16> tasks;
  for (auto& task : tasks) {
    task = std::make_unique<TestTask>([&](int64_t now_ms) {
      const WorkerPool::Waiting in_store;
      const int n = ++waiting;
      for (int seen = most; n > seen && !most.compare_exchange_weak(seen, n);) {
      }
      while (most < 2) std::this_thread::yield();  // a second one gets a thread
      --waiting;
      return now_ms;
    });
    ASSERT_TRUE(pool.Add(task.get()).ok());
  }
  for (auto& task : tasks) task->AwaitSteps(50);
  for (auto& task : tasks) pool.Remove(task.get());
  EXPECT_LE(most, 3);
}

// Databases that all have something to ship get their turns in a circle: nobody's lag is more than
// a round.
TEST(WorkerPool, NobodyGetsASecondTurnBeforeEverybodyHadOne) {
  constexpr int kTasks = 64;
  constexpr int kRounds = 20;
  HandClock clock;
  WorkerPool pool(clock, 1);
  std::vector<int> turns;  // the pool's one thread's, until Stop()
  std::vector<std::unique_ptr<TestTask>> tasks;
  std::latch all_added(1);
  for (int i = 0; i < kTasks; ++i) {
    tasks.push_back(std::make_unique<TestTask>([&, i](int64_t now_ms) {
      if (i == 0) all_added.wait();
      turns.push_back(i);
      pool.Wake(tasks[static_cast<size_t>(i)].get());
      return now_ms;
    }));
  }
  for (auto& task : tasks) ASSERT_TRUE(pool.Add(task.get()).ok());
  all_added.count_down();
  for (auto& task : tasks) task->AwaitSteps(kRounds);
  pool.Stop();
  for (size_t t = 0; t < static_cast<size_t>(kTasks * kRounds); ++t) {
    ASSERT_EQ(turns[t], static_cast<int>(t % kTasks)) << "turn " << t;
  }
}

// Invariants 1 and 2 under many threads: each waker publishes a number and wakes; the numbers must
// all have been seen by a Step, and no two Steps may overlap.
TEST(WorkerPool, LosesNoWakeAndNeverOverlaps) {
  WorkerPool pool(SystemClock(), 4);
  constexpr int kTasks = 3, kWakers = 3, kRounds = 3000;
  struct Counter : Task {
    std::atomic<int> published{0};
    std::atomic<bool> inside{false};
    std::mutex mutex;
    std::condition_variable changed;
    int seen = 0;
    int unguarded = 0;  // only Step touches it: a data race if two overlap
    int64_t Step(int64_t now_ms) override {
      EXPECT_FALSE(inside.exchange(true));
      ++unguarded;
      const int n = published.load(std::memory_order_relaxed);
      inside = false;
      const std::lock_guard lock(mutex);
      seen = n;
      changed.notify_all();
      return n % 3 == 0 ? kIdle : now_ms + 3600000;
    }
  };
  std::array<Counter, kTasks> tasks;
  for (auto& task : tasks) ASSERT_TRUE(pool.Add(&task).ok());
  std::vector<std::thread> wakers;
  for (int w = 0; w < kWakers; ++w) {
    wakers.emplace_back([&] {
      for (int i = 0; i < kRounds; ++i) {
        Counter& task = tasks[static_cast<size_t>(i % kTasks)];
        task.published.fetch_add(1, std::memory_order_relaxed);
        pool.Wake(&task);
      }
    });
  }
  for (auto& waker : wakers) waker.join();
  for (auto& task : tasks) {
    std::unique_lock lock(task.mutex);
    task.changed.wait(lock, [&] { return task.seen == kWakers * kRounds / kTasks; });
  }
  for (auto& task : tasks) pool.Remove(&task);
}

TEST(WorkerPool, AStepThatDoesNotEndIsLeftBehindAndNeverRunsAgain) {
  HandClock clock;
  WorkerPool pool(clock, 2);
  std::latch inside(1), release(1);
  TestTask hangs([&](int64_t) {
    inside.count_down();
    release.wait();
    return int64_t{0};  // at once again
  });
  TestTask idle([](int64_t) { return Task::kIdle; });
  ASSERT_TRUE(pool.Add(&hangs).ok());
  inside.wait();
  EXPECT_FALSE(pool.RemoveWithin(&hangs, 0));
  pool.Wake(&hangs);
  EXPECT_FALSE(pool.RemoveWithin(&hangs, 0));
  ASSERT_TRUE(pool.Add(&idle).ok());
  idle.AwaitSteps(1);
  // Counted inside its Step, which is over in a moment; the other one never is.
  while (!pool.RemoveWithin(&idle, 0)) std::this_thread::yield();
  release.count_down();
  pool.Remove(&hangs);
  EXPECT_TRUE(pool.RemoveWithin(&hangs, 0));
  EXPECT_EQ(hangs.steps(), 1);
}

TEST(WorkerPool, ThreadsAreNamedAndTakeNoSignals) {
  HandClock clock;
  WorkerPool pool(clock, 1);
  std::string name;
  bool blocked = false;
  TestTask task([&](int64_t) {
    std::array<char, 16> buf{};
    pthread_getname_np(pthread_self(), buf.data(), buf.size());
    name = buf.data();
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    blocked = sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGINT) == 1 &&
              sigismember(&mask, SIGPIPE) == 1;
    return Task::kIdle;
  });
  sigset_t before, after;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  ASSERT_TRUE(pool.Add(&task).ok());
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  task.AwaitSteps(1);
  pool.Remove(&task);
  EXPECT_EQ(name, "guildlite");
  EXPECT_TRUE(blocked);
  EXPECT_EQ(sigismember(&before, SIGTERM), sigismember(&after, SIGTERM));
}

TEST(CallThreads, WorkInTheStepTheyAreStartedFromAndEndWithIt) {
  HandClock clock;
  WorkerPool pool(clock, 1);
  std::array<const Task*, 3> steps{};
  std::array<bool, 3> blocked{};
  const Task* ours = nullptr;
  TestTask task([&](int64_t) {
    ours = WorkerPool::CurrentStep();
    CallThreads threads;
    for (size_t i = 0; i < steps.size(); ++i) {
      EXPECT_TRUE(threads.Start([&, i] {
        steps[i] = WorkerPool::CurrentStep();
        sigset_t mask;
        pthread_sigmask(SIG_SETMASK, nullptr, &mask);
        blocked[i] = sigismember(&mask, SIGTERM) == 1;
      }));
    }
    EXPECT_EQ(threads.size(), steps.size());
    return Task::kIdle;
  });
  ASSERT_TRUE(pool.Add(&task).ok());
  task.AwaitSteps(1);
  pool.Remove(&task);
  EXPECT_EQ(ours, &task);
  for (size_t i = 0; i < steps.size(); ++i) {
    EXPECT_EQ(steps[i], &task);
    EXPECT_TRUE(blocked[i]);
  }
  EXPECT_EQ(WorkerPool::CurrentStep(), nullptr);
}

// fork(2) copies a pool whose mutex is held and whose threads are gone.
TEST(WorkerPool, IsInertInAForkedChild) {
  HandClock clock;
  auto pool = std::make_unique<WorkerPool>(clock, 2);
  std::latch inside(1), release(1);
  TestTask task([&](int64_t) {
    inside.count_down();
    release.wait();
    return Task::kIdle;
  });
  TestTask other([](int64_t) { return Task::kIdle; });
  ASSERT_TRUE(pool->Add(&task).ok());
  inside.wait();
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    pool->ForgetThreads();
    pool->Wake(&task);
    const bool refused = !pool->Add(&other).ok();
    pool->Remove(&task);
    pool->Stop();
    pool.reset();
    ::_exit(refused ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  release.count_down();
  task.AwaitSteps(1);
  pool->Remove(&task);
}

}  // namespace
}  // namespace guildlite
