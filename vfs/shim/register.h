// The VFS "guildlite": a pass-through over the host's default VFS, registered as the new default,
// so that programs which never name a VFS (better-sqlite3 has no such option) come through it.
//
// Invariants:
//   1. SQLite is used through the sqlite3_api_routines of the first load and nothing else.
//   2. One shim a process. A second copy of the module (another path, loaded twice) finds the first
//      by its name and leaves everything alone.
//   3. Only main databases and their WALs are wrapped; every other file is opened by the base VFS
//      into the memory SQLite gave us, as if we were not there.
//   4. In a forked child all hooks pass straight through: no event, no registry, no callback.
//
// It does not unregister: a default VFS may be in use until the process ends.
#pragma once

#include <sqlite3.h>

#include <memory>
#include <string>

#include "guildlite/status.h"
#include "vfs/shim/shim_host.h"

namespace guildlite {

enum class Registered {
  kNew,
  kAlreadyOurs,       // this copy did it before; `host` is ignored, the first one stays
  kAlreadyOtherCopy,  // another copy of the module owns the name: do nothing in this one
};

// `host` must live as long as the process. Any thread; auto-extension entries are the caller's
// business. Errors: BAD_ARGUMENT for a SQLite without threads, older than 3.32.0 or without a VFS,
// and for an `api` that belongs to another SQLite library than the first call's.
Result<Registered> RegisterShim(ShimHost& host, const sqlite3_api_routines* api);

// To be called at the end of every sqlite3_open() (an auto-extension entry is), and for a
// connection that was adopted: tells the host which files are main databases. An error is for the
// open, or the load, to report.
Status ConfirmMain(sqlite3* db);

// The node of a connection's main database; nullptr when in-memory, temporary, or not opened
// through the shim nor adopted. Also finds ours below another shim.
std::shared_ptr<Node> FindNode(sqlite3* db);
// By the full path SQLite uses (sqlite3_db_filename); nullptr when it is not open.
std::shared_ptr<Node> FindNodeByPath(const std::string& path);

// Whether this SQLite has the WAL-reset bug (sqlite.org/wal.html#walresetbug) and checkpoints of
// replicated databases are guarded against it.
bool WalResetGuardActive();

// Set by a pthread_atfork handler, and by a changed pid at the next open.
bool InForkedChild();

}  // namespace guildlite
