// guildlite_register(): for programs that link guildlite instead of loading it. In libguildlite.a
// only; the module must name no function of SQLite, which it knows from who loads it.
//
// All the rest uses SQLite through sqlite3_api_routines, and SQLite hands them to nobody but its
// extensions. So a connection to nothing is opened with an extension that keeps them, and guildlite
// is loaded into it as into any other.

#include <sqlite3.h>

#include <atomic>

#include "guildlite/guildlite.h"

namespace {

std::atomic<const sqlite3_api_routines*> g_api{nullptr};

// Runs in whatever other threads open meanwhile, too; all are given the same routines.
int KeepApi(sqlite3*, char**, const sqlite3_api_routines* api) noexcept {
  g_api.store(api);
  return SQLITE_OK;
}

int Fail(char** error_message, int code, const char* what) {
  if (error_message) *error_message = sqlite3_mprintf("BAD_ARGUMENT: guildlite_register: %s", what);
  return code;
}

}  // namespace

extern "C" int guildlite_register(char** error_message) {
  if (error_message) *error_message = nullptr;
  const auto keep_api = reinterpret_cast<void (*)(void)>(KeepApi);
  int code = sqlite3_auto_extension(keep_api);
  if (code != SQLITE_OK) return Fail(error_message, code, sqlite3_errstr(code));
  sqlite3* db = nullptr;
  code = sqlite3_open(":memory:", &db);
  sqlite3_cancel_auto_extension(keep_api);
  if (code != SQLITE_OK) {
    Fail(error_message, code, db ? sqlite3_errmsg(db) : sqlite3_errstr(code));
  } else if (const sqlite3_api_routines* const api = g_api.load(); api == nullptr) {
    code = Fail(error_message, SQLITE_ERROR,
                "this SQLite was built with SQLITE_OMIT_LOAD_EXTENSION, and has no functions for "
                "extensions; use one built without");
  } else {
    code = sqlite3_guildlite_init(db, error_message, api);
    if (code == SQLITE_OK_LOAD_PERMANENTLY) code = SQLITE_OK;
  }
  sqlite3_close(db);
  return code;
}
