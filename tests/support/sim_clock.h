// Time and chance of a test's choosing.
//
// SimClock stands still until told. It is for code that runs on one thread, as a simulation does: a
// wait has nobody to wake it, so WaitFor() lets the time pass at once. What else happens in the
// simulated world during a wait, OnWait() does.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "guildlite/clock.h"

namespace guildlite {

class SimClock : public Clock {
 public:
  explicit SimClock(int64_t now_ms = 1'700'000'000'000) : wall_ms_(now_ms) {}

  int64_t NowMs() override { return wall_ms_; }
  int64_t MonotonicMs() override { return monotonic_ms_; }
  bool WaitFor(std::condition_variable& cv, std::unique_lock<std::mutex>& lock,
               int64_t timeout_ms) override;

  void Advance(int64_t ms);
  // The wall clock alone, as ntpd or an operator moves it.
  void JumpWall(int64_t ms) { wall_ms_ += ms; }
  // Called by WaitFor() without its lock, in place of letting the time pass: may run other parties
  // and Advance(). WaitFor() then answers by the clock.
  void OnWait(std::function<void(int64_t deadline_ms)> hook) { on_wait_ = std::move(hook); }
  int64_t waits() const { return waits_; }

 private:
  std::atomic<int64_t> wall_ms_;
  std::atomic<int64_t> monotonic_ms_{1};
  std::atomic<int64_t> waits_{0};
  std::function<void(int64_t)> on_wait_;
};

// splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): every
// seed gives a stream, and the same one for ever.
class SimRandom : public Random {
 public:
  explicit SimRandom(uint64_t seed) : state_(seed) {}
  uint64_t Next64() override;
  // 0 .. bound-1. REQUIRES bound > 0. Not exactly uniform; nothing here needs it.
  uint64_t Below(uint64_t bound) { return Next64() % bound; }
  bool OneIn(uint64_t n) { return Below(n) == 0; }

 private:
  std::atomic<uint64_t> state_;
};

// For random tests: GUILDLITE_TEST_SEED if set, else `fallback`. The test prints what it got.
uint64_t TestSeed(uint64_t fallback);

}  // namespace guildlite
