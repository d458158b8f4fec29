// What the shim asks of the program above it (the engine), so that the VFS can be built and tested
// without a replicator.
//
// A Node is one main database file open in this process, by canonical path: it lives from the first
// xOpen to the last xClose and is shared by all connections of that file. Its WalEvents may be
// installed and removed at any time, from any thread; a database without them passes straight through
// (one atomic load a call).
#pragma once

#include <memory>
#include <string>

#include "guildlite/status.h"
#include "vfs/capture/database_file.h"
#include "vfs/replicate/wal_events.h"

namespace guildlite {

class Node {
 public:
  virtual ~Node() = default;
  virtual const std::string& path() const = 0;
  // The name of its -wal, as SQLite names it.
  virtual const std::string& wal_path() const = 0;
  // A handle of our own from the base VFS's xOpen, read-only, not the application's.
  virtual Result<std::unique_ptr<DatabaseFile>> OpenDatabaseFile() = 0;
  // From now on the node's files report to `events`; mapped wal-indexes are announced at once.
  // The node keeps every events object it was ever given until it dies itself: a connection may be
  // inside a call.
  virtual void Install(std::shared_ptr<WalEvents> events) = 0;
  virtual void Remove() = 0;
  virtual std::shared_ptr<WalEvents> events() const = 0;
  // Whether any connection opened it for writing.
  virtual bool writable() const = 0;
};

class ShimHost {
 public:
  virtual ~ShimHost() = default;
  // The first connection of a main database was opened (or adopted). Called on the opening thread, not
  // under any lock of the node registry but before xOpen returns; a second xOpen of the same path
  // waits for it. An error fails the xOpen with its code.
  virtual Status FirstOpened(Node& node) = 0;
  // The last connection is about to be closed: its xClose has not reached the base VFS yet, the -wal is
  // already closed. A new xOpen of the same path waits for this. Bounded.
  virtual void LastClosing(Node& node) = 0;
};

}  // namespace guildlite
