// Replicator: the whole of one replicated database in this process. The only room that knows the
// others: it opens the sidecar, decides by reconcile, claims, and then lets recorder, shipper and
// snapshotter work as tasks of the pool. SQLite's threads reach it through WalEvents and the calls
// below.
//
//   Start()  lock the sidecar -> examine what is here (WAL, spool, page table, clean-close record)
//   settle   (pool) look at the store -> Reconcile() -> wait for the owner's release, at most
//            takeover_after_ms -> claim -> start the recorder
//   Close()  last connection: flush within a bound, release the log, record the clean close, unlock
//
// Invariants:
//   1. Nothing is captured or shipped before the claim is settled, or open_wait_ms has passed with
//      the local state proven: what a process before us may still have in flight must be seen
//      first.
//   2. Until then a write waits briefly and gets BUSY; after open_wait_ms it goes on, loudly
//      unshipped. Not while an owner that is known to be there has time left to release the log.
//   3. A refusal (FENCED, DIVERGED, ...) refuses writes from then on; reads always work. What a
//      deposed writer had committed beyond the log is kept under orphans/ (deposed.cc).
//   4. Close() ends within its bound whatever the store does. A Step that hangs in the store then
//   is
//      left behind: all it will hear from the store is an error, so it changes nothing any more, as
//      if the process had been killed in that put; the object must live until gone().
//
// Threads: any, except where said. States, closed list: see StateName().
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "guildlite/clock.h"
#include "guildlite/object_store.h"
#include "guildlite/options.h"
#include "vfs/base/task.h"
#include "vfs/capture/database_file.h"
#include "vfs/objects/cut_off_store.h"
#include "vfs/replicate/claim.h"
#include "vfs/replicate/compactor.h"
#include "vfs/replicate/log_history.h"
#include "vfs/replicate/reconcile.h"
#include "vfs/replicate/recorder.h"
#include "vfs/replicate/shipper.h"
#include "vfs/replicate/sidecar.h"
#include "vfs/replicate/snapshotter.h"
#include "vfs/replicate/sweeper.h"
#include "vfs/replicate/wal_events.h"

namespace guildlite {

enum class ReplicationState {
  kStarting,  // the claim is not settled yet
  kScanning,  // first scan: nothing is durable before it ends
  kReplicating,
  kHealing,    // comparing every page; durable stays where it was
  kUnshipped,  // the store does not answer: commits go on, nothing ships
  kFenced,     // another writer owns the log; writes are refused
  kDiverged,   // local content and log are not one history; writes are refused
  kNotWal,     // another journal mode: what is committed is not captured
  kStopped,
};
std::string_view StateName(ReplicationState state);

// How often the manifest is read while its owner may yet release the log.
inline constexpr int64_t kReleasePollMs = 1000;

struct ReplicationStatus {
  std::string database;
  std::string url;
  ReplicationState state = ReplicationState::kStarting;
  std::optional<Position> position;
  std::optional<Position> durable_position;
  Epoch epoch;
  int64_t lag_ms = 0;
  uint64_t pending_transactions = 0;
  uint64_t pending_bytes = 0;
  uint64_t spool_bytes = 0;
  uint64_t wal_bytes = 0;
  ShipCounters ship;
  RecorderCounters capture;
  uint64_t snapshots = 0;
  std::string last_error;
  int64_t last_error_ms = 0;
  std::string owner;           // of the log; "" = not known
  int64_t owner_since_ms = 0;  // 0 = not known
  int64_t owner_read_ms = 0;   // when the manifest said so; 0 = by our own claim
};

class Replicator final : public WalEvents {
 public:
  struct Setup {
    Clock* clock = nullptr;
    Random* random = nullptr;
    WorkerPool* pool = nullptr;
    std::string path;
    std::string wal_path;
    std::unique_ptr<DatabaseFile> database;
    std::unique_ptr<ObjectStore> store;
    Options options;
    bool asked = false;  // configuration given now, not found in the sidecar
    // A caller waits for the claim: what another try may not mend is its answer. Else it is tried
    // again, and the database goes on unshipped.
    bool waited_for = false;
    std::string owner;  // host and process, for people
    Session yielded;    // an owner whose release was waited for already
    std::function<std::optional<Published>(const volatile void*)> read_published;
    // The database has been idle for a while: arm whatever notices other processes' writes to its
    // -wal. What it noticed comes back by Poke().
    std::function<void()> idle;
    std::function<void(Tag, const std::string&)> warn;
  };
  // OWNED, STORE_UNSAFE, LOCAL_IO. The claim goes on in the background.
  static Result<std::shared_ptr<Replicator>> Start(Setup setup);
  ~Replicator() override;

  // WalEvents
  void IndexMapped(const void* owner, const volatile void* region0) override;
  void IndexUnmapping(const void* owner) override;
  Status BeforeWriteLock() override;
  Status BeforeRollbackWrite() override;
  Status BeforeExclusiveWrite() override;
  void BeforeWriteUnlock() override;
  Status Committed(std::optional<uint32_t> exclusive_commit_frame) override;
  bool MayDiscardWal(DiscardReason reason) override;
  void CheckpointBegins() override;
  void CloseAbandoned() override;
  void LeavingExclusive() override;
  void WalHeaderWriting(std::span<const std::byte, kWalHeaderSize> header) override;

  // After a refusal: waits until what the log does not have is kept under orphans/ (or nothing has
  // to be). NOT_DURABLE when it is not in time.
  Status WaitKept(int64_t timeout_ms);
  // How far the saving of the whole database has come at best, in pages read: it grows while that
  // gets on, and a try that only repeats another adds nothing.
  uint64_t kept_pages() const { return kept_pages_.load(); }
  // Waits until the claim is settled: Ok, the refusal, or TIMEOUT.
  Status WaitSettled(int64_t timeout_ms);
  // Everything committed before the call becomes durable. 0: only kicks it.
  Status Sync(int64_t timeout_ms);
  // 1 when durable, 0 on timeout. POSITION_LOST.
  Result<bool> Wait(const Position& position, int64_t timeout_ms);
  // Covers every commit published before the call. nullopt before the claim.
  std::optional<Position> position();
  std::optional<Position> durable_position();
  Result<Position> CreateSnapshot(std::string label, int64_t timeout_ms);
  ReplicationStatus status();
  std::string last_error();
  const Options& options() const { return setup_.options; }
  ObjectStore& store() { return *setup_.store; }
  const std::string& path() const { return setup_.path; }

  // Something may have been written by somebody else. Cheap.
  void Poke();
  // Flushes, releases the log and forgets the url. NOT_DURABLE (nothing changed) if not flushed
  // in time.
  Status Stop(int64_t timeout_ms);
  // Flushes within the bound, and has the log released then, without waiting for that: Close()
  // does.
  void Release(int64_t timeout_ms);
  // The last connection closes, or the process exits: flush within the bound, remember, unlock.
  // Does nothing if a Stop() under way does not end in that time.
  void Close(int64_t timeout_ms);
  // Whether nothing of it runs any more. REQUIRES: after Close() or Stop().
  bool gone();
  // In a forked child.
  void AbandonInChild();

 private:
  class SettleTask;
  class CaptureTask;
  class ErrandTask;
  struct Ending;
  struct Local;
  struct Lookup;

  explicit Replicator(Setup setup);
  Status Examine();
  Result<bool> TipReachedByWal(const StoreView& view);
  // One try; Ok when settled or refused. `again_ms`: when to try again otherwise.
  int64_t Settle(int64_t now_ms);
  Status SettleNow();
  Status Compare(const CapturedState& tip, CapturedState* state, PageTable* table);
  Status Heal(const StoreView& claimed);
  Result<StoreView> TakeEpoch(const StoreView* view,
                              const std::optional<CapturedState>& rewind = std::nullopt);
  bool OwnsLog(const Manifest& manifest) const;
  bool PlansFirst() const;
  bool AwaitsRelease(const Manifest& manifest);
  void NoteOwner(const Manifest& manifest, bool claimed);
  void BeginShipping(const StoreView& view);
  void Refuse(const Status& status);
  void Note(const Status& error);
  void OnShipperStopped(const Status& status);
  int64_t CaptureStep(int64_t now_ms);
  std::optional<Published> ReadPublishedNow();
  Status MayWrite();
  void GoUnshipped(const Status& why);
  bool InRollbackMode();
  Position PositionOf(const CapturedState& state);
  bool RecordClean(bool closing);
  Status WriteSidecar(Session session, Session planned, Lineage lineage, Epoch epoch);
  bool Flushed();
  bool BeginEnding(int64_t timeout_ms);
  void EndEnding();
  void RunErrand(std::function<void()> errand);
  void MarkReleased(bool released);
  void AwaitReleaseMark(int64_t deadline_ms);
  void NameWhoFenced();
  std::optional<Result<std::optional<uint64_t>>> LookUp(const Position& position,
                                                        const EpochSlots& slots,
                                                        int64_t deadline_ms);
  Status Flush(int64_t timeout_ms, bool closing);
  bool RefuseIfDiverged();
  // After a refusal, of what was committed here: not kept anywhere else; to be looked for; the
  // shipper puts the tail of it; all of the database has to be saved, or is for good measure; done.
  enum class Keeping { kNot, kFind, kTail, kWhole, kCopy, kKept };
  void KeepFrom(Keeping keeping);
  int64_t KeepStep(int64_t now_ms);
  Result<bool> ShipTail();
  Status KeepWhole(bool copy);
  void TailKept(const Shipper::OrphanProgress& tail);
  void Kept(const std::string& what, const std::optional<Position>& position);
  void NoteKeeping(const std::string& what);
  bool ToBeReplaced() const;
  void NoteKeptPages(uint64_t pages);
  std::vector<Task*> Tasks();
  void RemoveTasks(int64_t deadline_ms);
  void WarnOfUnflushed();
  void Wake(Task* task) { setup_.pool->Wake(task); }

  Setup setup_;
  CutOffStore* cut_off_ = nullptr;  // setup_.store
  Sidecar sidecar_;
  std::unique_ptr<Recorder> recorder_;
  std::unique_ptr<Shipper> shipper_;
  std::unique_ptr<Snapshotter> snapshotter_;
  std::unique_ptr<Compactor> compactor_;
  std::unique_ptr<Sweeper> sweeper_;
  std::unique_ptr<SettleTask> settle_task_;
  std::unique_ptr<CaptureTask> capture_task_;
  std::unique_ptr<ErrandTask> errand_task_;
  std::optional<SidecarState> state_;  // as the sidecar has it; the settle task's, then Close()'s
  // What Examine() found, until settled. The settle task's, which changes what GoUnshipped() may
  // take of it under begin_mutex_ alone.
  std::unique_ptr<Local> local_;
  Session planned_;  // of a new epoch of our own log whose claim did not come to its end
  Session awaited_;  // whose release is waited for, and how long; the settle task's
  int64_t awaited_until_ms_ = 0;
  bool await_again_ = false;
  std::atomic<int64_t> open_until_ms_{0};  // monotonic: when writes go on unshipped
  std::atomic<bool> awaiting_{false};      // an owner has time left to release the log
  uint32_t keep_failures_ = 0;
  std::atomic<uint64_t> kept_pages_{0};

  // The wal-index.
  std::mutex index_mutex_;
  std::map<const void*, const volatile void*> indexes_;
  std::atomic<bool> exclusive_{false};
  Published exclusive_published_;  // index_mutex_

  std::atomic<bool> recording_{false};  // the recorder was started
  std::atomic<bool> settled_{false};
  std::atomic<bool> epoch_wanted_{false};  // the queue was dropped and the shipper has stopped
  std::atomic<bool> refused_{false};
  std::atomic<Keeping> keeping_{Keeping::kNot};
  std::atomic<bool> deposed_{false};    // ours was an earlier epoch of this log
  std::atomic<bool> gate_near_{false};  // a checkpoint began
  std::atomic<bool> polling_{
      false};  // the capture task looks by itself within a millisecond or two
  std::atomic<bool> stopping_{false};  // Stop() flushes: no write may slip in behind it
  std::atomic<bool> closed_{false};
  std::atomic<bool> unshipped_{false};
  int quiet_polls_ = 0;  // the capture task's, and the next
  Txid captured_seen_;

  // Whether capture has begun, and with what. Held over the spool's files, never over the store.
  // Taken before mutex_ and the capture mutex.
  std::mutex begin_mutex_;

  std::atomic<bool> marked_{false};  // the manifest may say that the log is released

  std::mutex mutex_;
  std::condition_variable changed_;
  // mutex_:
  bool ending_ = false;  // Stop() or Close() is under way: one of them, once
  std::deque<std::function<void()>> errands_;
  bool release_posted_ = false;
  std::map<std::string, std::shared_ptr<Lookup>> lookups_;  // by position
  std::string owner_;
  int64_t owner_since_ms_ = 0;
  int64_t owner_read_ms_ = 0;
  Status refusal_;
  Status refused_why_;  // without what became of the content
  std::string kept_;
  Status last_error_;
  int64_t last_error_ms_ = 0;
  std::vector<PastEpoch> past_epochs_;
  bool tasks_added_ = false;
};

}  // namespace guildlite
