// A node that may write: a disk with a database on it, and the process that replicates it, if one
// is alive. The process is the real recorder, shipper, snapshotter, compactor and sweeper, each
// task a strand of its own as it would be a thread, and a claim as the replicator makes it. What it
// decides for itself, simpler than the replicator does: after a claim the disk's content goes into
// the log as a heal (or as the first scan), or the disk is given the content of the log's tip.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "tests/replicate/sim_database.h"
#include "tests/sim/history.h"
#include "tests/sim/mutants.h"
#include "tests/sim/scheduler.h"
#include "vfs/base/checksum.h"
#include "vfs/objects/catalog.h"
#include "vfs/objects/retrying_store.h"
#include "vfs/replicate/claim.h"
#include "vfs/replicate/compactor.h"
#include "vfs/replicate/recorder.h"
#include "vfs/replicate/shipper.h"
#include "vfs/replicate/snapshotter.h"
#include "vfs/replicate/sweeper.h"

namespace guildlite::testing {

struct WriterSettings {
  Shipper::Settings ship;
  Snapshotter::Settings snapshot;
  Compactor::Settings compact;
  Sweeper::Settings sweep;
  RetrySettings retry;
  bool retrying = true;  // the store asks again by itself
};

// The world's clock, as this machine's is set.
class SkewedClock : public Clock {
 public:
  SkewedClock(Clock& base, int64_t skew_ms) : base_(base), skew_ms_(skew_ms) {}
  int64_t NowMs() override { return base_.NowMs() + skew_ms_; }
  int64_t MonotonicMs() override { return base_.MonotonicMs(); }
  bool WaitFor(std::condition_variable& cv, std::unique_lock<std::mutex>& lock,
               int64_t timeout_ms) override {
    return base_.WaitFor(cv, lock, timeout_ms);
  }

 private:
  Clock& base_;
  const int64_t skew_ms_;
};

// What outlives a process.
struct Disk {
  Disk(std::string n, const std::string& directory, uint64_t seed)
      : name(std::move(n)), db(directory + "/" + name + ".db", 512, seed) {
    db.Kill();
  }
  std::string name;
  SimDatabase db;
  // As a sidecar remembers them.
  Lineage lineage;
  Session session;  // that had the log
  Session planned;  // of a claim that has not succeeded
};

class Writer {
 public:
  Writer(Scheduler& scheduler, History& history, Disk& disk, const WriterSettings& settings,
         Mutant mutant, int64_t skew_ms)
      : scheduler_(scheduler),
        history_(history),
        disk_(disk),
        settings_(settings),
        mutant_(mutant),
        clock_(scheduler.clock, skew_ms),
        random_(scheduler.random.Next64()),
        sidecar_(Cleared(disk.db.path() + "-guildlite")) {
    disk_.db.Open();
    Must(sidecar_.Lock());
    recorder_ = std::make_unique<Recorder>(
        clock_, sidecar_, disk_.db.path(), disk_.db.wal_path(),
        std::make_unique<SimDatabaseFile>(disk_.db.path()), [this] { return disk_.db.published(); },
        Recorder::Settings{1 << 30});
    Random& random = mutant_ == Mutant::kSameNonce ? static_cast<Random&>(same_) : random_;
    shipper_ = std::make_unique<Shipper>(
        clock_, random, Store(Role::kShip), *recorder_, sidecar_, settings_.ship,
        [this](const Status& status) { Stopped(status); },
        [this](Slot slot, std::string_view object) {
          Wake(kSnapshot);
          if (mutant_ == Mutant::kTwoInFlight) at_slot_[slot] = shipper_->durable();
          if (compactor_->Shipped(slot, object)) Wake(kCompact);
        });
    snapshotter_ = std::make_unique<Snapshotter>(
        clock_, random, Store(Role::kSnapshot), *recorder_, *shipper_, settings_.snapshot,
        [this] { Wake(kShip); },
        [this] {
          compactor_->SnapshotTaken();
          Wake(kCompact);
        });
    compactor_ =
        std::make_unique<Compactor>(clock_, random, Store(Role::kCompact),
                                    sidecar_.directory() + "/cache", settings_.compact, [this] {
                                      sweeper_->TombstonesSet();
                                      Wake(kSweep);
                                    });
    sweeper_ = std::make_unique<Sweeper>(clock_, random, Store(Role::kSweep), settings_.sweep);
    disk_.db.events.write_lock = [this] {
      recorder_->WriteLockTaken();
      return true;
    };
    disk_.db.events.may_discard = [this](DiscardReason reason) {
      return recorder_->SecureForDiscard(50, reason == DiscardReason::kClose);
    };
    disk_.db.events.header = [this](std::span<const std::byte, kWalHeaderSize> bytes) {
      recorder_->WalHeaderWriting(*WalHeader::Decode(bytes), false);
    };
    disk_.db.events.write_unlock = [this] { recorder_->WriteLockReleasing(); };
    claim_ = std::make_unique<Strand>(scheduler_, disk_.name + ".claim", [this] { ClaimLoop(); });
  }
  // kill -9.
  ~Writer() {
    for (Strand* s : strands()) s->Kill();
    background_.clear();
    disk_.db.Kill();
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  const std::string& name() const { return disk_.name; }
  bool begun() const { return begun_; }
  // Fenced, or it gave up the claim: nothing more will come of it.
  bool over() const { return over_; }
  // Everything committed is acknowledged and can be restored.
  bool settled() {
    const auto durable = shipper_->durable();
    return begun_ && !over_ && !recorder_->Behind() && !recorder_->unsettled() && durable &&
           NameOf(*durable) == NameOf(recorder_->captured());
  }
  Epoch epoch() { return shipper_->epoch(); }
  std::vector<Strand*> strands() const {
    std::vector<Strand*> all{claim_.get()};
    for (const auto& s : tasks_) all.push_back(s.get());
    for (const auto& s : background_) all.push_back(s.get());
    return all;
  }

  void Commit() {
    if (!begun_ || over_) return;
    SimDatabase::Pages pages{{1, random_.Next64()}};
    uint32_t size = disk_.db.pages();
    if (random_.OneIn(4)) size = 1 + static_cast<uint32_t>(random_.Below(4));
    for (uint32_t p = disk_.db.pages() + 1; p <= size; ++p) pages[p] = random_.Next64();
    if (size > 1) pages[1 + static_cast<uint32_t>(random_.Below(size))] = random_.Next64();
    disk_.db.Commit(pages, size, random_.OneIn(2));
    // As asking for the position of a commit does.
    (void)recorder_->CatchUp(UINT64_MAX);
    Watch();
    Wake(kShip);
  }
  void Checkpoint() {
    if (!begun_) return;
    disk_.db.CheckpointRestart();
    Wake(kShip);
  }
  void Snapshot() {
    if (!begun_) return;
    (void)snapshotter_->Request("");
    Wake(kSnapshot);
  }

  // What changed since it was looked last: states captured, states acknowledged. After everything
  // that may have run code of this process.
  void Watch() {
    if (!begun_) return;
    if (!recorder_->TakeWarning().empty()) {
      Wake(kShip);
      Wake(kSnapshot);
    }
    const CapturedState state = recorder_->captured();
    const StateName captured = NameOf(state);
    if (captured != captured_) {
      std::shared_ptr<const std::string> content;
      if (!recorder_->healing()) content = std::make_shared<std::string>(disk_.db.content());
      // After a drop it goes on from what the log has.
      if (captured.txid > captured_.txid) history_.Captured(captured, captured_, content);
      captured_ = captured;
    } else if (healing_ && !recorder_->healing()) {
      history_.Captured(captured, std::nullopt, std::make_shared<std::string>(disk_.db.content()));
    }
    healing_ = recorder_->healing();
    if (mutant_ == Mutant::kTwoInFlight) return;  // its acknowledgements come by slot
    Acknowledge(shipper_->durable());
  }

 private:
  enum TaskIndex { kShip, kSnapshot, kCompact, kSweep };

  static std::string Cleared(const std::string& directory) {
    // "All of the folder may be deleted while nothing is open": sidecar.h.
    std::filesystem::remove_all(directory);
    return directory;
  }

  ObjectStore& Store(Role role) {
    std::unique_ptr<ObjectStore> store = std::make_unique<SimStore>(scheduler_);
    if (settings_.retrying) {
      RetrySettings retry = settings_.retry;
      retry.wait = [this](int64_t ms) {
        scheduler_.Sleep(ms);
        return true;
      };
      store = std::make_unique<RetryingStore>(std::move(store), clock_, random_, retry);
    }
    stores_.push_back(std::move(store));
    MutantStore::World world;
    world.scheduler = &scheduler_;
    world.background = [this](std::function<void()> body) {
      background_.push_back(
          std::make_unique<Strand>(scheduler_, disk_.name + ".background", std::move(body)));
    };
    world.landed = [this](Slot slot) {
      if (const auto it = at_slot_.find(slot); it != at_slot_.end()) Acknowledge(it->second);
    };
    mutants_.push_back(std::make_unique<MutantStore>(*stores_.back(), mutant_, role, world));
    return *mutants_.back();
  }

  void Acknowledge(const std::optional<CapturedState>& durable) {
    if (!durable || NameOf(*durable) == acknowledged_) return;
    acknowledged_ = NameOf(*durable);
    scheduler_.Note(disk_.name + " acknowledges " + acknowledged_.ToString());
    history_.Acknowledged(acknowledged_, shipper_->epoch(), disk_.name);
  }

  void Wake(TaskIndex task) {
    if (tasks_.size() > task) tasks_[task]->Wake();
  }

  void Stopped(const Status& status) {
    scheduler_.Note(disk_.name + " stopped: " + status.ToString());
    if (status.ok()) {
      dropped_ = true;
      claim_->Wake();
    } else {
      over_ = true;
    }
  }

  void ClaimLoop() {
    for (int tries = 0;; ++tries) {
      Status status = Claim();
      scheduler_.Note(disk_.name + " claim: " + status.ToString());
      if (status.ok()) {
        tries = 0;
        while (!dropped_) scheduler_.WaitUntil(INT64_MAX);
        continue;
      }
      if (status.tag() == Tag::kChainBroken) {
        history_.Violated(disk_.name + " cannot follow the log: " + status.ToString());
      }
      if (tries == 8 || (begun_ && status.tag() == Tag::kFenced)) {
        over_ = true;
        return;
      }
      scheduler_.Sleep(5 + static_cast<int64_t>(random_.Below(40)));
    }
  }

  Status Claim() {
    ObjectStore& store = claim_store_ ? *claim_store_ : *(claim_store_ = &Store(Role::kClaim));
    Random& random = mutant_ == Mutant::kSameNonce ? static_cast<Random&>(same_) : random_;
    MutantStore& mutant = static_cast<MutantStore&>(store);
    mutant.Claiming();
    auto manifest = ReadManifest(store);
    if (!manifest.ok() && manifest.status().tag() != Tag::kNotFound) return manifest.status();
    Result<StoreView> view{StoreView()};
    // One session through all tries: claim.h, invariant 4.
    if (manifest.ok() && manifest->manifest.lineage != disk_.lineage) {
      disk_.lineage = manifest->manifest.lineage;
      disk_.session = disk_.planned = Session();
    }
    Session session = disk_.planned;
    if (session == Session()) session = Session(random_.Next64());
    if (!manifest.ok()) {
      if (begun_) return manifest.status();
      if (disk_.planned == Session()) disk_.lineage = Lineage(random_.Next64());
      disk_.planned = session;
      view = ClaimFirst(store, random, clock_, disk_.lineage, {session, disk_.name});
    } else {
      auto seen = LookAtStore(store, std::nullopt, *manifest);
      if (!seen.ok()) return seen.status();
      const Session owner = seen->manifest.manifest.session;
      const bool swapped = owner == session;
      if (begun_ && owner != disk_.session && !swapped) {
        return Status(Tag::kFenced, "another writer has taken over this log");
      }
      if (swapped || (!begun_ && owner == disk_.session && random_.OneIn(2))) {
        session = owner;
        view = ClaimResume(store, random, clock_, {session, disk_.name}, *seen, std::nullopt);
      } else {
        disk_.planned = session;
        view = ClaimNext(store, random, clock_, *seen, {session, disk_.name});
      }
    }
    if (!view.ok()) return view.status();
    disk_.session = session;
    disk_.planned = Session();
    mutant.Claimed(&*view);
    Begin(*view, session);
    return Status::Ok();
  }

  void Begin(const StoreView& view, Session session) {
    const Manifest& m = view.manifest.manifest;
    const CapturedState& tip = view.tip;
    const bool again = begun_;
    captured_ = NameOf(tip);
    if (tip.txid == Txid()) captured_ = {0, HistoryStart(m.lineage)};
    if (!history_.Knows(captured_)) history_.Captured(captured_, std::nullopt, nullptr);
    const auto content = history_.Content(captured_);
    if (again) {
      dropped_ = false;
      recorder_->RestartFrom(tip, /*same_history=*/false);
    } else if (m.snapshots.empty()) {
      // Nothing of this log could be restored so far; what this disk holds is its state now.
      history_.Replaced(captured_, std::make_shared<std::string>(disk_.db.content()));
      recorder_->StartFirst(tip.txid, tip.history_hash);
    } else if (content && !view.heal_open && tip.rolling_known && random_.OneIn(2)) {
      const auto events = disk_.db.events;
      disk_.db.Kill();
      disk_.db.Become(*content);
      disk_.db.events = events;
      disk_.db.Open();
      CapturedState state = tip;
      state.mark_valid = false;
      state.mark = WalMark();
      PageTable table;
      table.Resize(tip.database_pages, tip.page_size);
      for (uint32_t p = 1; p <= tip.database_pages; ++p) {
        table.Set(Pgno(p), PageHash(Pgno(p), AsBytes(*content).subspan((p - 1) * tip.page_size,
                                                                       tip.page_size)));
      }
      recorder_->StartAt(state, std::move(table), tip.txid, std::nullopt);
    } else {
      PageTable unknown;
      unknown.Resize(tip.database_pages, tip.page_size);
      recorder_->StartHeal(tip, std::move(unknown));
    }
    shipper_->Begin(view, session, !m.snapshots.empty() || mutant_ == Mutant::kDurableTooEarly);
    snapshotter_->Begin(m);
    compactor_->Begin(m, view.next);
    sweeper_->Begin(m);
    begun_ = true;
    healing_ = recorder_->healing();
    Watch();
    if (again) {
      for (const auto& s : tasks_) s->Wake();
      return;
    }
    Task* const tasks[] = {shipper_.get(), snapshotter_.get(), compactor_.get(), sweeper_.get()};
    const char* const names[] = {".ship", ".snapshot", ".compact", ".sweep"};
    for (int i = 0; i < 4; ++i) {
      Task* const task = tasks[i];
      tasks_.push_back(std::make_unique<Strand>(scheduler_, disk_.name + names[i], [this, task] {
        for (;;) {
          const int64_t now = scheduler_.clock.MonotonicMs();
          const int64_t next = task->Step(now);
          if (mutant_ == Mutant::kSweepsOwnEpoch && task == sweeper_.get()) SweepOwnEpoch();
          scheduler_.WaitUntil(next == Task::kIdle ? INT64_MAX : std::max(next, now));
        }
      }));
    }
  }

  // Sweeper::SweepOrphans() without "strictly below".
  void SweepOwnEpoch() {
    ObjectStore& store = *stores_.back();
    std::vector<std::string> found;
    for (const std::string_view prefix : {kSnapshotPrefix, kSegmentPrefix}) {
      auto list = store.List(prefix, "", 1000);
      if (!list.ok()) return;
      for (const ListEntry& entry : *list) found.push_back(entry.key);
    }
    auto manifest = ReadManifest(store);
    if (!manifest.ok() || manifest->manifest.session != disk_.session) return;
    const Manifest& m = manifest->manifest;
    std::set<std::string> named;
    for (const SegmentRecord& s : m.segments) named.insert(s.key);
    for (const Tombstone& t : m.tombstones) named.insert(t.key);
    for (const SnapshotRecord& s : m.snapshots) named.insert(s.key);
    for (const std::string& key : found) {
      if (!named.contains(key)) (void)store.Delete(key);
    }
  }

  // Always the same, for the nonces; names and sessions have others of their own.
  class SameRandom : public Random {
   public:
    uint64_t Next64() override { return 4711; }
  };

  Scheduler& scheduler_;
  History& history_;
  Disk& disk_;
  const WriterSettings settings_;
  const Mutant mutant_;
  SkewedClock clock_;
  SimRandom random_;
  SameRandom same_;
  Sidecar sidecar_;
  std::vector<std::unique_ptr<ObjectStore>> stores_;
  std::vector<std::unique_ptr<MutantStore>> mutants_;
  ObjectStore* claim_store_ = nullptr;
  std::unique_ptr<Recorder> recorder_;
  std::unique_ptr<Shipper> shipper_;
  std::unique_ptr<Snapshotter> snapshotter_;
  std::unique_ptr<Compactor> compactor_;
  std::unique_ptr<Sweeper> sweeper_;
  bool begun_ = false;
  bool dropped_ = false;
  bool over_ = false;
  bool healing_ = false;
  StateName captured_;
  StateName acknowledged_;
  std::map<Slot, std::optional<CapturedState>> at_slot_;
  std::unique_ptr<Strand> claim_;
  std::vector<std::unique_ptr<Strand>> tasks_;
  std::vector<std::unique_ptr<Strand>> background_;
};

}  // namespace guildlite::testing
