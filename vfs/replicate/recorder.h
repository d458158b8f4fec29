// Recorder: WAL -> captured state -> sealed batches, for one database. The capture mutex lives
// here.
//
// Everything that must agree about "what is captured" is changed together under that one mutex: the
// WAL mark, the page table, the history hash, the batch being encoded, the spool and the running
// scan. The worker advances it; the restart gate advances it on the application's thread when the
// worker is behind; nothing else does.
//
// Invariants:
//   1. The captured state never passes what is published (wal_tailer.h).
//   2. Every transaction above the acknowledged one is in the open batch, in a sealed batch, or
//      still in the WAL; when SecureForDiscard() has returned true, in a spool file or in the WAL
//      that follows it.
//   3. A base is used only if its hash is the page table's, so a wrong base cannot be encoded.
//   4. While a snapshot scan runs, the first version after its start of a page not yet scanned is
//      encoded without base: the snapshot will not have that page.
//   5. A gap (another process reset the WAL before we saw its end, spool lost or over its limit) is
//      never guessed over: it starts a heal, which compares every page of the file with the table.
//   6. A batch, and the object it ships in, never reaches over the start of a scan or a marker.
//
// Thread-safe. No method waits for the store; SecureForDiscard() is bounded by its argument.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "guildlite/clock.h"
#include "guildlite/status.h"
#include "vfs/base/file_io.h"
#include "vfs/capture/database_file.h"
#include "vfs/capture/frame_index.h"
#include "vfs/capture/page_table.h"
#include "vfs/capture/wal_tailer.h"
#include "vfs/format/segment_writer.h"
#include "vfs/replicate/sidecar.h"
#include "vfs/replicate/spool.h"

namespace guildlite {

enum class ScanKind {
  kFirst,     // nothing is known: the file's bytes are the truth, and go into the first snapshot
  kSnapshot,  // the table is known: pages go into a snapshot
  kHeal,      // the table is what the log has, the file may differ: differences go into the log
};

// What ships next. Markers are objects without a body.
struct ShipItem {
  ObjectKind kind = ObjectKind::kData;
  Txid first;
  Txid last;
  CapturedState end;       // after it
  std::string body;        // whole batches, when they fit one object
  uint64_t body_size = 0;  // > body.size(): one huge batch; fetch it by ReadBody()
};

struct ScanChunk {
  bool ready = false;  // false: what is committed is not known yet; wait for a connection
  bool done = false;
  CapturedState end;  // when done: E
  std::vector<PageEntry> entries;
  std::vector<std::byte> images;
};

struct RecorderCounters {
  uint64_t transactions = 0;
  uint64_t pages = 0;
  uint64_t pages_without_base = 0;
  uint64_t gate_helped = 0;  // the application's thread captured something itself
  uint64_t gate_refused = 0;
  uint64_t chain_breaks = 0;
  uint64_t heals = 0;
  uint64_t scanned_pages = 0;  // of the running scan
  uint64_t scan_pages = 0;     // its size; 0: none runs
};

class Recorder {
 public:
  struct Settings {
    uint64_t spool_limit_bytes = 1ull << 30;
  };
  // `published` yields what the wal-index says now, nullopt while no connection has it mapped.
  // `sidecar` is locked and outlives the recorder.
  Recorder(Clock& clock, Sidecar& sidecar, std::string database_path, std::string wal_path,
           std::unique_ptr<DatabaseFile> database,
           std::function<std::optional<Published>()> published, const Settings& settings);
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  // Before anything else, exactly one of these.
  //
  // Nothing is known: a first scan establishes it. The log ends after `txid` with this history (0
  // and HistoryStart() when it is new).
  void StartFirst(Txid txid, uint64_t history_hash);
  // The state is proven: go on after it. `table` belongs to it. The spool may hold pending batches;
  // those through `acknowledged` are in the log. With `unchanged` the proof is that there was no
  // WAL and the database file was that: it is checked again now.
  void StartAt(const CapturedState& state, PageTable table, Txid acknowledged,
               const std::optional<FileIdentity>& unchanged);
  // The log is at `state`, the file somewhere else: heal.
  void StartHeal(const CapturedState& state, PageTable table);

  // Before that, single-threaded: what an earlier process left.
  Spool& spool_for_recovery() { return spool_; }
  DatabaseFile* database() { return database_.get(); }

  // Captures what is published, at most `limit` transactions. Returns how many.
  Result<uint64_t> CatchUp(uint64_t limit);
  // Whether something published is not captured yet.
  bool Behind();
  // Whether what is published is all that is committed, or nothing else can be.
  bool SeesAll();

  // A gate is near: what was captured is sealed and written out, so that little is left to do in
  // it. Once a generation: checkpoints that a reader holds up come with every commit, and batches
  // of one transaction compress badly.
  Status SealAhead();
  // The gate. False: the mutex was held elsewhere for longer than `wait_ms`. `closing`: the WAL is
  // about to be deleted, and what follows may not be WAL mode at all.
  bool SecureForDiscard(int64_t wait_ms, bool closing);
  // Around every hold of SQLite's WRITE lock: a reset granted and done within one hold is ours, so
  // the generation that follows is linked to what was captured.
  void WriteLockTaken();
  void WriteLockReleasing();
  // `exclusive`: the connection takes no shm locks (locking_mode=EXCLUSIVE), so this is the only
  // gate.
  void WalHeaderWriting(const WalHeader& header, bool exclusive);
  // What SecureForDiscard() took for a close was none, and its -wal goes on.
  void CloseAbandoned();
  // The EXCLUSIVE lock ends. After a close whose gate was passed the file now holds what was
  // captured; waits until a later change of it cannot hide in the same tick of its clock.
  void LeavingExclusive();
  // The published state is about to be out of sight: captures what it still says, if the mutex is
  // to be had within `wait_ms`.
  void IndexLeaving(int64_t wait_ms);

  // Transactions up to `txid` and skipped: they are in the log already (put by an earlier process
  // whose acknowledgement was lost). At `txid` the history must be `history_hash`, else a heal
  // starts.
  void SkipUntil(Txid txid, uint64_t history_hash);

  // Catches up, seals and returns the next thing to put after `acknowledged`; nullopt: nothing.
  Result<std::optional<ShipItem>> NextToShip(Txid acknowledged, uint64_t body_max);
  Result<std::string> ReadBody(Txid first, uint64_t offset, uint64_t length);
  void Acknowledge(const ShipItem& item);
  // Everything through `txid` is in the log.
  void AcknowledgeThrough(Txid txid);
  // The state after the pending batch that ends at `txid` with this history; nullopt when none
  // does.
  std::optional<CapturedState> AdoptableEnd(Txid txid, uint64_t history_hash);
  // What is pending cannot ship any more; see dropped().
  void DropQueue(std::string why);
  // Makes everything written to the WAL so far survive power loss (hazard H5).
  Status SyncWal();

  // Scans. BeginScan() is refused (false) while one runs; id changes whenever the running scan is
  // restarted or replaced, and ScanStep() of an old id returns kPrecondition.
  struct ScanInfo {
    uint64_t id = 0;
    ScanKind kind = ScanKind::kSnapshot;
    CapturedState start;  // S
  };
  bool BeginSnapshotScan();
  std::optional<ScanInfo> scan();
  Result<ScanChunk> ScanStep(uint64_t id, uint32_t pages_max);
  void AbandonScan(uint64_t id);

  // Writes spool and page table so that a restart is cheap; with `sync` it survives power loss.
  Status Flush(bool sync);
  // With nothing in the WAL: everything captured and the table flushed. `file` is the database as
  // it was just now; an error unless it is proven that this holds what was captured and nothing
  // else. `closing`: at the last close, and it survives power loss.
  Result<CapturedState> FlushAtRest(const FileIdentity& file, bool closing);

  // Replication ends here: what an application's thread is doing inside has ended when this
  // returns, and nothing of the sidecar is touched after it.
  void Retire();

  CapturedState captured();
  // Inside a heal: nothing captured is a restore point until it ends.
  bool healing();
  // The same, until the log has the heal's end.
  bool unsettled();
  // The database left WAL mode and nothing tells yet whether it is back: commits are not captured.
  bool left_wal();
  // A first scan or a heal waits for a connection: nothing tells what is committed.
  bool scan_waits();
  // Not empty: the WAL went back behind what was captured (SQLite's ROLLBACK TO bug followed by a
  // crash, or somebody put an older WAL in place). Nothing is captured any more.
  std::string diverged();
  // The spool went over its limit or could not be written: the queue was dropped. The owner takes a
  // new epoch and calls RestartFrom() with what the log has.
  bool dropped();
  // `same_history`: the log's state is one of those captured here; else the page table says nothing
  // about it and every page ships.
  void RestartFrom(const CapturedState& log_state, bool same_history = true);

  RecorderCounters counters();
  // The low 32 bits of the history hash at `txid`, while it is among the last kChecksMax captured
  // here.
  std::optional<uint32_t> CheckAt(Txid txid);
  // Commit time of the oldest transaction not acknowledged; 0: none.
  int64_t oldest_pending_ms();
  uint64_t pending_bytes();
  uint64_t spool_bytes();
  std::string TakeWarning();  // the last loud event, once; "" = none

 private:
  struct Scan {
    uint64_t id = 0;
    ScanKind kind = ScanKind::kFirst;
    CapturedState start;
    uint32_t pages = 0;
    uint32_t next = 1;
    std::vector<bool> touched;
    std::vector<bool> scanned;
    std::vector<uint32_t> retry;
    uint32_t retries = 0;
    bool size_owed =
        false;  // kHeal: the file's size is not the log's, and no transaction said so yet
  };
  struct Marker {
    ObjectKind kind;
    CapturedState at;
  };

  // A mutex whose wait can be bounded, by the Clock seam.
  class Guard;
  bool LockFor(int64_t wait_ms);
  void Lock();
  void Unlock();

  // REQUIRE the lock.
  void Reset();
  Result<uint64_t> CatchUpLocked(uint64_t limit);
  Status EnsureWalOpen();
  Status EnterGeneration(const Published& published);
  bool NothingMissedBefore(const Published& published);
  Status Apply(const WalTransaction& wal);
  Status Encode(Transaction* t, const std::vector<PageEntry>& entries,
                const std::function<Status(size_t, std::span<std::byte>)>& read_image);
  bool ReadBase(Pgno pgno, uint64_t hash, std::span<std::byte> out);
  void SealOpen();
  void BeginScanLocked(ScanKind kind);
  void BeginHealLocked(std::string why);
  void Drop(std::string why);
  void DropOverLimit();
  bool BehindLocked();
  bool AtRestLocked();
  bool SeesAllLocked();
  Status SecureLocked();
  Status FlushLocked(bool sync);
  Status EmitHealPages(const std::vector<PageEntry>& entries, std::span<const std::byte> images);
  uint32_t FilePages();

  Clock& clock_;
  Sidecar& sidecar_;
  const std::string database_path_;
  const std::string wal_path_;
  const std::unique_ptr<DatabaseFile> database_;
  const std::function<std::optional<Published>()> published_;
  const Settings settings_;

  std::atomic<bool> granted_{false};  // a gate was passed since the WRITE lock was taken
  std::atomic<bool> closing_{false};  // a close passed its gate and holds the EXCLUSIVE lock

  std::mutex mutex_;
  std::condition_variable unlocked_;
  bool locked_ = false;

  // All below: the capture mutex.
  File wal_;
  std::optional<WalTailer> tailer_;
  std::optional<WalHeader> header_;  // of the generation of state_.mark
  CapturedState state_;
  bool any_generation_ =
      false;  // the next generation is taken as it is: a scan covers what was before
  std::optional<WalLink> link_;
  std::optional<FileIdentity> unchanged_;  // of the database, while it alone is what was captured
  std::atomic<bool> closed_over_{
      false};  // the WAL was given up by a close: nothing links over that
  std::optional<FileIdentity> closed_wal_;  // the -wal then
  bool log_ahead_ = false;  // dropped while the log held more than the table knows of
  PageTable table_;
  Txid table_header_;
  bool table_must_flush_ = false;     // transactions were captured that no spool batch holds
  std::vector<bool> unacknowledged_;  // pages changed since everything was acknowledged
  FrameIndex frame_of_;               // what was captured of this generation
  std::unique_ptr<BatchWriter> writer_;
  uint64_t taken_ = 0;  // of the open batch's bytes, in the spool file already
  Transaction last_;    // of the open batch
  bool batch_starts_object_ = false;
  bool sealed_ahead_ = false;  // in this generation
  Spool spool_;
  std::deque<Marker> markers_;
  std::optional<Scan> scan_;
  uint64_t next_scan_id_ = 1;
  bool healing_ = false;
  bool dropped_ = false;
  std::string diverged_;
  bool wal_dirty_ = false;  // captured frames not known to be on disk
  std::optional<std::pair<Txid, uint64_t>> skip_;
  bool estimated_ = true;        // until the first live commit: times are estimates
  std::deque<uint32_t> checks_;  // of the newest transactions, up to state_.txid
  int64_t open_first_ms_ = 0;    // commit time of the open batch's first transaction
  RecorderCounters counters_;
  std::string warning_;
};

}  // namespace guildlite
