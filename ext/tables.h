// The SQL tables, eponymous and read-only: replication_status and snapshot_list([url]). Rows are
// copied when a scan begins, so they are one moment's and hold nothing.
#pragma once

#include <sqlite3.h>

namespace guildlite {

// Registers all of them on a connection. Returns a SQLite code.
int RegisterTables(sqlite3* db);

}  // namespace guildlite
