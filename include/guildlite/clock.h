// The only sources of time and of randomness. Both come in by constructor, so that the protocol
// runs in tests and in a simulator with time and chance of their choosing. scripts/tidy bans the
// others.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace guildlite {

class Clock {
 public:
  virtual ~Clock() = default;
  // Unix time in milliseconds, UTC. May jump.
  virtual int64_t NowMs() = 0;
  // Milliseconds from an arbitrary start; never goes back.
  virtual int64_t MonotonicMs() = 0;
  // Waits on `cv` for at most `timeout_ms`; false on timeout. Spurious returns are possible.
  virtual bool WaitFor(std::condition_variable& cv, std::unique_lock<std::mutex>& lock,
                       int64_t timeout_ms) = 0;
};

class Random {
 public:
  virtual ~Random() = default;
  virtual uint64_t Next64() = 0;
};

// The machine's clock and getrandom(2). Thread-safe, never destroyed.
Clock& SystemClock();
Random& SystemRandom();

}  // namespace guildlite
