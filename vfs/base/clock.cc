#include "guildlite/clock.h"

#include <sys/random.h>
#include <time.h>

#include <chrono>
#include <cstdlib>

namespace guildlite {
namespace {

int64_t ReadClockMs(clockid_t id) {
  timespec ts;
  clock_gettime(id, &ts);
  return int64_t{ts.tv_sec} * 1000 + ts.tv_nsec / 1000000;
}

class MachineClock : public Clock {
 public:
  int64_t NowMs() override { return ReadClockMs(CLOCK_REALTIME); }
  int64_t MonotonicMs() override { return ReadClockMs(CLOCK_MONOTONIC); }
  bool WaitFor(std::condition_variable& cv, std::unique_lock<std::mutex>& lock,
               int64_t timeout_ms) override {
    return cv.wait_for(lock, std::chrono::milliseconds(timeout_ms)) == std::cv_status::no_timeout;
  }
};

class MachineRandom : public Random {
 public:
  uint64_t Next64() override {
    uint64_t v = 0;
    // 8 bytes are never cut short and never interrupted (getrandom(2), up to 256 bytes).
    if (getrandom(&v, sizeof v, 0) != sizeof v) std::abort();
    return v;
  }
};

}  // namespace

// Leaked on purpose: threads and exit handlers may outlive static destruction.
Clock& SystemClock() {
  static Clock* const clock = new MachineClock;
  return *clock;
}
Random& SystemRandom() {
  static Random* const random = new MachineRandom;
  return *random;
}

}  // namespace guildlite
