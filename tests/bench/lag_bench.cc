// Lag of a lone commit: from COMMIT returned to its put acknowledged, with a store that answers in
// 50 ms. The replicator is driven as the shim drives it, on a real SQLite's WAL and wal-index.

#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/bench/worker.h"
#include "vfs/objects/memory_store.h"
#include "vfs/replicate/replicator.h"
#include "vfs/shim/wal_index.h"

namespace guildlite::bench {
namespace {

namespace fs = std::filesystem;
using Steady = std::chrono::steady_clock;

constexpr auto kStoreDelay = std::chrono::milliseconds(50);

class SlowStore final : public ObjectStore {
 public:
  Result<std::string> Put(std::string_view key, std::string_view bytes,
                          const PutCondition& condition) override {
    if (slow.load()) std::this_thread::sleep_for(kStoreDelay);
    auto result = store_.Put(key, bytes, condition);
    const std::lock_guard lock(mutex);
    ++puts;
    last_put = Steady::now();
    changed.notify_all();
    return result;
  }
  Result<StoredObject> Get(std::string_view key, std::optional<ByteRange> range) override {
    return store_.Get(key, range);
  }
  Result<std::vector<ListEntry>> List(std::string_view prefix, std::string_view after,
                                      size_t limit) override {
    return store_.List(prefix, after, limit);
  }
  Status Delete(std::string_view key) override { return store_.Delete(key); }
  std::string Describe() const override { return "slow memory"; }

  std::atomic<bool> slow{false};
  std::mutex mutex;
  std::condition_variable changed;
  int64_t puts = 0;
  Steady::time_point last_put;

 private:
  MemoryStore store_;
};

class PlainFile final : public DatabaseFile {
 public:
  explicit PlainFile(File file) : file_(std::move(file)) {}
  Result<size_t> ReadAt(uint64_t offset, std::span<std::byte> out) override {
    return file_.ReadAt(offset, out);
  }
  Result<uint64_t> Size() override { return file_.Size(); }

 private:
  File file_;
};

void BM_LoneCommitLag(benchmark::State& state) {
  std::string directory = (fs::temp_directory_path() / "guildlite-lag-XXXXXX").string();
  if (!::mkdtemp(directory.data())) std::abort();
  const std::string path = directory + "/app.db";
  sqlite3* db = nullptr;
  if (sqlite3_open(path.c_str(), &db) != SQLITE_OK) std::abort();
  const auto exec = [&](const char* sql) {
    if (sqlite3_exec(db, sql, nullptr, nullptr, nullptr) != SQLITE_OK) std::abort();
  };
  exec("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(a)");
  // Descriptors of database and -shm stay open to the end: closing one would drop SQLite's locks.
  auto database = File::Open(path, O_RDONLY);
  const int shm = ::open((path + "-shm").c_str(), O_RDONLY | O_CLOEXEC);
  void* const index = ::mmap(nullptr, 32768, PROT_READ, MAP_SHARED, shm, 0);
  if (!database.ok() || index == MAP_FAILED) std::abort();

  WorkerPool pool(SystemClock(), 4);
  auto store = std::make_unique<SlowStore>();
  SlowStore& slow = *store;
  Replicator::Setup setup;
  setup.clock = &SystemClock();
  setup.random = &SystemRandom();
  setup.pool = &pool;
  setup.path = path;
  setup.wal_path = path + "-wal";
  setup.database = std::make_unique<PlainFile>(std::move(*database));
  setup.store = std::move(store);
  setup.options.url = "memory";
  setup.options.sync_interval_ms = 0;
  setup.asked = true;
  setup.owner = "bench";
  setup.read_published = [](const volatile void* region0) {
    return ReadPublished(region0, nullptr);
  };
  setup.idle = [] {};
  setup.warn = [](Tag, const std::string&) {};
  auto started = Replicator::Start(std::move(setup));
  if (!started.ok()) std::abort();
  const std::shared_ptr<Replicator> replicator = *started;
  replicator->IndexMapped(&state, index);
  if (!replicator->Sync(30000).ok()) std::abort();
  slow.slow.store(true);

  std::vector<double> lags;
  for (auto _ : state) {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));  // idle, as between two messages
    int64_t before;
    {
      const std::lock_guard lock(slow.mutex);
      before = slow.puts;
    }
    if (!replicator->BeforeWriteLock().ok()) std::abort();
    exec("INSERT INTO t VALUES(randomblob(100))");
    const auto committed = Steady::now();
    replicator->BeforeWriteUnlock();
    std::unique_lock lock(slow.mutex);
    slow.changed.wait(lock, [&] { return slow.puts > before; });
    lags.push_back(std::chrono::duration<double, std::milli>(slow.last_put - committed).count());
  }
  state.counters["lag_median_ms"] = Median(lags);
  state.counters["lag_max_ms"] = *std::max_element(lags.begin(), lags.end());
  replicator->Close(1000);
  pool.Stop();
  sqlite3_close(db);
  fs::remove_all(directory);
}
BENCHMARK(BM_LoneCommitLag)->Iterations(40)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace guildlite::bench
