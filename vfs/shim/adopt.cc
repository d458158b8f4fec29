#include "vfs/shim/adopt.h"

#include <sqlite3ext.h>

#include <string>
#include <string_view>

#include "vfs/shim/boundary.h"
#include "vfs/shim/primary_file.h"
#include "vfs/shim/register.h"
#include "vfs/shim/shim_state.h"

namespace guildlite {
namespace {

class ConnectionMutex {
 public:
  ConnectionMutex(const sqlite3_api_routines& api, sqlite3* db)
      : api_(api), mutex_(api.db_mutex(db)) {
    api_.mutex_enter(mutex_);
  }
  ~ConnectionMutex() { api_.mutex_leave(mutex_); }
  ConnectionMutex(const ConnectionMutex&) = delete;
  ConnectionMutex& operator=(const ConnectionMutex&) = delete;

 private:
  const sqlite3_api_routines& api_;
  sqlite3_mutex* mutex_;  // null (then a no-op) in a single-threaded connection mode
};

Status Refusal(const char* why) {
  return {Tag::kBadArgument, std::string("adopting the connection's main database: ") + why};
}

// sqlite3_db_status() divides the page cache by the connections that share it, so the two figures
// differ exactly when there are peers (SQLITE_DBSTATUS_CACHE_USED_SHARED, status.c).
bool SharesItsCache(const sqlite3_api_routines& api, sqlite3* db, const char* name) {
  const char* const cache = api.uri_parameter(name, "cache");
  if (cache != nullptr && std::string_view(cache) == "shared") return true;
  int whole = 0;
  int share = 0;
  int high = 0;
  return api.db_status(db, SQLITE_DBSTATUS_CACHE_USED, &whole, &high, 0) == SQLITE_OK &&
         api.db_status(db, SQLITE_DBSTATUS_CACHE_USED_SHARED, &share, &high, 0) == SQLITE_OK &&
         whole != share;
}

// First column of the first row, or "" when there is none or it failed.
std::string Query(const sqlite3_api_routines& api, sqlite3* db, const char* sql) {
  sqlite3_stmt* statement = nullptr;
  std::string text;
  if (api.prepare_v2(db, sql, -1, &statement, nullptr) == SQLITE_OK &&
      api.step(statement) == SQLITE_ROW) {
    if (const unsigned char* column = api.column_text(statement, 0)) {
      text = reinterpret_cast<const char*>(column);
    }
  }
  api.finalize(statement);
  return text;
}

Status AdoptFile(ShimState& shim, sqlite3* db, sqlite3_file* file, const char* name) {
  const sqlite3_api_routines& api = shim.api;
  sqlite3_vfs* vfs = nullptr;
  api.file_control(db, nullptr, SQLITE_FCNTL_VFS_POINTER, &vfs);
  if (vfs == nullptr || vfs == &shim.vfs) vfs = &shim.base;

  Result<NodeRegistry::Joined> joined = shim.nodes.Join(api, *vfs, name, api.filename_wal(name));
  if (!joined.ok()) return joined.status();
  OpenNode& node = *joined->node;
  if (api.db_readonly(db, nullptr) == 0) node.set_writable();

  bool replaced = false;
  if (joined->first) {
    shim.nodes.Identify(node);
    node.NoteFirst();
    Status status = Status::Ok();
    const int thrown = Guarded([&] {
      status = shim.host.FirstOpened(node);
      return SQLITE_OK;
    });
    if (thrown != SQLITE_OK) status = Refusal("the replicator failed");
    if (!status.ok() && node.current_events() != nullptr) {
      MainFile::Adopted(shim, joined->node, file, name, db);
      shim.nodes.Settle(node);
      return status;
    }
    if (!status.ok()) {
      if (shim.nodes.Leave(node)) {
        shim.nodes.Gone(node);
      } else {
        shim.nodes.Settle(node);
      }
      return status;
    }
    replaced = shim.nodes.WasReplaced(node);
  }

  MainFile* const main = MainFile::Adopted(shim, joined->node, file, name, db);
  if (joined->first) shim.nodes.Settle(node);
  if (!replaced) return Status::Ok();
  if (main->in_use()) {
    return {Tag::kRestoreNeeded,
            std::string(name) +
                " was restored while this connection was reading the file that stood "
                "there; close it, or load the extension before the first statement"};
  }
  if (const int code = main->Redirect(*vfs); code != SQLITE_OK) {
    return {Tag::kLocalIo, std::string("opening the restored ") + name + ": " + api.errstr(code)};
  }
  shim.nodes.Identify(node);
  return Status::Ok();
}

}  // namespace

Status Adopt(sqlite3* db) {
  ShimState* const shim = TheShim();
  if (shim == nullptr) return Refusal("the VFS is not registered");
  if (InForkedChild()) return Refusal("this process was forked from the one that replicates");
  const sqlite3_api_routines& api = shim->api;
  const ConnectionMutex mutex(api, db);

  if (MainFile* const main = FindMainFile(*shim, db)) {
    if (main->adopted() && main->adopted_from() != db) main->ForgetConnection();
    return Status::Ok();
  }

  const char* const name = api.db_filename(db, nullptr);
  sqlite3_file* file = nullptr;
  const int code = api.file_control(db, nullptr, SQLITE_FCNTL_FILE_POINTER, &file);
  if (name == nullptr || name[0] == '\0' || code != SQLITE_OK || file == nullptr ||
      file->pMethods == nullptr) {
    return Refusal("it is in memory or temporary");
  }
  if (file->pMethods->iVersion < 2 || file->pMethods->xShmMap == nullptr) {
    return Refusal("its VFS has no shared memory, so it cannot use WAL mode with others");
  }
  int moved = 0;
  if (api.file_control(db, nullptr, SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK && moved != 0) {
    return Refusal("its file was renamed, removed or replaced since it was opened");
  }
  if (SharesItsCache(api, db, name)) {
    return Refusal("it shares its cache with other connections; open it without cache=shared");
  }

  Status status = AdoptFile(*shim, db, file, name);
  if (!status.ok()) return status;

  // A read, so that a WAL database has its WAL open and its index mapped: the locks it takes lead
  // us to both. In locking_mode=EXCLUSIVE there are none, but the WAL's magic tells. A failure
  // (BUSY, not a database) is the application's to meet with its own first statement.
  Query(api, db, "PRAGMA main.schema_version");
  if (Query(api, db, "PRAGMA main.journal_mode") == "wal") {
    if (MainFile* const main = FindMainFile(*shim, db)) main->AdoptWal();
  }
  return Status::Ok();
}

Status ReplaceMain(sqlite3* db, const std::function<Status()>& put) {
  ShimState* const shim = TheShim();
  if (shim == nullptr) return Refusal("the VFS is not registered");
  const sqlite3_api_routines& api = shim->api;
  const ConnectionMutex mutex(api, db);
  MainFile* const main = FindMainFile(*shim, db);
  if (main == nullptr) return Refusal("it is not under the shim");
  OpenNode& node = main->node();
  if (main->in_use() || shim->nodes.files(node) != 1) {
    return {Tag::kRestoreNeeded, node.path() + " is empty but in use; close its other connections"};
  }
  if (Status s = put(); !s.ok()) return s;
  if (!shim->nodes.WasReplaced(node)) return Status::Ok();
  sqlite3_vfs* vfs = nullptr;
  api.file_control(db, nullptr, SQLITE_FCNTL_VFS_POINTER, &vfs);
  if (vfs == nullptr || vfs == &shim->vfs) vfs = &shim->base;
  if (const int code = main->Redirect(*vfs); code != SQLITE_OK) {
    return {Tag::kLocalIo, "opening the restored " + node.path() + ": " + api.errstr(code)};
  }
  shim->nodes.Identify(node);
  // A read, so that the connection knows what journal mode the file is in.
  Query(api, db, "PRAGMA main.schema_version");
  return Status::Ok();
}

}  // namespace guildlite
