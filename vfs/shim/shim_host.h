// What the shim asks of the program above it (the engine), so that the VFS can be built and tested
// without a replicator.
//
// A Node is one database file open in this process, by canonical path: it lives from the first
// xOpen to the last xClose and is shared by all connections of that file, whether they have it as
// their main database or attached. Its WalEvents may be
// installed and removed at any time, from any thread; a database without them passes straight
// through (one atomic load a call).
//
// A file that is replaced while open (its path names another inode) gets a second Node for whoever
// opens the new one; the first lives on for those who still have the old.
#pragma once

#include <memory>
#include <string>

#include "guildlite/status.h"
#include "vfs/capture/database_file.h"
#include "vfs/replicate/wal_events.h"

struct sqlite3;

namespace guildlite {

class Node {
 public:
  virtual ~Node() = default;
  virtual const std::string& path() const = 0;
  // The name of its -wal, as SQLite names it.
  virtual const std::string& wal_path() const = 0;
  // A handle of our own from the base VFS's xOpen, read-only, not the application's.
  virtual Result<std::unique_ptr<DatabaseFile>> OpenDatabaseFile() = 0;
  // From now on the node's files report to `events`; mapped wal-indexes are announced before it
  // returns (hold no lock that IndexMapped takes), and taken back from an object it replaces.
  // The node keeps every events object it was ever given until it dies itself: a connection may be
  // inside a call.
  virtual void Install(std::shared_ptr<WalEvents> events) = 0;
  // The events object gets an IndexUnmapping for every index it was told of.
  virtual void Remove() = 0;
  virtual std::shared_ptr<WalEvents> events() const = 0;
  // Whether any connection opened it for writing.
  virtual bool writable() const = 0;
  // Whether FirstOpened() was called for a connection that may only read.
  virtual bool first_read_only() const = 0;
  // Some process may put another file in place of this one (rejoin.cc): a connection whose file is
  // not the one of that name any more when it takes its first lock is refused it, CANTOPEN.
  virtual void ExpectReplacement() = 0;
};

class ShimHost {
 public:
  virtual ~ShimHost() = default;
  // The first connection of a database was opened (or adopted). SQLite opens what is attached as it
  // opens a main database, so nobody knows yet which of the two it is. Called on the opening
  // thread, not under any lock of the node registry but before xOpen returns; a second xOpen of the
  // same path waits for it, at most NodeRegistry::kOpenWaitMs, and then answers BUSY. An error
  // fails the xOpen with its code.
  //
  // A file that does not exist is not created before this returns Ok: it may be put in place here,
  // and an error leaves none behind. A file that exists may be replaced here (rename over it): the
  // connection then goes on with the new one. An adopted connection can follow only if it holds no
  // lock and maps no index, else adoption ends in RESTORE_NEEDED. An adoption that is refused stays
  // one if events were installed: they can refuse what the connection does next.
  //
  // A connection opened inside this call through the default VFS joins the node without waiting.
  virtual Status FirstOpened(Node& node) = 0;
  // `db` is the first connection that has the node's file as its main database: called by
  // ConfirmMain(), once a node unless it fails, on the thread of `db` and before sqlite3_open()
  // returns it (or within the load that adopted it), so statements may be run on it. A second such
  // connection waits for this as it would for FirstOpened(). No connection of the same file may be
  // opened inside.
  virtual Status OpenedAsMain(Node& node, sqlite3* db) = 0;
  // The last connection is about to be closed: its xClose has not reached the base VFS yet, the
  // -wal is already closed (and deleted, unless MayDiscardWal(kClose) was refused). A new xOpen of
  // the same path waits for this. Bounded. Not called after a failed FirstOpened. A connection
  // abandoned by a forked child does not count.
  virtual void LastClosing(Node& node) = 0;
};

}  // namespace guildlite
