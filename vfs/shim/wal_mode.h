// Which journal mode a connection's main database is in, and the way into WAL mode, which only SQL
// on a connection knows.
//
// It leaves an encrypted database alone: what it looks like is not known without the key.
#pragma once

#include <sqlite3.h>

#include "guildlite/status.h"

namespace guildlite {

enum class FileMode {
  kEmpty,     // 0 bytes, or not there
  kRollback,  // delete, truncate, persist: the file does not tell them apart
  kWal,
  kUnknown,  // not SQLite's header: encrypted, or no database
};
// By the file's header, without a statement and without a lock: what another connection is about to
// change may be missed. REQUIRES: called on the connection's thread, between its calls.
FileMode FileModeOf(sqlite3* db);

// PRAGMA journal_mode=WAL on the main database, and a read that opens the WAL. Waits at most
// kWalSwitchWaitMs for others to let go of it, since a connection that was just opened has no busy
// timeout yet. BUSY; BAD_ARGUMENT where waiting does not help. Either way the connection's own
// error code is SQLITE_OK afterwards.
inline constexpr int64_t kWalSwitchWaitMs = 1000;
Status SwitchToWal(sqlite3* db);

}  // namespace guildlite
