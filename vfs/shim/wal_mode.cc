#include "vfs/shim/wal_mode.h"

#include <sqlite3ext.h>

#include <array>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <string>

#include "guildlite/clock.h"
#include "vfs/shim/primary_file.h"
#include "vfs/shim/shim_state.h"

namespace guildlite {
namespace {

constexpr int64_t kRetryMs = 10;

// "The Database Header", sqlite.org/fileformat2.html.
constexpr char kMagic[] = "SQLite format 3";  // with its NUL, 16 bytes
constexpr size_t kReadVersionOffset = 19;

}  // namespace

FileMode FileModeOf(sqlite3* db) {
  ShimState* const shim = TheShim();
  MainFile* const main = shim != nullptr ? FindMainFile(*shim, db) : nullptr;
  if (main == nullptr) return FileMode::kUnknown;
  sqlite3_int64 size = 0;
  if (main->base().xFileSize(main->real(), &size) != SQLITE_OK) return FileMode::kUnknown;
  if (size == 0) return FileMode::kEmpty;
  std::array<unsigned char, kReadVersionOffset + 1> head{};
  if (main->base().xRead(main->real(), head.data(), head.size(), 0) != SQLITE_OK ||
      std::memcmp(head.data(), kMagic, sizeof kMagic) != 0) {
    return FileMode::kUnknown;
  }
  return head[kReadVersionOffset] == 2 ? FileMode::kWal : FileMode::kRollback;
}

Status SwitchToWal(sqlite3* db) {
  const sqlite3_api_routines& api = TheShim()->api;
  const int64_t deadline = SystemClock().MonotonicMs() + kWalSwitchWaitMs;
  for (;;) {
    std::string mode;
    sqlite3_stmt* statement = nullptr;
    int code = api.prepare_v2(db, "PRAGMA main.journal_mode=WAL", -1, &statement, nullptr);
    if (code == SQLITE_OK && (code = api.step(statement)) == SQLITE_ROW) {
      const unsigned char* const text = api.column_text(statement, 0);
      if (text != nullptr) mode = reinterpret_cast<const char*>(text);
    }
    const std::string message = api.errmsg(db);
    api.finalize(statement);
    if (mode == "wal") {
      // A read opens the WAL and maps its index: an adopted connection has both noticed only now.
      api.exec(db, "PRAGMA main.schema_version", nullptr, nullptr, nullptr);
      return Status::Ok();
    }
    // openDatabase() of main.c takes what the last statement left for the result of the open.
    api.exec(db, "SELECT 1", nullptr, nullptr, nullptr);
    const bool busy = (code & 0xff) == SQLITE_BUSY || (code & 0xff) == SQLITE_LOCKED;
    if (!busy) {
      return Status(Tag::kBadArgument,
                    "PRAGMA journal_mode=WAL: " + (mode.empty() ? message : "it stayed " + mode));
    }
    if (SystemClock().MonotonicMs() >= deadline) {
      return Status(Tag::kBusy, "PRAGMA journal_mode=WAL: " + message, true);
    }
    std::mutex mutex;
    std::condition_variable never;
    std::unique_lock lock(mutex);
    SystemClock().WaitFor(never, lock, kRetryMs);
  }
}

}  // namespace guildlite
