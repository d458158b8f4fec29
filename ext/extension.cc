// The entry point: registers the VFS as default, adopts the connection that loads us, and brings
// functions and tables to it and, by sqlite3_auto_extension(), to every later one.
//
// Loading twice, or two copies of the file, is harmless: the first owns the process.

#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT1

#include "ext/functions.h"
#include "ext/tables.h"
#include "guildlite/guildlite.h"
#include "guildlite/options.h"
#include "vfs/base/log.h"
#include "vfs/shim/adopt.h"
#include "vfs/shim/boundary.h"
#include "vfs/shim/engine.h"
#include "vfs/shim/register.h"

namespace guildlite {
namespace {

int RegisterSurface(sqlite3* db) {
  const int rc = RegisterFunctions(db);
  return rc == SQLITE_OK ? RegisterTables(db) : rc;
}

// Runs at the end of every sqlite3_open(). An error would fail the open, so
// SQLITE_OK_LOAD_PERMANENTLY must not be returned here.
int AutoEntry(sqlite3* db, char** error_message, const sqlite3_api_routines*) noexcept {
  Status status(Tag::kLocalIo, "guildlite: cannot register its functions");
  const int rc = Guarded(
      [&] {
        const int registered = RegisterSurface(db);
        if (registered != SQLITE_OK) return registered;
        status = ConfirmMain(db);
        return OpenCode(status);
      },
      SQLITE_ERROR);
  if (rc != SQLITE_OK && error_message) {
    *error_message = sqlite3_mprintf("%s", status.ToString().c_str());
  }
  return rc;
}

int Load(sqlite3* db, char** error_message, const sqlite3_api_routines* api) {
  const auto fail = [&](const Status& status) {
    if (error_message) *error_message = sqlite3_mprintf("%s", status.ToString().c_str());
    return ResultCode(status.tag());
  };
  // The connection's database is opened for good only now: the code is that of an open.
  const auto fail_open = [&](const Status& status) {
    (void)fail(status);
    return OpenCode(status);
  };
  const char* const file = sqlite3_db_filename(db, "main");
  const bool on_disk = file && *file != '\0';
  // Whatever is wrong with it for every database is said here: an open that fails in the VFS can
  // say no more than CANTOPEN.
  const auto configured =
      ApplyEnvironment(Options(), ProcessEnvironment(), on_disk ? file : "/any.db");
  if (!configured.ok()) return fail(configured.status());
  auto registered = RegisterShim(Engine::Get(), api);
  if (!registered.ok()) return fail(registered.status());
  if (*registered == Registered::kAlreadyOtherCopy) return SQLITE_OK_LOAD_PERMANENTLY;
  // Each time: sqlite3_shutdown() and sqlite3_reset_auto_extension() forget it, and SQLite takes
  // one function once only.
  int rc = sqlite3_auto_extension(reinterpret_cast<void (*)(void)>(AutoEntry));
  if (rc == SQLITE_OK) rc = RegisterSurface(db);
  if (rc != SQLITE_OK) return rc;
  if (on_disk) {
    if (const Status adopted = Adopt(db); !adopted.ok()) {
      // What cannot be adopted (shared cache, a VFS without shared memory) is used as it was; only
      // trouble with replication that was asked for stops the load.
      if (adopted.tag() != Tag::kBadArgument) return fail_open(adopted);
      Log(LogLevel::kInfo, "NOT_ADOPTED", file, adopted.message());
    }
    if (const Status confirmed = ConfirmMain(db); !confirmed.ok()) return fail_open(confirmed);
  }
  return SQLITE_OK_LOAD_PERMANENTLY;
}

}  // namespace
}  // namespace guildlite

extern "C" __attribute__((visibility("default"))) int sqlite3_guildlite_init(
    sqlite3* db, char** error_message, const sqlite3_api_routines* api) {
  SQLITE_EXTENSION_INIT2(api)
  return guildlite::Guarded([&] { return guildlite::Load(db, error_message, api); }, SQLITE_ERROR);
}

extern "C" __attribute__((visibility("default"))) int sqlite3_extension_init(
    sqlite3* db, char** error_message, const sqlite3_api_routines* api) {
  return sqlite3_guildlite_init(db, error_message, api);
}
