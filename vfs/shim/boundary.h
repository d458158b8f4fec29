// The border with SQLite's C: the only place where a Status or a Tag becomes a SQLite result code,
// and where an exception stops.
//
// Invariants:
//   1. Every tag has one primary code (the table of the public surface); an extended code is used
//      only where SQLite itself would say the same.
//   2. What COMMIT returns is never SQLITE_OK, SQLITE_NOTFOUND or SQLITE_BUSY:
//      pager_end_transaction() of pager.c takes NOTFOUND from COMMIT_PHASETWO for success, and BUSY
//      would leave the transaction open although its frames are published (OP_AutoCommit of
//      vdbe.c).
//   3. No exception crosses a function SQLite calls. Guarded() turns one into a code; Shielded() is
//      for work whose result SQLite ignores and which must not stop what comes after it.
//
// Texts do not cross here: an error SQLite makes of a VFS return code has SQLite's stock text, and
// SQL functions report Status::ToString() themselves.
#pragma once

#include <sqlite3.h>

#include <new>
#include <utility>

#include "guildlite/status.h"

namespace guildlite {

// For SQL functions and the entry point.
constexpr int ResultCode(Tag tag) {
  switch (tag) {
    case Tag::kOk:
      return SQLITE_OK;
    case Tag::kBadArgument:
    case Tag::kBadUrl:
    case Tag::kNotReplicated:
      return SQLITE_ERROR;
    case Tag::kBadId:
      return SQLITE_MISMATCH;
    case Tag::kInTransaction:
      return SQLITE_MISUSE;
    case Tag::kTimeout:
    case Tag::kMapConflict:
    case Tag::kMoveInProgress:
    case Tag::kBusy:
      return SQLITE_BUSY;
    case Tag::kStoreUnreachable:
    case Tag::kStoreThrottled:
    case Tag::kNotDurable:
    case Tag::kOutcomeUnknown:
    case Tag::kTlsNoCa:
    case Tag::kLocalIo:
      return SQLITE_IOERR;
    case Tag::kStoreDenied:
      return SQLITE_AUTH;
    case Tag::kNoBucket:
    case Tag::kExists:
    case Tag::kRestoreNeeded:
    case Tag::kStoreUnsafe:
    case Tag::kPrefixClash:
    case Tag::kFormatTooNew:
      return SQLITE_CANTOPEN;
    case Tag::kNoBackup:
    case Tag::kNoSuchPoint:
    case Tag::kPositionLost:
      return SQLITE_NOTFOUND;
    case Tag::kFenced:
    case Tag::kOwned:
    case Tag::kDiverged:
    case Tag::kForked:
    case Tag::kNotOwner:
      return SQLITE_READONLY;
    case Tag::kChainBroken:
      return SQLITE_CORRUPT;
    case Tag::kWrongKey:
      return SQLITE_NOTADB;
    case Tag::kDiskFull:
      return SQLITE_FULL;
    case Tag::kNotFound:
    case Tag::kAlreadyExists:
    case Tag::kPrecondition:
      return SQLITE_INTERNAL;  // these never reach a user: whoever let one through has a bug
  }
  return SQLITE_INTERNAL;
}

// For xOpen and the auto-extension entry: what sqlite3_open() reports. Trouble with a store is
// CANTOPEN: "disk I/O error" would send people to their own disk.
inline int OpenCode(const Status& status) {
  const int code = ResultCode(status.tag());
  switch (code) {
    case SQLITE_OK:
    case SQLITE_BUSY:
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FULL:
      return code;
    default:
      return status.tag() == Tag::kLocalIo ? code : SQLITE_CANTOPEN;
  }
}

// For xShmLock of the WRITE lock: what BEGIN IMMEDIATE or the first write reports. BUSY runs the
// busy handler (sqlite3BtreeBeginTrans() of btree.c); anything else fails at once and leaves no
// trace.
inline int WriteLockCode(const Status& status) {
  if (status.tag() == Tag::kFenced) return SQLITE_READONLY_DBMOVED;
  const int code = ResultCode(status.tag());
  switch (code) {
    case SQLITE_OK:
    case SQLITE_BUSY:
    case SQLITE_READONLY:
    case SQLITE_FULL:
    case SQLITE_AUTH:
    case SQLITE_CORRUPT:
      return code;
    default:
      return SQLITE_IOERR;
  }
}

// For SQLITE_FCNTL_COMMIT_PHASETWO: what COMMIT reports of a transaction that is committed locally.
inline int CommitCode(const Status& status) {
  if (status.ok()) return SQLITE_OK;
  if (status.tag() == Tag::kFenced) return SQLITE_READONLY_DBMOVED;
  switch (ResultCode(status.tag())) {
    case SQLITE_READONLY:
      return SQLITE_READONLY;
    case SQLITE_FULL:
      return SQLITE_FULL;
    default:
      return SQLITE_IOERR_FSYNC;
  }
}

// Runs `work`, which returns a SQLite code; an exception becomes `otherwise`, or SQLITE_NOMEM.
template <class Work>
int Guarded(Work&& work, int otherwise = SQLITE_IOERR) noexcept {
  try {
    return std::forward<Work>(work)();
  } catch (const std::bad_alloc&) {
    return SQLITE_NOMEM;
  } catch (...) {
    return otherwise;
  }
}

// Runs `work` and lets nothing out.
template <class Work>
void Shielded(Work&& work) noexcept {
  try {
    std::forward<Work>(work)();
  } catch (
      ...) {  // the next hook finds whatever this one missed: all of them are triggers, not data
  }
}

}  // namespace guildlite
