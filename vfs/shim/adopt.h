// Adoption: bringing a connection that was opened before us under the shim, by replacing the method
// tables of its open files (as ext/recover/sqlite3recover.c does). The connection that runs
// load_extension() is always such a one.
//
// Invariants:
//   1. Done under the connection's mutex, and only between its file calls.
//   2. The original table comes back before the base VFS's xClose runs: it may free what the file
//   holds.
//   3. The pager keeps its original VFS, so a WAL that is opened later is adopted when the first
//      shm lock of it is taken: SQLite calls none before the WAL is open.
//
// It adopts the main database only, not attached ones.
#pragma once

#include <sqlite3.h>

#include "guildlite/status.h"

namespace guildlite {

// Ok also when it is under the shim already. Runs two PRAGMA queries on `db`, so that a WAL is
// open. Errors: BAD_ARGUMENT for in-memory and temporary databases, shared cache, and a VFS without
// shared memory; RESTORE_NEEDED when FirstOpened() put another file in place while this connection
// holds a lock on the old one; whatever FirstOpened() answers.
Status Adopt(sqlite3* db);

}  // namespace guildlite
