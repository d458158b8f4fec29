// What all files of the shim share: SQLite's functions, the VFS below, the host above, the
// registry. Made once by RegisterShim() and never destroyed: SQLite may call into the VFS until the
// process ends.
#pragma once

#include <sqlite3ext.h>

#include "vfs/shim/node_registry.h"
#include "vfs/shim/shim_host.h"

namespace guildlite {

struct ShimState {
  const sqlite3_api_routines& api;
  sqlite3_vfs& base;
  ShimHost& host;
  // The WAL-reset bug is in this SQLite.
  bool guard_resets = false;
  sqlite3_vfs vfs{};  // ours
  NodeRegistry nodes;
};

// Null before RegisterShim() succeeded.
ShimState* TheShim();

}  // namespace guildlite
