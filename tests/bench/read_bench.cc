// How long a pod waits for its database: a restore and a takeover of a log as long as logs get
// before they are joined, from a store that takes 30 ms for every answer. The argument is how many
// objects are asked for at once: 1 is a reader that waits for each.

#include <benchmark/benchmark.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <thread>

#include "tests/support/log_fixture.h"
#include "vfs/objects/memory_store.h"
#include "vfs/objects/s3_store.h"
#include "vfs/replicate/claim.h"
#include "vfs/restore/restorer.h"

namespace guildlite::bench {
namespace {

constexpr auto kAnswerTime = std::chrono::milliseconds(30);
constexpr uint64_t kSlots = 5000;

class DistantStore final : public ObjectStore {
 public:
  DistantStore(ObjectStore& base, size_t gets_at_once) : base_(base), gets_at_once_(gets_at_once) {}

  Result<std::string> Put(std::string_view key, std::string_view bytes,
                          const PutCondition& condition) override {
    Wait();
    return base_.Put(key, bytes, condition);
  }
  Result<StoredObject> Get(std::string_view key, std::optional<ByteRange> range) override {
    Wait();
    return base_.Get(key, range);
  }
  Result<std::vector<ListEntry>> List(std::string_view prefix, std::string_view after,
                                      size_t limit) override {
    Wait();
    return base_.List(prefix, after, limit);
  }
  Status Delete(std::string_view key) override {
    Wait();
    return base_.Delete(key);
  }
  size_t gets_at_once() const override { return gets_at_once_; }
  std::string Describe() const override { return "distant memory"; }

  std::atomic<uint64_t> requests{0};

 private:
  void Wait() {
    ++requests;
    std::this_thread::sleep_for(kAnswerTime);
  }

  ObjectStore& base_;
  const size_t gets_at_once_;
};

// A snapshot, and then slots up to the next join.
void FillLog(ObjectStore& store) {
  testing::LogFixture log(store, {});
  std::mt19937_64 random(1);
  log.Snapshot();
  while (log.next_slot().value <= kSlots) {
    log.CommitRandom(random, 3);
    log.Ship();
  }
}

void BM_RestoreLongLog(benchmark::State& state) {
  MemoryStore memory;
  FillLog(memory);
  DistantStore store(memory, static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    if (!Verify(store, std::filesystem::temp_directory_path(), {}, {}).ok()) std::abort();
  }
  state.counters["requests"] = static_cast<double>(store.requests);
}
BENCHMARK(BM_RestoreLongLog)
    ->Arg(1)
    ->Arg(S3Store::kGetsAtOnce)
    ->Iterations(1)
    ->UseRealTime()
    ->Unit(benchmark::kSecond);

void BM_TakeOverLongLog(benchmark::State& state) {
  MemoryStore memory;
  FillLog(memory);
  DistantStore store(memory, static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    const auto seen = LookAtStore(store, std::nullopt);
    if (!seen.ok() || !ClaimNext(store, SystemRandom(), SystemClock(), *seen,
                                 {.session = Session(1), .owner = "bench"})
                           .ok()) {
      std::abort();
    }
  }
  state.counters["requests"] = static_cast<double>(store.requests);
}
BENCHMARK(BM_TakeOverLongLog)
    ->Arg(1)
    ->Arg(S3Store::kGetsAtOnce)
    ->Iterations(1)
    ->UseRealTime()
    ->Unit(benchmark::kSecond);

}  // namespace
}  // namespace guildlite::bench
