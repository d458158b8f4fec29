// One process's writing side, stepped by hand on a simulated clock: recorder, shipper and
// snapshotter of a SimDatabase over a store, without the replicator that would decide for them.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "tests/replicate/sim_database.h"
#include "tests/support/sim_clock.h"
#include "vfs/base/checksum.h"
#include "vfs/replicate/claim.h"
#include "vfs/replicate/recorder.h"
#include "vfs/replicate/shipper.h"
#include "vfs/replicate/sidecar.h"
#include "vfs/replicate/snapshotter.h"

namespace guildlite::testing {

struct RigSettings {
  uint64_t spool_limit_bytes = 1 << 30;
  Shipper::Settings ship;
  Snapshotter::Settings snapshot;
  SimDatabaseFile::Hook before_read;
  SimDatabaseFile::Hook after_read;
  std::function<std::optional<Published>()> published;  // instead of the database's
};

class WriterRig {
 public:
  WriterRig(SimDatabase& database, ObjectStore& object_store, SimClock& sim_clock,
            SimRandom& sim_random, RigSettings settings = {})
      : db(database),
        store(object_store),
        clock(sim_clock),
        random(sim_random),
        sidecar(database.path() + "-guildlite") {
    Must(sidecar.Lock());
    recorder = std::make_unique<Recorder>(
        clock, sidecar, db.path(), db.wal_path(),
        std::make_unique<SimDatabaseFile>(db.path(), settings.before_read, settings.after_read),
        settings.published ? settings.published : [this] { return db.published(); },
        Recorder::Settings{settings.spool_limit_bytes});
    shipper = std::make_unique<Shipper>(
        clock, random, store, *recorder, sidecar, settings.ship,
        [this](const Status& status) { stopped = status; },
        [this](Slot, std::string_view) { ++progress; });
    snapshotter = std::make_unique<Snapshotter>(clock, random, store, *recorder, *shipper,
                                                settings.snapshot, [] {});
    db.events.write_lock = [this] {
      recorder->WriteLockTaken();
      return true;
    };
    db.events.may_discard = [this](DiscardReason reason) {
      return recorder->SecureForDiscard(50, reason == DiscardReason::kClose);
    };
    db.events.header = [this](std::span<const std::byte, kWalHeaderSize> bytes) {
      recorder->WalHeaderWriting(*WalHeader::Decode(bytes), false);
    };
    db.events.write_unlock = [this] { recorder->WriteLockReleasing(); };
  }
  // As kill -9: nothing is flushed.
  ~WriterRig() { db.events = {}; }
  WriterRig(const WriterRig&) = delete;
  WriterRig& operator=(const WriterRig&) = delete;

  void BeginFirst() {
    const Lineage lineage(random.Next64());
    session = Session(random.Next64());
    const StoreView view =
        Must(guildlite::ClaimFirst(store, random, clock, lineage, {session, "rig"}));
    recorder->StartFirst(Txid(), HistoryStart(lineage));
    shipper->Begin(view, session, false);
    snapshotter->Begin(view.manifest.manifest);
  }
  // What the replicator does after a drop: a new epoch, and a heal from what the log has.
  void BeginAgain() {
    const StoreView seen = Must(LookAtStore(store, std::nullopt));
    session = Session(random.Next64());
    const StoreView view = Must(ClaimNext(store, random, clock, seen, {session, "rig"}));
    stopped.reset();
    recorder->RestartFrom(view.tip);
    shipper->Begin(view, session, !view.manifest.manifest.snapshots.empty());
    snapshotter->Begin(view.manifest.manifest);
  }

  // Steps both tasks until neither has anything to do, or for `limit_ms` of simulated time.
  void Run(int64_t limit_ms = 600'000) {
    const int64_t end = clock.MonotonicMs() + limit_ms;
    for (int i = 0; i < 200'000; ++i) {
      const int64_t now = clock.MonotonicMs();
      if (now >= end) return;
      const int64_t a = shipper->Step(now);
      const int64_t b = snapshotter->Step(now);
      const int64_t next = std::min(a, b);
      if (next == Task::kIdle) return;
      if (next > now) clock.Advance(std::min(next, end) - now);
    }
    FAIL() << "never comes to rest";
  }
  // Until the first snapshot is in the manifest.
  void Settle() {
    Run();
    ASSERT_TRUE(shipper->durable().has_value()) << shipper->last_error().ToString();
  }

  SimDatabase& db;
  ObjectStore& store;
  SimClock& clock;
  SimRandom& random;
  Sidecar sidecar;
  Session session;
  std::unique_ptr<Recorder> recorder;
  std::unique_ptr<Shipper> shipper;
  std::unique_ptr<Snapshotter> snapshotter;
  std::optional<Status> stopped;
  int progress = 0;
};

}  // namespace guildlite::testing
