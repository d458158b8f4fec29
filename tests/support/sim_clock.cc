#include "tests/support/sim_clock.h"

#include <cstdlib>

namespace guildlite {

bool SimClock::WaitFor(std::condition_variable&, std::unique_lock<std::mutex>& lock,
                       int64_t timeout_ms) {
  ++waits_;
  const int64_t deadline_ms = monotonic_ms_ + timeout_ms;
  if (!on_wait_) {
    if (timeout_ms > 0) Advance(timeout_ms);
    return false;
  }
  lock.unlock();
  on_wait_(deadline_ms);
  lock.lock();
  return monotonic_ms_ < deadline_ms;
}

void SimClock::Advance(int64_t ms) {
  wall_ms_ += ms;
  monotonic_ms_ += ms;
}

uint64_t SimRandom::Next64() {
  uint64_t z = state_.fetch_add(0x9e3779b97f4a7c15) + 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

uint64_t TestSeed(uint64_t fallback) {
  const char* const text = std::getenv("GUILDLITE_TEST_SEED");
  return text ? std::strtoull(text, nullptr, 0) : fallback;
}

}  // namespace guildlite
