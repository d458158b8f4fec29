// WalEvents: what the VFS shim tells the replicator of one database, and what the replicator may
// refuse. Triggers and veto points, never a source of data: no page passes through here.
//
// Called on SQLite's threads, several connections at once; the only floor-crossing that is. None of
// these waits for the store unless the user asked for it (Committed in durable mode), and every
// wait is bounded. Bytes of a wal-index are read only between IndexMapped and IndexUnmapping of an
// owner.
//
// Source of the hook points: the call order of one commit, shared study of wal.c and pager.c:
//   lock WRITE -> [lock READ1..4 X, reset] -> [WAL header] -> frames -> wal-index -> unlock WRITE
//   -> SQLITE_FCNTL_COMMIT_PHASETWO -> unlock READn
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "guildlite/status.h"
#include "vfs/capture/wal_format.h"

namespace guildlite {

// Why WAL content is about to go.
enum class DiscardReason {
  kReset,      // READ1..4 exclusive: walRestartLog() or a RESTART/TRUNCATE checkpoint
  kLoneReset,  // the same in locking_mode=EXCLUSIVE, seen at the WAL header: a refusal fails a
               // COMMIT
  kTruncate,   // xTruncate of the -wal below what was captured
  kClose,  // EXCLUSIVE lock on a WAL database: last close or journal_mode change checkpoints and
           // deletes without touching the shm locks
};

class WalEvents {
 public:
  virtual ~WalEvents() = default;

  // Region 0 of the wal-index is mapped through file `owner`, until IndexUnmapping(owner) returns:
  // that call waits while a worker reads the region.
  virtual void IndexMapped(const void* owner, const volatile void* region0) = 0;
  virtual void IndexUnmapping(const void* owner) = 0;

  // Before the WRITE lock is passed down. An error refuses the write with its code.
  virtual Status BeforeWriteLock() = 0;

  // Before the RESERVED lock on the database file: a write in rollback mode, also the one that
  // switches to WAL mode. An error refuses it with its code.
  virtual Status BeforeRollbackWrite() { return Status::Ok(); }
  // Before the first frame of a generation is written without a WRITE lock
  // (locking_mode=EXCLUSIVE): nothing comes earlier there. An error refuses the write with its
  // code.
  virtual Status BeforeExclusiveWrite() { return Status::Ok(); }

  // Right before the WRITE lock is released, after commit or rollback.
  virtual void BeforeWriteUnlock() = 0;

  // SQLITE_FCNTL_COMMIT_PHASETWO. `exclusive_commit_frame`: set when the connection holds no shm
  // WRITE lock of its own (locking_mode=EXCLUSIVE): the index of the commit frame written last. An
  // error is returned by COMMIT although the transaction is committed locally.
  virtual Status Committed(std::optional<uint32_t> exclusive_commit_frame) = 0;

  // A checkpoint begins (its lock is held). A reset often follows: what is done meanwhile on the
  // worker is not left for MayDiscardWal.
  virtual void CheckpointBegins() {}

  // False: the WAL holds something that could not be secured in time; the shim answers SQLITE_BUSY.
  virtual bool MayDiscardWal(DiscardReason reason) = 0;

  // After a granted kClose the very -wal is written on: the EXCLUSIVE lock was asked for
  // locking_mode=EXCLUSIVE (sqlite3PagerBegin()), and nobody else can have written since.
  virtual void CloseAbandoned() {}

  // The database's EXCLUSIVE lock is about to be given up, after a close, a change of journal mode,
  // or locking_mode=EXCLUSIVE: until this returns nobody else can have written.
  virtual void LeavingExclusive() {}

  // A new WAL header (xWrite of 32 bytes at offset 0 of the -wal) is about to be written. Always
  // after a granted MayDiscardWal, or on a new or empty WAL.
  virtual void WalHeaderWriting(std::span<const std::byte, kWalHeaderSize> header) = 0;
};

}  // namespace guildlite
