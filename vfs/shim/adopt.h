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
//   4. A connection follows to another file put in place of an empty one only where nobody can have
//      read the old: it holds no lock, maps no index, and is the only one.
//
// It adopts the main database only, not attached ones.
#pragma once

#include <sqlite3.h>

#include <functional>

#include "guildlite/status.h"

namespace guildlite {

// Ok also when it is under the shim already. Runs two PRAGMA queries on `db`, so that a WAL is
// open. Errors: BAD_ARGUMENT for in-memory and temporary databases, shared cache, and a VFS without
// shared memory; RESTORE_NEEDED when FirstOpened() put another file in place while this connection
// holds a lock on the old one; whatever FirstOpened() answers.
Status Adopt(sqlite3* db);

// Runs `put`, which may rename another file over the main database of `db`, and brings the
// connection to that. REQUIRES: under the shim; no statement of it runs. RESTORE_NEEDED, and `put`
// is not run, when the file is in use.
Status ReplaceMain(sqlite3* db, const std::function<Status()>& put);

}  // namespace guildlite
