// A process that has the module loaded: a Replicator with a pool of its own on the machine's clock,
// fed by the events of a SimDatabase. Its destructor is kill -9: nothing is flushed or released.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/replicate/sim_database.h"
#include "vfs/base/task.h"
#include "vfs/replicate/replicator.h"

namespace guildlite::testing {

class BorrowedStore : public ObjectStore {
 public:
  explicit BorrowedStore(ObjectStore& store) : store_(store) {}
  Result<std::string> Put(std::string_view key, std::string_view bytes,
                          const PutCondition& condition) override {
    return store_.Put(key, bytes, condition);
  }
  Result<StoredObject> Get(std::string_view key, std::optional<ByteRange> range) override {
    return store_.Get(key, range);
  }
  Result<std::vector<ListEntry>> List(std::string_view prefix, std::string_view start_after,
                                      size_t limit) override {
    return store_.List(prefix, start_after, limit);
  }
  Status Delete(std::string_view key) override { return store_.Delete(key); }
  std::string Describe() const override { return store_.Describe(); }

 private:
  ObjectStore& store_;
};

struct ProcessSettings {
  Options options;
  bool asked = false;
  SimDatabaseFile::Hook before_read;
  SimDatabaseFile::Hook after_read;
};

inline Options FastOptions() {
  Options options;
  options.url = "memory:";
  options.sync_interval_ms = 1;
  options.open_wait_ms = 60'000;
  return options;
}

class Process {
 public:
  Process(SimDatabase& database, ObjectStore& store, ProcessSettings settings = {FastOptions()})
      : db(database), pool(SystemClock(), 2) {
    Replicator::Setup setup;
    setup.clock = &SystemClock();
    setup.random = &SystemRandom();
    setup.pool = &pool;
    setup.path = db.path();
    setup.wal_path = db.wal_path();
    setup.database = std::make_unique<SimDatabaseFile>(db.path(), std::move(settings.before_read),
                                                       std::move(settings.after_read));
    setup.store = std::make_unique<BorrowedStore>(store);
    setup.options = settings.options;
    setup.asked = setup.waited_for = settings.asked;
    setup.owner = "process rig";
    setup.read_published = [this](const volatile void*) { return db.published(); };
    setup.idle = [] {};
    setup.warn = [this](Tag tag, const std::string& message) {
      const std::lock_guard lock(mutex_);
      warnings_.push_back(std::string(TagName(tag)) + ": " + message);
    };
    replicator = Must(Replicator::Start(std::move(setup)));
  }
  ~Process() {
    db.Kill();
    pool.Stop();
    replicator.reset();
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // The first connection opens the database.
  void Connect() {
    db.Open();
    db.events.write_lock = [this] { return replicator->BeforeWriteLock().ok(); };
    db.events.may_discard = [this](DiscardReason reason) {
      return replicator->MayDiscardWal(reason);
    };
    db.events.header = [this](std::span<const std::byte, kWalHeaderSize> bytes) {
      replicator->WalHeaderWriting(bytes);
    };
    db.events.write_unlock = [this] {
      replicator->BeforeWriteUnlock();
      (void)replicator->Committed(std::nullopt);
    };
    replicator->IndexMapped(this, &region_);
  }
  // The last one closes it: what xShmUnmap and the close of the main file do.
  bool Disconnect(int64_t timeout_ms = 5000) {
    const bool closed = db.Close();
    replicator->IndexUnmapping(this);
    if (closed) replicator->LeavingExclusive();
    replicator->Close(timeout_ms);
    db.events = {};
    return closed;
  }
  Status Settled(int64_t timeout_ms = 20'000) { return replicator->WaitSettled(timeout_ms); }
  Status Sync(int64_t timeout_ms = 20'000) { return replicator->Sync(timeout_ms); }
  std::vector<std::string> warnings() {
    const std::lock_guard lock(mutex_);
    return warnings_;
  }
  std::string AllWarnings() {
    std::string all;
    for (const std::string& w : warnings()) all += w + "\n";
    return all;
  }

  SimDatabase& db;
  WorkerPool pool;
  std::shared_ptr<Replicator> replicator;

 private:
  std::mutex mutex_;
  std::vector<std::string> warnings_;
  char region_ = 0;
};

}  // namespace guildlite::testing
