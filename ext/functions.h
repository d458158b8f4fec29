// The SQL functions. Each checks its arguments, makes one call into the engine and turns the answer
// into a value or a tagged error: "TAG: what was being done to what, what to do".
//
//   actions          SQLITE_DIRECTONLY: never from a trigger, a view or a schema; refused inside a
//                    transaction (IN_TRANSACTION); return a position as TEXT unless said
//   pure functions   SQLITE_INNOCUOUS | SQLITE_DETERMINISTIC
//
// A missing or NULL argument means its default. Integral REALs are integers everywhere but in ids:
// better-sqlite3 binds every JavaScript number as REAL, and an id that went through one has lost
// bits. No INTEGER returned exceeds 2^53-1; ids, positions and hashes are TEXT.
#pragma once

#include <sqlite3.h>

namespace guildlite {

// Registers all of them on a connection. Returns a SQLite code.
int RegisterFunctions(sqlite3* db);

}  // namespace guildlite
